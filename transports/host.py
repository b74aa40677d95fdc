"""The host: listens, dials, admits, and hands out streams.

This is what the rest of the project sees of libp2p. Admission is closed by default: a peer that was not admitted may
use public protocols (identify, ping, and those registered with ``public=True``) within small limits, and hears no
gossip.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, Protocol, cast

import trio
from libp2p.abc import ITransport
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.crypto.keys import KeyPair
from libp2p.crypto.x25519 import create_new_key_pair as create_noise_key_pair
from libp2p.custom_types import StreamHandlerFn, TProtocol, TSecurityOptions
from libp2p.host.exceptions import StreamFailure
from libp2p.peer.id import ID
from libp2p.peer.peerstore import PeerStore
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE
from libp2p.security.tls.transport import PROTOCOL_ID as TLS
from libp2p.stream_muxer.exceptions import MuxedStreamError
from libp2p.transport.websocket.transport import WebsocketConfig
from multiaddr import Multiaddr

from transports.addresses import Path, classify, parse
from transports.config import HostConfig
from transports.errors import AddressError, ListenError, PeerUnreachable
from transports.gossip import Gossip, GossipStatistics
from transports.interfaces import expand
from transports.libp2p import multistream
from transports.libp2p.connection import Connection
from transports.libp2p.gossipsub import make_router
from transports.libp2p.host import LibraryHost, open_negotiated, stands
from transports.libp2p.ids import library_id
from transports.libp2p.muxed_stream import MuxedStream
from transports.libp2p.noise import NoiseTransport
from transports.libp2p.pubsub import Pubsub, peer_of
from transports.libp2p.stream import Libp2pStream
from transports.libp2p.swarm import Swarm
from transports.libp2p.tcp import Tcp
from transports.libp2p.tls import make_tls
from transports.libp2p.trim import trim
from transports.libp2p.upgrader import Upgrader
from transports.libp2p.version import require_checked_version
from transports.libp2p.websocket import WebSocket
from transports.peer_id import PeerId
from transports.ping import PING, Pinger, serve_ping
from transports.stream import Stream

logger = logging.getLogger(__name__)

Carrier = tuple[list[ITransport], Upgrader]
"""What connections are made of."""

IDENTIFY = "/ipfs/id/1.0.0"

MAX_KNOWN_PEERS = 4096
"""Peers whose addresses are kept for dialling; the oldest entry goes first."""

StreamHandler = Callable[[Stream], Awaitable[None]]


@dataclass(frozen=True)
class ConnectionInfo:
    """A connection as it is now. *since* is on Trio's clock, in seconds."""

    peer: PeerId
    remote_address: str
    inbound: bool
    path: Path
    since: float


@dataclass(frozen=True)
class HostStatistics:
    peers: int
    connections: int
    strangers: int
    """Connections whose peer is not admitted."""
    streams: int
    tasks: int
    """Trio tasks of the whole process."""
    refused: Mapping[str, int]
    """Connections and streams turned away, by reason."""
    gossip: GossipStatistics


@dataclass(frozen=True)
class _Handler:
    run: Callable[[Connection, MuxedStream], Awaitable[None]]
    public: bool


@dataclass(frozen=True)
class _Listener:
    on_connected: Callable[[PeerId], None]
    on_disconnected: Callable[[PeerId], None]
    on_released: Callable[[PeerId], None]


