"""The connections of a node: dialling, accepting, limits, and events that are told exactly once.

Wrong in 0.8.1, each with a test in tests/transports that shows it on the bare library:

- A: the inbound handler waits for the end of the *swarm*, so each inbound connection of the node's life keeps a task
  and one of 250 slots: after 250 of them nothing can connect any more;
- G: ``close_peer`` drops the peer's entry after closing, and with it connections made meanwhile;
- H: ``dial_peer`` waits 250 ms per address even after success, tries one address per transport class, dials the next
  class too (two connections), and refuses a peer for 60 s after one failure, even at new addresses;
- the auto connector dials whatever the peerstore holds, also with ``low_watermark=0``; our dialer decides that;
- ``listen`` answers False instead of raising, and True when only some addresses work.

Delete override by override when its test passes on the bare library.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from typing import Any, Protocol, cast

import trio
from libp2p.abc import IMuxedConn, IPeerStore, ITransport
from libp2p.io.abc import ReadWriteCloser
from libp2p.network.config import ConnectionConfig
from libp2p.network.exceptions import SwarmException
from libp2p.network.swarm import Swarm as LibrarySwarm
from libp2p.peer.id import ID
from libp2p.transport.exceptions import OpenConnectionError
from multiaddr import Multiaddr

from transports.addresses import parse
from transports.config import HostConfig
from transports.errors import AddressError, ListenError, PeerUnreachable
from transports.gate import Gate
from transports.libp2p.connection import Connection
from transports.libp2p.muxed_stream import MuxedStream
from transports.libp2p.tcp import RawSocket
from transports.libp2p.upgrader import Upgrader
from transports.libp2p.yamux import Yamux
from transports.peer_id import PeerId

logger = logging.getLogger(__name__)


class Policy(Protocol):
    """What the swarm asks of the host."""

    def is_admitted(self, peer: PeerId) -> bool: ...

    def first_connection(self, peer: PeerId) -> None:
        """*peer* has its first connection now."""

    def last_connection_lost(self, peer: PeerId, *, released: bool) -> None:
        """*peer* has no connection any more. *released*: one side had too many, and let go of this one."""

    async def serve_stream(self, connection: Connection, stream: MuxedStream) -> None:
        """Negotiate and handle an inbound stream."""


class NoAutoConnector:
    """Stands where the library's auto connector would be, and dials nobody."""

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def run_background_task(self, nursery: trio.Nursery) -> None: ...

    def record_disconnect(self, peer_id: ID) -> None: ...


