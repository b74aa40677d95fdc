"""Hosts for the tests of this room: ours, and the bare library's as it comes."""

from __future__ import annotations

import contextlib
import gc
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

import trio
from libp2p import new_host
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.crypto.x25519 import create_new_key_pair as create_noise_key_pair
from libp2p.custom_types import TProtocol
from libp2p.network.config import ConnectionConfig
from libp2p.peer.id import ID
from libp2p.pubsub.gossipsub import GossipSub
from libp2p.pubsub.pubsub import Pubsub
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE
from libp2p.security.noise.transport import Transport as LibraryNoise
from libp2p.tools.anyio_service import background_trio_service
from multiaddr import Multiaddr

from transports.addresses import split_peer
from transports.config import HostConfig
from transports.errors import PeerUnreachable
from transports.gossip import GossipMessage, Verdict
from transports.host import Host, open_host
from transports.peer_id import PeerId
from transports.stream import Stream, StreamClosed

Kind = Literal["ours", "bare"]
TOPIC = "test"
CONFIG = HostConfig(dial_timeout=3.0, handshake_timeout=3.0, negotiation_timeout=3.0)


def seed(number: int) -> bytes:
    return number.to_bytes(32, "big")


async def echo(stream: Stream) -> None:
    while data := await stream.read(65536):
        await stream.write(data)


async def eventually(condition: Callable[[], object], seconds: float = 5.0) -> None:
    """Wait until *condition* holds; fails after *seconds*. Real sockets give no better signal."""
    with trio.fail_after(seconds):
        while not condition():  # noqa: ASYNC110 - the state is another host's
            await trio.sleep(0.01)


@asynccontextmanager
async def hosts(count: int, config: HostConfig = CONFIG, *, admitted: bool = True) -> AsyncIterator[list[Host]]:
    """*count* hosts that have admitted each other, connected to nobody."""
    async with AsyncExitStack() as stack:
        opened = [await stack.enter_async_context(open_host(config, seed(number + 1))) for number in range(count)]
        for host in opened if admitted else []:
            for other in opened:
                host.admit(other.peer_id)
        yield opened


async def connect(dialler: Host, listener: Host) -> None:
    await dialler.connect(listener.peer_id, listener.addresses)
    await eventually(lambda: dialler.peer_id in listener.connections())


async def answers(client: Host, peer: PeerId, address: str) -> bool:
    """Whether a node still takes a connection and echoes."""
    try:
        with trio.fail_after(5):
            await client.connect(peer, (address,))
            stream = await client.open_stream(peer, "/echo")
            await stream.write(b"alive?")
            answer = await stream.read(100)
            await stream.reset()
            return answer == b"alive?"
    except (PeerUnreachable, StreamClosed, trio.TooSlowError):
        return False


@dataclass
class Victim:
    """A node under attack: an echo, a topic, and what was received on it."""

    peer_id: PeerId
    address: str
    handle: Callable[[str, Callable[[Any], Awaitable[None]]], None]
    publish: Callable[[bytes], Awaitable[None]]
    received: list[bytes]
    start_gossip: Callable[[PeerId], Awaitable[None]]


@asynccontextmanager
async def victim(
    kind: Kind, client: Host, judge: Callable[[bytes], bool] = lambda data: True, max_connections: int = 50
) -> AsyncIterator[Victim]:
    opened = _ours if kind == "ours" else _bare
    async with opened(client, judge, max_connections) as node:
        yield node


@asynccontextmanager
async def _ours(client: Host, judge: Callable[[bytes], bool], max_connections: int) -> AsyncIterator[Victim]:
    async with open_host(replace(CONFIG, max_connections=max_connections), seed(1000)) as host:
        host.admit(client.peer_id)
        host.handle("/echo", echo)
        received: list[bytes] = []

        def receive(message: GossipMessage) -> Verdict:
            accepted = judge(message.data)
            received.append(message.data)
            return Verdict.ACCEPT if accepted else Verdict.REJECT

        await host.gossip.subscribe(TOPIC, receive)
        peer, address = split_peer(host.addresses[0])

        async def publish(data: bytes) -> None:
            await host.gossip.publish(TOPIC, data)

        yield Victim(peer, address, host.handle, publish, received, host.gossip.add_peer)


@asynccontextmanager
async def _bare(client: Host, judge: Callable[[bytes], bool], max_connections: int) -> AsyncIterator[Victim]:
    """The library as it comes (Noise alone, so that both sides agree), with a heartbeat that fits a test."""
    key_pair = create_new_key_pair(seed(1000))
    host = new_host(
        key_pair=key_pair,
        sec_opt={NOISE: LibraryNoise(key_pair, create_noise_key_pair().private_key)},
        connection_config=ConnectionConfig(
            max_connections=max_connections, high_watermark=max_connections, min_connections=0, low_watermark=0
        ),
    )
    router = GossipSub([TProtocol("/meshsub/1.1.0")], 6, 4, 12, heartbeat_interval=1)
    pubsub = Pubsub(host, router)
    received: list[bytes] = []

    async def bare_echo(stream: Any) -> None:
        with contextlib.suppress(Exception):
            while True:
                await stream.write(await stream.read(65536))

    def handle(protocol: str, handler: Callable[[Any], Awaitable[None]]) -> None:
        host.set_stream_handler(TProtocol(protocol), handler)

    def validate(forwarder: ID, message: Any) -> bool:
        accepted = judge(message.data)
        received.append(message.data)
        return accepted

    async def publish(data: bytes) -> None:
        await pubsub.publish(TOPIC, data)

    async def by_itself(peer: PeerId) -> None:
        """The library starts gossip with every connection."""

    handle("/echo", bare_echo)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            async with (
                host.run([Multiaddr("/ip4/127.0.0.1/tcp/0")]),
                background_trio_service(router),
                background_trio_service(pubsub),
            ):
                await pubsub.wait_until_ready()
                pubsub.set_topic_validator(TOPIC, validate, False)
                await pubsub.subscribe(TOPIC)
                peer, address = split_peer(str(host.get_addrs()[0]))
                yield Victim(peer, address, handle, publish, received, by_itself)
        finally:
            pubsub.seen_messages.stop()
            gc.collect()


async def survives(
    kind: Kind, attack: Callable[[Host, Victim], Awaitable[None]], judge: Callable[[bytes], bool] = lambda data: True
) -> bool:
    """Whether a node still answers after *attack*. The bare library ends in an exception group here, and a real
    process with it."""
    async with open_host(CONFIG, seed(7)) as client:
        try:
            async with victim(kind, client, judge) as node:
                client.admit(node.peer_id)
                await client.connect(node.peer_id, (node.address,))
                await attack(client, node)
                return await answers(client, node.peer_id, node.address)
        except* Exception:
            pass
    return False