class Host:
    """A running host; made by :func:`open_host`.

    Connection events: listeners hear ``on_connected`` when a peer's first connection is usable and
    ``on_disconnected`` (or ``on_released``) when its last one has ended, exactly once each and in this order.
    Containment: an exception in a stream handler is logged and resets its stream, an exception in a listener is logged.
    """

    gossip: Gossip

    def __init__(self, config: HostConfig, peer_id: PeerId) -> None:
        self.config = config
        self.peer_id = peer_id
        self._swarm: Swarm
        self._nursery: trio.Nursery
        self._handlers: dict[str, _Handler] = {}
        self._admitted: set[PeerId] = set()
        self._known: dict[PeerId, tuple[str, ...]] = {}
        self._listeners: list[_Listener] = []
        self._pinger = Pinger(self.open_stream, lambda peer: bool(self._connections_to(peer)))
        self._dialling: dict[PeerId, trio.Event] = {}
        self._refused: Counter[str] = Counter()

    def __repr__(self) -> str:
        return f"<Host {self.peer_id.short} on {self.addresses}, {len(self._swarm.connections)} peers>"

    @property
    def addresses(self) -> tuple[str, ...]:
        """What others can dial: real ports, wildcards expanded to interface addresses, with our peer id."""
        found = []
        for requested, listener in self._swarm.listeners.items():
            for bound in listener.get_addrs():
                address = replace(parse(requested), port=parse(str(bound)).port)
                found += [str(replace(each, peer=self.peer_id)) for each in expand(address)]
        return tuple(dict.fromkeys(found))

    # Streams ------------------------------------------------------------------------------------------------------

    def handle(self, protocol: str, handler: StreamHandler, *, public: bool = False) -> None:
        """Serve *protocol*. Unless *public*, a stream from a peer that is not admitted is reset, unseen by *handler*.

        When the handler returns, our side of the stream is closed; when it raises, the stream is reset.
        """

        async def run(connection: Connection, stream: MuxedStream) -> None:
            await handler(Libp2pStream(connection.peer, stream))

        self._register(protocol, run, public)

    def _register(self, protocol: str, run: Callable[[Connection, MuxedStream], Awaitable[None]], public: bool) -> None:
        if protocol in self._handlers:
            raise ValueError(f"{protocol} has a handler already")
        self._handlers[protocol] = _Handler(run, public)

    def _register_library(self, protocol: str, handler: StreamHandlerFn) -> None:
        async def run(connection: Connection, stream: MuxedStream) -> None:
            net_stream = connection.net_stream(stream)
            net_stream.set_protocol(TProtocol(protocol))
            await handler(net_stream)

        self._register(protocol, run, public=protocol == IDENTIFY)

    async def serve_stream(self, connection: Connection, stream: MuxedStream) -> None:
        """Agree on a protocol and run its handler (called by the connection, which contains what this raises)."""

        def allowed(protocol: str) -> bool:
            return self._handlers[protocol].public or connection.peer in self._admitted

        try:
            with trio.fail_after(self.config.negotiation_timeout):
                protocol = await multistream.answer(stream, self._handlers, allowed)
        except multistream.NotAllowedError as error:
            self._refused["stream of a stranger"] += 1
            logger.info("%s is not admitted; its stream is reset: %s", connection.peer, error)
            await stream.reset()
            return
        except (multistream.NegotiationError, trio.TooSlowError):
            self._refused["stream without a protocol"] += 1
            await stream.reset()
            return
        stream.standing = stands(protocol)
        await self._handlers[protocol].run(connection, stream)

    async def open_stream(self, peer: PeerId, protocol: str, opening: bytes = b"") -> Stream:
        """A stream to *peer*, over the newest connection that works, else over a new one to a known address.

        *opening*: its first bytes, which leave with the proposal of the protocol and so save a round trip; they may
        reach the peer more than once, on several streams. Raises PeerUnreachable. A cancel leaves nothing behind.
        """
        reason = "the connection was lost meanwhile"
        for _ in range(2):
            if not self._connections_to(peer):
                await self.connect(peer, ())
            tried = self._connections_to(peer)
            for connection in reversed(tried):
                try:
                    muxed, _ = await open_negotiated(connection, [protocol], self.config.negotiation_timeout, opening)
                    return Libp2pStream(peer, muxed)
                except (StreamFailure, MuxedStreamError) as error:
                    reason = str(error)
            if not (tried and tried[-1].released):
                break
            await tried[-1].event_closed.wait()  # it was found idle while our proposal was under way: once more
        raise PeerUnreachable(f"no stream of {protocol} to {peer}: {reason}")

    async def ping(self, peer: PeerId) -> float:
        """Seconds to *peer* and back over an open connection. Raises PeerUnreachable; set a deadline around it."""
        return await self._pinger.ping(peer)

    # Connections --------------------------------------------------------------------------------------------------

    def _connections_to(self, peer: PeerId) -> list[Connection]:
        return cast("list[Connection]", self._swarm.connections.get(library_id(peer.raw), []))

    async def connect(self, peer: PeerId, addresses: Sequence[str], *, timeout_s: float | None = None) -> None:
        """Have a connection to *peer*: the one there is, or a new one to *addresses* or those known from before.

        *timeout_s* bounds the whole, in seconds; without it each address has the configured dial timeout. Raises
        PeerUnreachable with the reason for each address. Remembers no failure: back-off is the caller's.
        """
        if addresses:
            known = (*addresses, *self._known.pop(peer, ()))
            self._known[peer] = tuple(dict.fromkeys(known))[: self.config.max_dial_addresses]
            while len(self._known) > MAX_KNOWN_PEERS:
                del self._known[next(iter(self._known))]
        with trio.move_on_after(math.inf if timeout_s is None else timeout_s) as limit:
            await self._connect(peer)
        if limit.cancelled_caught:
            raise PeerUnreachable(f"cannot connect to {peer}: no connection within {timeout_s:g} s")

    async def _connect(self, peer: PeerId) -> None:
        while peer in self._dialling:  # somebody dials it already: one connection is enough
            await self._dialling[peer].wait()
        if not self._connections_to(peer):
            done = self._dialling[peer] = trio.Event()
            try:
                await self._swarm.dial(library_id(peer.raw), self._known.get(peer, ()))
            finally:
                del self._dialling[peer]
                done.set()

    def is_dialling(self, peer: PeerId) -> bool:
        """Whether this node is dialling *peer* now."""
        return peer in self._dialling

    def heard(self, peer: PeerId) -> float:
        """When the last bytes of *peer* came over a connection that is open now, in Trio time; -inf without one.

        Bytes are counted as they are decrypted, so only the peer itself can make them; what they say does not matter.
        """
        return max((connection.heard_at for connection in self._connections_to(peer)), default=-math.inf)

    async def disconnect(self, peer: PeerId) -> None:
        """Close the connections to *peer* that there are now."""
        await self._swarm.close_peer(library_id(peer.raw))

    def connections(self) -> Mapping[PeerId, ConnectionInfo]:
        """The connected peers, each with its newest connection."""
        return {
            conn.peer: ConnectionInfo(
                conn.peer, conn.remote_address, conn.inbound, classify(conn.remote_address), conn.opened_at
            )
            for conn in self._swarm.all_connections()
        }

    @property
    def degree(self) -> int:
        """How many peers are connected."""
        return len(self._swarm.connections)

    def is_connected(self, peer: PeerId) -> bool:
        """Whether there is a connection to *peer*."""
        return library_id(peer.raw) in self._swarm.connections

    def add_listener(
        self,
        on_connected: Callable[[PeerId], None],
        on_disconnected: Callable[[PeerId], None],
        on_released: Callable[[PeerId], None] | None = None,
    ) -> None:
        """Call these synchronously on a peer's first connection and after its last. They must not wait.

        *on_released* is called instead of *on_disconnected* where one side let go of an idle connection, having too
        many; that says nothing about either's health.
        """
        self._listeners.append(_Listener(on_connected, on_disconnected, on_released or on_disconnected))

    def first_connection(self, peer: PeerId) -> None:
        """Called by the swarm."""
        for listener in self._listeners:
            self._tell(listener.on_connected, peer)

    def last_connection_lost(self, peer: PeerId, *, released: bool) -> None:
        """Called by the swarm."""
        self._pinger.forget(peer)
        self.gossip.remove_peer(peer)
        if peer not in self._admitted and self._swarm.peerstore.has_peer(library_id(peer.raw)):
            self._swarm.peerstore.clear_peerdata(library_id(peer.raw))  # strangers must not fill our memory
        for listener in self._listeners:
            self._tell(listener.on_released if released else listener.on_disconnected, peer)

    def _tell(self, callback: Callable[[PeerId], None], peer: PeerId) -> None:
        try:
            callback(peer)
        except Exception:
            logger.exception("a connection listener failed for %s", peer)

    # Admission ----------------------------------------------------------------------------------------------------

    def admit(self, peer: PeerId) -> None:
        """Let *peer* use every protocol. Gossip with it starts by ``gossip.add_peer``."""
        self._admitted.add(peer)
        for connection in self._connections_to(peer):
            self._swarm.gate.remember_member(connection.remote_host)
            connection.trust(True)

    def expect_members(self, addresses: Iterable[str]) -> None:
        """Keep budgets for handshakes from the IP addresses in these multiaddrs, where members were seen before.

        So after a restart members get through a flood of strangers. Names and addresses not understood are skipped.
        """
        for text in addresses:
            try:
                address = parse(text)
            except AddressError:
                continue
            if not address.host_kind.startswith("dns"):
                self._swarm.gate.remember_member(address.host)

    def expel(self, peer: PeerId) -> None:
        """Take the admission back: gossip with *peer* stops now, its connections are closed in the background."""
        self._admitted.discard(peer)
        members = {conn.remote_host for conn in self._swarm.all_connections() if conn.peer in self._admitted}
        for host in {conn.remote_host for conn in self._connections_to(peer)} - members:
            self._swarm.gate.forget_member(host)
        self.gossip.remove_peer(peer)
        for connection in self._connections_to(peer):
            connection.trust(False)
        self._nursery.start_soon(self.disconnect, peer)

    def is_admitted(self, peer: PeerId) -> bool:
        return peer in self._admitted

    def statistics(self) -> HostStatistics:
        connections = self._swarm.all_connections()
        return HostStatistics(
            peers=len(self._swarm.connections),
            connections=len(connections),
            strangers=len(self._swarm.strangers()),
            streams=sum(len(conn.muxed_conn.streams) for conn in connections),
            tasks=trio.lowlevel.current_statistics().tasks_living,
            refused=dict(self._refused + self._swarm.refused),
            gossip=self.gossip.statistics(),
        )


