"""The memory network as the library sees it: a transport, its listeners, and an upgrader that shakes hands."""

from __future__ import annotations

import errno
import logging
from typing import TYPE_CHECKING, cast

import trio
from libp2p.abc import IListener, IMuxedConn, IRawConnection, ISecureConn, ITransport
from libp2p.custom_types import THandler
from libp2p.peer.id import ID
from libp2p.transport.exceptions import OpenConnectionError, SecurityUpgradeFailure
from multiaddr import Multiaddr

from transports.addresses import Address, parse
from transports.libp2p.upgrader import Upgrader
from transports.memory.connection import End
from transports.memory.place import Place

if TYPE_CHECKING:
    from transports.memory.network import MemoryNetwork

logger = logging.getLogger(__name__)

FIRST_PORT = 4001
"""Of a listener that leaves the choice to us."""


class MemoryListener(IListener):
    """Hands each connection that is dialled to *handler*, whose end closes it."""

    background_nursery: trio.Nursery  # set by the swarm

    def __init__(self, place: Place, handler: THandler) -> None:
        self._place = place
        self._handler = handler
        self._port: int | None = None
        self._addresses: tuple[Multiaddr, ...] = ()

    async def listen(self, maddr: Multiaddr) -> None:
        """Raises OSError when the port is taken."""
        await trio.lowlevel.checkpoint()
        port = parse(str(maddr)).port
        if not port:
            port = next(free for free in range(FIRST_PORT, 65536) if free not in self._place.accepts)
        if port in self._place.accepts:
            raise OSError(errno.EADDRINUSE, "Address already in use")
        self._port = port
        self._place.accepts[port] = self._accept
        self._addresses = (Multiaddr(Address("ip4", self._place.host, port, False, None).transport),)

    def _accept(self, end: End) -> bool:
        if self.background_nursery.cancel_scope.cancel_called:
            return False  # the host is closing
        self.background_nursery.start_soon(self._handle, end)
        return True

    async def _handle(self, end: End) -> None:
        try:
            await self._handler(cast(IRawConnection, end))
        except Exception:
            logger.exception("a connection ended in an error of our own")

    def get_addrs(self) -> tuple[Multiaddr, ...]:
        return self._addresses

    async def close(self) -> None:
        if self._port is not None and self._place.accepts.get(self._port) == self._accept:
            del self._place.accepts[self._port]
        self._port, self._addresses = None, ()


class MemoryTransport(ITransport):
    """Stands for TCP and WebSocket of one host, for one life of it."""

    def __init__(self, network: MemoryNetwork, place: Place) -> None:
        self._network = network
        self._place = place
        self._life = place.life

    def protocols(self) -> list[str]:
        return ["tcp"]

    def can_dial(self, maddr: Multiaddr) -> bool:
        return True

    def can_listen(self, maddr: Multiaddr) -> bool:
        return True

    def create_listener(self, handler_function: THandler) -> MemoryListener:
        return MemoryListener(self._place, handler_function)

    async def dial(self, maddr: Multiaddr) -> IRawConnection:
        """Raises OpenConnectionError, caused by ConnectionRefusedError where nobody listens."""
        _, _, host, _, port, *_ = str(maddr).split("/")
        try:
            return cast(IRawConnection, await self._network.dial(self._place, self._life, host, int(port)))
        except OSError as error:
            raise OpenConnectionError(str(error)) from error


class MemoryUpgrader(Upgrader):
    """From an end to one that carries streams: a handshake in which both sides hear who the other is."""

    def __init__(self) -> None:
        """Nothing is negotiated, so nothing is set up."""

    async def upgrade_security(
        self, raw_conn: IRawConnection, is_initiator: bool, peer_id: ID | None = None
    ) -> ISecureConn:
        end = cast(End, raw_conn if isinstance(raw_conn, End) else raw_conn.stream)  # type: ignore[attr-defined]
        try:
            remote = await end.handshake()
        except OSError as error:
            raise SecurityUpgradeFailure(str(error)) from error
        if peer_id is not None and remote != peer_id:
            end.hang_up()
            raise SecurityUpgradeFailure(f"Peer ID mismatch: expected {peer_id}, got {remote}")
        return cast(ISecureConn, end)

    async def upgrade_connection(self, conn: ISecureConn, peer_id: ID) -> IMuxedConn:
        muxer = cast(End, conn).muxer
        assert muxer is not None, "made in the handshake"
        return muxer
