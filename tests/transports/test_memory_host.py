"""Two production hosts over the memory network, in virtual time."""

from __future__ import annotations

import gc
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
import trio
from trio.testing import MockClock

from tests.transports.support import echo, seed
from transports.config import HostConfig
from transports.errors import ListenError, PeerUnreachable
from transports.gossip import GossipMessage, Verdict
from transports.host import Host, open_host
from transports.memory import Link, LinkModel, MemoryNetwork, open_network, same_everywhere
from transports.memory.connection import End
from transports.memory.pipe import Pipe
from transports.stream import StreamClosed

LATENCY = 0.05
LISTEN = ("/ip4/0.0.0.0/tcp/4001",)


@asynccontextmanager
async def world(
    count: int, links: LinkModel | None = None, config: HostConfig | None = None
) -> AsyncIterator[tuple[MemoryNetwork, list[Host]]]:
    """A network and *count* hosts that have admitted each other, connected to nobody, each with an echo."""
    config = config or HostConfig(listen=LISTEN)
    async with AsyncExitStack() as stack:
        links = links or same_everywhere(Link(LATENCY))
        network = await stack.enter_async_context(open_network(links, random.Random(1).random))
        hosts = [await stack.enter_async_context(open_host(config, seed(n + 1), network)) for n in range(count)]
        for host in hosts:
            host.handle("/echo", echo)
            for other in hosts:
                host.admit(other.peer_id)
        yield network, hosts


async def join(dialler: Host, listener: Host) -> None:
    await dialler.connect(listener.peer_id, listener.addresses)


async def ask(host: Host, other: Host, data: bytes = b"hello") -> bytes:
    stream = await host.open_stream(other.peer_id, "/echo")
    await stream.write(data)
    await stream.close()
    answer = b""
    while received := await stream.read(65536):
        answer += received
    return answer


def told(host: Host) -> list[str]:
    """What a listener of *host* hears, as it comes."""
    events: list[str] = []
    host.add_listener(lambda peer: events.append(f"+{peer.short}"), lambda peer: events.append(f"-{peer.short}"))
    return events


async def test_hosts_connect_in_the_time_that_the_real_handshake_takes(autojump_clock: MockClock) -> None:
    async with world(2) as (network, (a, b)):
        assert a.addresses == (network.address(a.peer_id),)
        assert a.addresses[0].startswith("/ip4/20.0.1.1/tcp/4001/p2p/")
        started = trio.current_time()
        await join(a, b)
        assert trio.current_time() - started == pytest.approx(4 * 2 * LATENCY, abs=0.01)  # TCP's own and 3
        (there,) = a.connections().values()
        (here,) = b.connections().values()
        assert (there.peer, there.inbound, there.remote_address, there.path) == (
            b.peer_id,
            False,
            "/ip4/21.0.1.1/tcp/4001",
            "direct",
        )
        assert (here.peer, here.inbound, here.remote_address) == (a.peer_id, True, "/ip4/20.0.1.1/tcp/32769")


async def test_what_a_stream_opens_with_leaves_with_its_proposal(autojump_clock: MockClock) -> None:
    async with world(2) as (_, (a, b)):
        await join(a, b)
        started = trio.current_time()
        stream = await a.open_stream(b.peer_id, "/echo", b"hello")
        assert await stream.read(5) == b"hello"
        assert trio.current_time() - started == pytest.approx(2 * LATENCY, abs=0.01)
        with pytest.raises(PeerUnreachable):
            await a.open_stream(b.peer_id, "/unknown", b"hello")
        assert await ask(a, b) == b"hello"  # the connection is none the worse for it


async def test_the_listener_may_speak_first(autojump_clock: MockClock) -> None:
    """Its first frames come with the end of the handshake, before the dialler has looked up."""
    async with world(2) as (_, (a, b)), trio.open_nursery() as nursery:
        answers: list[bytes] = []

        async def speak() -> None:
            answers.append(await ask(b, a))

        b.add_listener(lambda peer: nursery.start_soon(speak), lambda peer: None)
        await join(a, b)
        await trio.sleep(1)
        assert answers == [b"hello"]


async def test_a_ping_takes_a_round_trip_and_is_heard(autojump_clock: MockClock) -> None:
    async with world(2) as (_, (a, b)):
        await join(a, b)
        await a.ping(b.peer_id)
        assert await a.ping(b.peer_id) == pytest.approx(2 * LATENCY, abs=0.003)
        await trio.sleep(5)
        assert trio.current_time() - a.heard(b.peer_id) == pytest.approx(5, abs=0.01)


async def test_streams_carry_more_than_their_windows(autojump_clock: MockClock) -> None:
    async with world(2) as (_, (a, b)):
        await join(a, b)
        data = random.Random(1).randbytes(3_000_000)
        stream = await a.open_stream(b.peer_id, "/echo")
        answer = bytearray()

        async def read() -> None:
            while received := await stream.read(65536):
                answer.extend(received)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            await stream.write(data)
            await stream.close()
        assert bytes(answer) == data