class Network(Protocol):
    """What hosts can be reached over."""

    def listen_addresses(self, peer: PeerId, addresses: Sequence[str], /) -> tuple[str, ...]:
        """Where the host of *peer*, which is to listen at *addresses*, listens in this network."""

    def attached(self, peer: PeerId, config: HostConfig, keys: KeyPair) -> AbstractContextManager[Carrier]:
        """The host of *peer* is in this network for the length of the block. *config* says where it listens."""


@asynccontextmanager
async def open_host(config: HostConfig, key: bytes, network: Network | None = None) -> AsyncIterator[Host]:
    """Run a host with the identity of the 32-byte Ed25519 seed *key* for the length of the block.

    Raises ListenError when an address cannot be listened on, AddressError when one is not understood. On exit all
    connections are closed (what was written leaves first, within a second) and all tasks have ended. An exception of
    the block comes out as it is, not in a group. *network*: another than the machine's own; see transports/memory.
    """
    require_checked_version()
    _check_listen(config.listen)
    keys = create_new_key_pair(key)
    peer_id = PeerId.of(ID.from_pubkey(keys.public_key).to_bytes())
    carrier: AbstractContextManager[Carrier]
    if network is None:
        carrier = nullcontext(sockets(config, keys))
    else:
        config = replace(config, listen=network.listen_addresses(peer_id, config.listen))
        carrier = network.attached(peer_id, config, keys)
    with carrier as (transports, upgrader):
        async with _running(config, keys, peer_id, transports, upgrader) as host:
            yield host


