"""TCP that notices a busy port and knows IPv6 addresses.

Wrong in 0.8.1: the listener binds with SO_REUSEPORT, so a second node on the same port starts without an error and the
two steal each other's connections; and ``get_remote_address`` answers None for IPv6 and WebSocket ones. Delete the
listener when the library offers to listen without SO_REUSEPORT (hole punching will want the option back), the rest when
those addresses are right.
"""

from __future__ import annotations

import logging

import trio
from libp2p.abc import IListener, IRawConnection
from libp2p.custom_types import THandler
from libp2p.io.trio import TrioTCPStream
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.transport.exceptions import OpenConnectionError
from libp2p.transport.tcp.tcp import TCP
from multiaddr import Multiaddr

from transports.addresses import Address, parse

logger = logging.getLogger(__name__)

BACKLOG = 128
"""Connections the kernel holds for us while the loop is busy."""


SILENCE_TIMEOUT = 30
"""Seconds without an acknowledgement after which the kernel gives a connection up; its own limit is 15 minutes."""

KEEPALIVE = 15
"""Seconds of idleness before the kernel asks whether the peer is there: a pulled plug is noticed, NATs stay open."""


class TcpStream(TrioTCPStream):
    """A socket with its remote address, which survives the socket, and that notices a silent peer."""

    def __init__(self, stream: trio.SocketStream) -> None:
        super().__init__(stream)
        stream.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_KEEPALIVE, 1)
        for option, value in (("TCP_KEEPIDLE", KEEPALIVE), ("TCP_USER_TIMEOUT", SILENCE_TIMEOUT * 1000)):
            if hasattr(trio.socket, option):  # Linux
                stream.setsockopt(trio.socket.IPPROTO_TCP, getattr(trio.socket, option), value)
        try:
            host, port, *_ = stream.socket.getpeername()
        except OSError:  # gone already: the first read will say so
            return
        self._cached_remote_address = (host.split("%")[0], port)


class RawSocket(RawConnection):
    """An accepted connection with its remote address: the library has none for WebSockets."""

    def get_remote_address(self) -> tuple[str, int] | None:
        address = self.stream.get_remote_address()
        websocket = getattr(self.stream, "_ws_connection", None)
        if address is None and websocket is not None:
            remote = websocket.remote
            address = (str(remote.address), remote.port)
        return address


class Listener(IListener):
    """Accepts connections on one socket and gives each to *handler*, whose end closes it."""

    def __init__(self, handler: THandler) -> None:
        self._handler = handler
        self._listener: trio.SocketListener | None = None
        self._scope = trio.CancelScope()
        self.background_nursery: trio.Nursery  # set by the swarm

    async def listen(self, maddr: Multiaddr) -> None:
        """Bind and start accepting. Raises OSError, for instance when the port is busy."""
        address = parse(str(maddr))
        family = trio.socket.AF_INET6 if address.host_kind == "ip6" else trio.socket.AF_INET
        sock = trio.socket.socket(family, trio.socket.SOCK_STREAM)
        try:
            sock.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_REUSEADDR, 1)
            if family == trio.socket.AF_INET6:
                sock.setsockopt(trio.socket.IPPROTO_IPV6, trio.socket.IPV6_V6ONLY, 1)
            await sock.bind((address.host, address.port))
            sock.listen(BACKLOG)
            self._listener = trio.SocketListener(sock)
        except BaseException:
            sock.close()
            raise
        self.background_nursery.start_soon(self._serve, self._listener)

    async def _serve(self, listener: trio.SocketListener) -> None:
        with self._scope:
            await trio.serve_listeners(self._handle, [listener])

    async def _handle(self, stream: trio.SocketStream) -> None:
        try:
            await self._handler(TcpStream(stream))
        except Exception:
            logger.exception("a connection ended in an error of our own")

    def get_addrs(self) -> tuple[Multiaddr, ...]:
        if self._listener is None:
            return ()
        host, port, *_ = self._listener.socket.getsockname()
        return (Multiaddr(Address("ip6" if ":" in host else "ip4", host, port, False, None).transport),)

    async def close(self) -> None:
        self._scope.cancel()
        if self._listener is not None:
            self._listener.socket.close()
            self._listener = None
        await trio.lowlevel.checkpoint()


class Tcp(TCP):
    """The library's TCP transport (DNS, address matching) with our listener and our stream."""

    def create_listener(self, handler_function: THandler) -> Listener:  # type: ignore[override]  # an IListener too
        return Listener(handler_function)

    async def _dial_resolved(self, maddr: Multiaddr, source: tuple[str, int] | None = None) -> IRawConnection:
        parts = str(maddr).split("/")
        try:
            stream = await trio.open_tcp_stream(parts[2], int(parts[4]))
        except (OSError, IndexError, ValueError) as error:
            raise OpenConnectionError(str(error)) from error
        return RawConnection(TcpStream(stream), True)