async def test_gossip_starts_with_admission_and_crosses_a_middle_node(autojump_clock: MockClock) -> None:
    async with world(3) as (_, (a, b, c)):
        heard: list[tuple[str, bytes]] = []

        def receiver(host: Host):  # type: ignore[no-untyped-def]
            def receive(message: GossipMessage) -> Verdict:
                heard.append((host.peer_id.short, message.data))
                return Verdict.ACCEPT

            return receive

        for host in (a, b, c):
            await host.gossip.subscribe("t", receiver(host))
        await join(a, b)
        await join(b, c)
        await a.gossip.publish("t", b"too early")
        await trio.sleep(3)
        assert heard == []
        for host, peers in ((a, [b]), (b, [a, c]), (c, [b])):
            for peer in peers:
                await host.gossip.add_peer(peer.peer_id)
        await trio.sleep(3)
        await a.gossip.publish("t", b"news")
        await trio.sleep(1)
        assert [(who, data) for who, data in heard if data == b"news"] == [
            (b.peer_id.short, b"news"),
            (c.peer_id.short, b"news"),
        ]


async def test_a_close_is_told_to_the_other_side(autojump_clock: MockClock) -> None:
    async with world(2) as (_, (a, b)):
        await join(a, b)
        events = told(b)
        assert await ask(a, b) == b"hello"
        await a.disconnect(b.peer_id)
        assert (a.connections(), events) == ({}, [])
        await trio.sleep(LATENCY + 0.01)
        assert (b.connections(), events) == ({}, [f"-{a.peer_id.short}"])


async def test_a_stranger_uses_nothing_that_is_not_public(autojump_clock: MockClock) -> None:
    async with world(2) as (_, (a, b)):
        b.expel(a.peer_id)
        await trio.sleep(1)
        await join(a, b)
        await a.ping(b.peer_id)
        with pytest.raises((PeerUnreachable, StreamClosed)):
            await ask(a, b)
        await trio.sleep(60)
        assert b.connections() == {}
        assert b.statistics().refused["not admitted in time"] == 1


async def test_a_wrong_peer_id_is_noticed(autojump_clock: MockClock) -> None:
    async with world(3) as (_, (a, b, c)):
        address = b.addresses[0].split("/p2p/")[0]
        with pytest.raises(PeerUnreachable, match="mismatch") as caught:
            await a.connect(c.peer_id, (address,))
        assert not caught.value.refused
        await trio.sleep(1)
        assert a.connections() == b.connections() == {}


async def test_a_dial_is_refused_where_nobody_listens_and_silent_where_nobody_is(autojump_clock: MockClock) -> None:
    async with world(2) as (network, (a, b)):
        with pytest.raises(PeerUnreachable) as caught:
            await a.connect(b.peer_id, (network.address(b.peer_id, 4002),))
        assert caught.value.refused
        started = trio.current_time()
        with pytest.raises(PeerUnreachable) as caught:
            await a.connect(b.peer_id, ("/ip4/99.9.9.9/tcp/4001",))
        assert not caught.value.refused
        assert trio.current_time() - started == pytest.approx(10, abs=0.01)


async def test_a_host_is_opened_again_at_its_address_but_not_twice(autojump_clock: MockClock) -> None:
    async with world(1) as (network, (a,)):
        async with open_host(HostConfig(listen=LISTEN), seed(2), network) as b:
            first = b.addresses
            await join(a, b)
            with pytest.raises(ValueError, match="runs already"):
                async with open_host(HostConfig(listen=LISTEN), seed(2), network):
                    pass
        await trio.sleep(1)
        assert a.connections() == {}
        with pytest.raises(PeerUnreachable) as caught:
            await a.connect(b.peer_id, first)
        assert caught.value.refused
        async with open_host(HostConfig(listen=("/ip4/127.0.0.1/tcp/0",)), seed(2), network) as again:
            assert again.addresses == first
            again.admit(a.peer_id)
            await join(a, again)


async def test_a_foreign_address_cannot_be_listened_on(autojump_clock: MockClock) -> None:
    async with world(1) as (network, _):
        with pytest.raises(ListenError, match=r"use /ip4/0\.0\.0\.0"):
            async with open_host(HostConfig(listen=("/ip4/1.2.3.4/tcp/1",)), seed(2), network):
                pass


async def test_statistics_count_each_frame_once_at_both_ends(autojump_clock: MockClock) -> None:
    async with world(2) as (network, (a, b)):
        await join(a, b)
        await ask(a, b)
        await trio.sleep(1)
        numbers = network.statistics()
        one, two = numbers.peers.values()
        assert (one.sent_bytes, one.sent_frames) == (two.received_bytes, two.received_frames)
        assert (two.sent_bytes, two.sent_frames) == (one.received_bytes, one.received_frames)
        assert (numbers.connections, numbers.in_flight, numbers.dials) == (1, 0, 1)


async def test_connections_that_have_ended_leave_nothing(autojump_clock: MockClock) -> None:
    async with world(2) as (network, (a, b)):
        tasks = trio.lowlevel.current_statistics().tasks_living
        for _ in range(60):
            await join(a, b)
            await ask(b, a)
            await a.disconnect(b.peer_id)
            await trio.sleep(30)
        assert trio.lowlevel.current_statistics().tasks_living == tasks
        assert network.statistics().connections == 0
        gc.collect()
        left = [thing for thing in gc.get_objects() if isinstance(thing, End | Pipe)]
        assert len(left) <= 4  # the last connection, which the library may still hold