def sockets(config: HostConfig, key_pair: KeyPair) -> Carrier:
    """The machine's own network, encrypted."""
    security = cast(
        TSecurityOptions,
        {  # never the library's default, which also offers plaintext and secio
            NOISE: NoiseTransport(key_pair, create_noise_key_pair().private_key),
            TLS: make_tls(key_pair),
        },
    )
    upgrader = Upgrader(security, config.handshake_timeout)
    websocket_config = WebsocketConfig(
        handshake_timeout=config.handshake_timeout, max_connections=config.max_connections
    )
    return [Tcp(), WebSocket(upgrader, config=websocket_config)], upgrader


@asynccontextmanager
async def _running(
    config: HostConfig, key_pair: KeyPair, peer_id: PeerId, transports: list[ITransport], upgrader: Upgrader
) -> AsyncIterator[Host]:
    peerstore = PeerStore()
    peerstore.add_key_pair(library_id(peer_id.raw), key_pair)
    host = Host(config, peer_id)
    host._swarm = swarm = Swarm(library_id(peer_id.raw), peerstore, upgrader, transports, config)
    swarm.policy = host
    library_host = LibraryHost(swarm, lambda: host.addresses, host._register_library, config.negotiation_timeout)
    for protocol, handler in list(library_host.multiselect.handlers.items()):
        if protocol != PING and protocol is not None and handler is not None:
            host._register_library(str(protocol), handler)
    library_host.multiselect.handlers = cast(Any, host._handlers)  # identify lists the keys; nothing calls the values
    host._register(PING, serve_ping, public=True)
    router = make_router()
    pubsub = Pubsub(library_host, router, config, lambda peer: peer_of(peer) in host._admitted)

    failure: Exception | None = None
    async with trio.open_nursery() as nursery:
        host._nursery = nursery
        host.gossip = Gossip(pubsub, nursery, config.gossip_max_message)
        swarm.begin(nursery)
        nursery.start_soon(router.heartbeat)
        nursery.start_soon(trim, swarm.members, config, host.gossip.is_grafted, nursery)
        try:
            await swarm.listen(*(Multiaddr(parse(text).transport) for text in config.listen))
            yield host
        except Exception as error:
            failure = error
        finally:
            with trio.move_on_after(2) as grace:
                grace.shield = True
                await swarm.end()
            nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure


def _check_listen(addresses: Sequence[str]) -> None:
    ports: dict[tuple[str, int], str] = {}
    for text in addresses:
        address = parse(text)
        if address.host_kind.startswith("dns"):
            raise ListenError(text, "a name cannot be listened on; use /ip4/0.0.0.0 or an address of this machine")
        other = ports.setdefault((address.host, address.port), text)
        if address.port and other != text:
            raise ListenError(text, f"{other} has the same port; give TCP and /ws different ones")
