"""The other side of the comparison: the same world over real sockets on this machine, in real time.

Noise, yamux and TCP are those of production; only the length of the links is made up. Each host has an address of its
own in 127.0.0.0/8, listens there and dials from there, so both ends of a connection know which link it is. What an end
sends is held for the latency of that link before the kernel gets it, in order; a dial waits for a round trip first.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from typing import cast

import trio
from libp2p.abc import IRawConnection
from libp2p.crypto.keys import KeyPair
from libp2p.custom_types import THandler
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.transport.exceptions import OpenConnectionError
from multiaddr import Multiaddr

from simulations.virtual import Virtual
from simulations.world import Member, World
from transports.addresses import parse
from transports.config import HostConfig
from transports.host import Carrier, Host, open_host, sockets
from transports.libp2p.tcp import Listener, Tcp, TcpStream
from transports.memory import LinkModel, MemoryNetwork
from transports.peer_id import PeerId

WRITES_UNDER_WAY = 1024
"""Of one direction of a connection at most; beyond, who writes waits."""
FIRST_HOST = 10


class LoopbackNetwork:
    """Opens hosts that are as far apart as *links* says. Tasks that hold bytes live in *nursery*."""

    def __init__(self, links: LinkModel, nursery: trio.Nursery) -> None:
        self.links = links
        self.nursery = nursery
        self._peers: dict[str, PeerId] = {}
        self._addresses: dict[PeerId, str] = {}

    def __repr__(self) -> str:
        return f"<LoopbackNetwork of {len(self._peers)} hosts>"

    def address(self, peer: PeerId) -> str:
        """Where *peer*, which runs, listens."""
        return self._addresses[peer]

    def latency_s(self, own: str, other: str) -> float:
        """One way, from the host at one IP address to that at another."""
        return self.links(self._peers[own], self._peers[other]).latency_s

    @asynccontextmanager
    async def open_host(self, config: HostConfig, seed: bytes) -> AsyncIterator[Host]:
        """As :func:`transports.host.open_host`, at an address of this network."""
        async with open_host(config, seed, self) as host:
            (self._addresses[host.peer_id],) = host.addresses
            yield host

    def listen_addresses(self, peer: PeerId, wanted: Sequence[str]) -> tuple[str, ...]:
        """An address of its own for the host of *peer*, and a free port."""
        number = FIRST_HOST + len(self._peers)
        own = f"127.0.{number // 250}.{number % 250 + 1}"
        self._peers[own] = peer
        return (f"/ip4/{own}/tcp/0",)

    @contextmanager
    def attached(self, peer: PeerId, config: HostConfig, keys: KeyPair) -> Iterator[Carrier]:
        """TCP at the address of *peer*, encrypted as in production."""
        (own,) = (parse(address).host for address in config.listen)
        _, upgrader = sockets(config, keys)
        yield [_DelayedTcp(self, own)], upgrader

    def delayed(self, stream: trio.SocketStream, own: str, other: str) -> TcpStream:
        """*stream*, with what it sends held for as long as the link says."""
        held = _HeldSocket(stream, self.latency_s(own, other))
        self.nursery.start_soon(held.carry)
        return TcpStream(cast(trio.SocketStream, held))


class _HeldSocket:
    """What TcpStream needs of a Trio stream. Closing it lets what is held leave first."""

    def __init__(self, stream: trio.SocketStream, latency_s: float) -> None:
        self._stream = stream
        self._latency_s = latency_s
        self._held, self._due = trio.open_memory_channel[tuple[float, bytes]](WRITES_UNDER_WAY)
        self.socket = stream.socket
        self.setsockopt = stream.setsockopt
        self.receive_some = stream.receive_some

    async def send_all(self, data: bytes) -> None:
        """Raises as a SocketStream does, later by as much as the link is long."""
        await self._held.send((trio.current_time() + self._latency_s, bytes(data)))

    async def aclose(self) -> None:
        await self._held.aclose()

    async def carry(self) -> None:
        """Give the kernel what is due, until this end is closed or the other one has gone."""
        try:
            async with self._due:
                async for due, data in self._due:
                    await trio.sleep_until(due)
                    await self._stream.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return  # who writes next gets BrokenResourceError from the channel
        finally:
            await trio.aclose_forcefully(self._stream)


class _DelayedListener(Listener):
    def __init__(self, handler: THandler, network: LoopbackNetwork, own: str) -> None:
        async def handle(stream: TcpStream) -> None:
            socket = stream.stream
            await handler(network.delayed(socket, own, socket.socket.getpeername()[0]))

        super().__init__(cast(THandler, handle))


class _DelayedTcp(Tcp):
    """TCP of the host at *own*."""

    def __init__(self, network: LoopbackNetwork, own: str) -> None:
        super().__init__()
        self._network = network
        self._own = own

    def create_listener(self, handler_function: THandler) -> Listener:  # type: ignore[override]  # as in Tcp
        return _DelayedListener(handler_function, self._network, self._own)

    async def _dial_resolved(self, maddr: Multiaddr, source: tuple[str, int] | None = None) -> IRawConnection:
        address = parse(str(maddr))
        try:
            await trio.sleep(2 * self._network.latency_s(self._own, address.host))
            stream = await trio.open_tcp_stream(address.host, address.port, local_address=self._own)
        except (OSError, KeyError) as error:
            raise OpenConnectionError(str(error)) from error
        return RawConnection(self._network.delayed(stream, self._own, address.host), True)


class LoopbackWorld(World):
    """A world over a :class:`LoopbackNetwork`, to be run by ``trio.run`` with its usual clock.

    Links are made and measured as in any other; there are no faults and no statistics of the network.
    """

    def __init__(
        self, virtual: Virtual, network: LoopbackNetwork, members: Sequence[Member], few: int, nursery: trio.Nursery
    ) -> None:
        # Building a world and telling news in it ask the network for addresses alone.
        super().__init__(virtual, cast(MemoryNetwork, network), members, few, nursery)
        self._loopback = network

    def _open_host(self, settings: HostConfig, seed: bytes) -> AbstractAsyncContextManager[Host]:
        return self._loopback.open_host(settings, seed)