class Swarm(LibrarySwarm):
    """See the module. ``policy`` must be set before :meth:`begin`."""

    policy: Policy

    def __init__(
        self, peer_id: ID, peerstore: IPeerStore, upgrader: Upgrader, transports: list[ITransport], config: HostConfig
    ) -> None:
        super().__init__(
            peer_id,
            peerstore,
            upgrader,
            transports,
            connection_config=ConnectionConfig(
                min_connections=0,  # this and the watermarks only steer what is replaced here
                low_watermark=0,
                high_watermark=config.max_connections,
                max_connections=config.max_connections,
                max_connections_per_peer=config.max_connections_per_peer,
                inbound_upgrade_timeout=config.handshake_timeout,
                outbound_upgrade_timeout=config.handshake_timeout,
            ),
        )
        self.config = config
        self.auto_connector = cast(Any, NoAutoConnector())
        self.notifees.clear()  # the tag store's: it serves the library's pruner, which has nothing to do here
        self.gate = Gate(config)
        self.refused: Counter[str] = Counter()

    def __repr__(self) -> str:
        return f"<Swarm of {self.self_id}, {len(self.connections)} peers, refused {dict(self.refused)}>"

    def all_connections(self) -> list[Connection]:
        return [cast(Connection, conn) for conns in self.connections.values() for conn in conns]

    def members(self) -> list[Connection]:
        """Connections of admitted peers."""
        return [conn for conn in self.all_connections() if self.policy.is_admitted(conn.peer)]

    def strangers(self) -> list[Connection]:
        """Connections of peers that are not admitted, oldest first."""
        return sorted(
            (conn for conn in self.all_connections() if not self.policy.is_admitted(conn.peer)),
            key=lambda conn: conn.opened_at,
        )

    def inbound_stream_limit(self, peer: PeerId) -> int:
        return self.config.streams_per_member if self.policy.is_admitted(peer) else self.config.streams_per_stranger

    async def serve_stream(self, connection: Connection, stream: MuxedStream) -> None:
        await self.policy.serve_stream(connection, stream)

    # Life ---------------------------------------------------------------------------------------------------------

    def begin(self, nursery: trio.Nursery) -> None:
        """Run in *nursery* from now on. (The library's service around a swarm costs three tasks.)"""
        self.background_nursery = nursery
        self.transport_manager.set_background_nursery(nursery)
        self.transport_manager.set_swarm(self)
        self.event_background_nursery_created.set()
        nursery.start_soon(self.close_strangers)

    async def end(self) -> None:
        """Close every connection (what was written leaves first), then stop to listen."""
        self._closing = True
        async with trio.open_nursery() as closing:
            for connection in self.all_connections():
                closing.start_soon(connection.close)
        for listener in list(self.listeners.values()):
            await listener.close()
        await self.transport_manager.close_all()

    # Listening ----------------------------------------------------------------------------------------------------

    async def listen(self, *multiaddrs: Multiaddr) -> bool:
        """Listen on every address, or raise ListenError naming the one that does not work."""
        await self.event_background_nursery_created.wait()
        for address in multiaddrs:
            transport = self.transport_manager.transport_for_listening(address)
            if transport is None:
                raise ListenError(str(address), "no transport of this node fits; use /ip4/.../tcp/... or add /ws")

            async def accept(stream: ReadWriteCloser, address: Multiaddr = address) -> None:
                await self._handle_inbound_connection(stream, address)

            listener = cast(Any, transport.create_listener(accept))
            listener.background_nursery = self.background_nursery
            try:
                await listener.listen(address)
            except (OSError, OpenConnectionError) as error:
                raise ListenError(
                    str(address), f"{error}; choose another port with --listen, or stop what uses this one"
                ) from error
            self.listeners[str(address)] = listener
        return True

    # Accepting ----------------------------------------------------------------------------------------------------

    def _refusal(self, host: str) -> str | None:
        """Why a new inbound connection from *host* is not wanted now. At a member's address it may be the member."""
        crowded = None if self.gate.is_members(host) else self._crowded(host)
        return crowded or self.gate.refusal(host, trio.current_time())

    def _crowded(self, host: str) -> str | None:
        """Why there is no room for one more stranger from *host*. Those at members' addresses take none from others."""
        strangers = self.strangers()
        if sum(1 for conn in strangers if conn.remote_host == host) >= self.config.max_strangers_per_address:
            return "too many strangers from one address"
        elsewhere = sum(1 for conn in strangers if not self.gate.is_members(conn.remote_host))
        if elsewhere >= self.config.max_strangers and not self.gate.is_members(host):
            return "too many connections of strangers"
        return None

    async def _handle_inbound_connection(self, read_write_closer: ReadWriteCloser, maddr: Multiaddr) -> None:
        """Upgrade an accepted socket and stay until *this connection* lets go of it (bug A)."""
        remote = RawSocket(read_write_closer, False).get_remote_address()
        host = remote[0] if remote else ""
        refusal = self._refusal(host)
        if refusal is not None:
            self.refused[refusal] += 1
            await read_write_closer.close()
            return
        scope = trio.CancelScope()
        handshake = self.gate.begin(host, trio.current_time(), scope.cancel)
        muxed = None
        try:
            with scope:
                muxed = await self.upgrade_inbound_raw_conn(RawSocket(read_write_closer, False), maddr)
        except Exception as error:  # whatever a stranger sends in a handshake ends that handshake only
            self.refused["failed handshake"] += 1
            logger.debug("inbound handshake from %s failed: %r", remote, error)
            return
        finally:
            self.gate.end(handshake)
        if muxed is None:
            self.refused["a slow handshake gave way"] += 1
            await read_write_closer.close()
            return
        await cast(Yamux, muxed).stay()

    async def add_conn(self, muxed_conn: IMuxedConn, direction: str = "unknown") -> Connection:
        """Register and run an upgraded connection; returns when streams can be opened on it.

        Everything up to registration is one step, so two dials cannot race each other, and a cancel cannot leave a
        half-registered connection behind.
        """
        muxed = cast(Yamux, muxed_conn)
        try:
            peer = PeerId.of(muxed.peer_id.to_bytes())
        except ValueError as error:
            await muxed.close(str(error))
            raise SwarmException(str(error)) from error
        connection = Connection(muxed, self, direction, peer, remote_multiaddr(muxed))
        siblings = self.connections.get(muxed.peer_id, [])
        reason = None
        if self._closing or self.background_nursery is None:
            reason = "this node is stopping"
        elif peer.raw == self.self_id.to_bytes():
            reason = "that is this node itself"
        elif len(self.all_connections()) >= self.config.max_connections:
            reason = f"this node has {self.config.max_connections} connections, which is its limit"
        elif connection.inbound and not self.policy.is_admitted(peer):
            reason = self._crowded(connection.remote_host)
        if reason is not None:
            self.refused[reason] += 1
            await muxed.close(reason)
            raise SwarmException(reason)
        assert self.background_nursery is not None
        self.background_nursery.start_soon(muxed.start)
        self.connections[muxed.peer_id] = [*siblings, connection]
        if self.policy.is_admitted(peer):
            self.gate.remember_member(connection.remote_host)
            connection.trust(True)
        if not siblings:
            self.policy.first_connection(peer)
        elif len(siblings) >= self.config.max_connections_per_peer:
            self.background_nursery.start_soon(cast(Connection, siblings[0]).close)
        self.background_nursery.start_soon(self.notify_connected, connection)
        await muxed.event_started.wait()
        connection.event_started.set()
        return connection

    def remove_conn(self, swarm_conn: Any) -> None:
        """Forget a connection; tells the policy when it was the peer's last (bug G: nothing else is dropped)."""
        connection = cast(Connection, swarm_conn)
        siblings = self.connections.get(connection.muxed_conn.peer_id, [])
        if connection not in siblings:
            return
        left = [other for other in siblings if other is not connection]
        if left:
            self.connections[connection.muxed_conn.peer_id] = left
        else:
            del self.connections[connection.muxed_conn.peer_id]
            self.policy.last_connection_lost(connection.peer, released=connection.released)

    async def close_peer(self, peer_id: ID) -> None:
        """Close the connections that exist now (bug G); later ones are not touched."""
        async with trio.open_nursery() as nursery:
            for connection in self.get_connections(peer_id):
                nursery.start_soon(connection.close)

    async def close_strangers(self) -> None:
        """Close connections whose peer was not admitted in time; runs until cancelled."""
        async with trio.open_nursery() as nursery:
            while True:
                await trio.sleep(self.config.stranger_timeout / 4)
                for connection in self.strangers():
                    if trio.current_time() - connection.opened_at >= self.config.stranger_timeout:
                        self.refused["not admitted in time"] += 1
                        nursery.start_soon(connection.close)

    # Dialling -----------------------------------------------------------------------------------------------------

    async def dial(self, peer_id: ID, addresses: Sequence[str]) -> Connection:
        """Connect through the first address that answers; the other attempts are cancelled (bug H).

        Attempts start *dial_stagger* apart, or as soon as the one before has failed. Nothing is remembered about
        failures: back-off is the caller's. Raises PeerUnreachable with every reason.

        Of a taken connection that breaks in the handshake nothing can be told: a node in a flood drops strangers so.
        """
        reasons: list[str] = []
        refusals = 0
        won: list[Connection] = []
        wanted = list(dict.fromkeys(addresses))[: self.config.max_dial_addresses]

        async with trio.open_nursery() as nursery:

            async def attempt(text: str, failed: trio.Event) -> None:
                nonlocal refusals
                try:
                    with trio.fail_after(self.config.dial_timeout):
                        connection = await self._dial_one(text, peer_id)
                except trio.TooSlowError:
                    reasons.append(f"{text}: no answer in {self.config.dial_timeout:.0f} s")
                except Exception as error:
                    causes = _causes(error)
                    refusals += all(isinstance(cause, ConnectionRefusedError) for cause in causes)
                    reasons.append(f"{text}: {str(causes[0]) or type(causes[0]).__name__}")
                else:
                    won.append(connection)
                    nursery.cancel_scope.cancel()
                failed.set()

            for text in wanted:
                failed = trio.Event()
                nursery.start_soon(attempt, text, failed)
                with trio.move_on_after(self.config.dial_stagger):
                    await failed.wait()
        if not won:
            detail = "; ".join(reasons) or "no address is known; give one with /p2p/, or wait until the peer connects"
            refused = bool(wanted) and refusals == len(wanted)
            raise PeerUnreachable(f"cannot connect to {peer_id}: {detail}", refused=refused)
        return won[0]

    async def _dial_one(self, text: str, peer_id: ID) -> Connection:
        address = parse(text)
        if address.peer is not None and address.peer.raw != peer_id.to_bytes():
            raise AddressError(f"this is the address of {address.peer}")
        if address.wildcard:
            raise AddressError("a wildcard address can be listened on, but not dialled")
        connection = cast(Connection, await self._dial_addr_single_attempt(Multiaddr(address.transport), peer_id))
        connection.remote_address = address.transport
        return connection

    async def dial_peer(self, peer_id: ID) -> list[Any]:
        """The library's own callers may use what is connected; they do not dial. See :meth:`dial`."""
        connections = self.get_connections(peer_id)
        if not connections:
            raise SwarmException(f"{peer_id} is not connected")
        return connections

    # Notifications ------------------------------------------------------------------------------------------------

    def _schedule_auto_connect(self) -> None:
        """The dialer redials; see the module."""

    async def notify_opened_stream(self, stream: Any) -> None:
        """Nobody here listens; the library opens a nursery per stream to tell them."""

    async def notify_closed_stream(self, stream: Any) -> None:
        """As above."""


def remote_multiaddr(muxed: Yamux) -> str:
    """Where the other end of the socket is, as a multiaddr."""
    remote = muxed.get_remote_address()
    if remote is None:
        return "/ip4/0.0.0.0/tcp/0"
    host, port = remote
    return f"/{'ip6' if ':' in host else 'ip4'}/{host}/tcp/{port}"


def _causes(error: BaseException) -> list[BaseException]:
    """What happened in the end; the library and Trio wrap it up to five times."""
    while error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, BaseExceptionGroup):
        return [cause for each in error.exceptions for cause in _causes(each)]
    return [error]
