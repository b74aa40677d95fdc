"""What links do to connections: lateness, order, width, loss, and writers that wait."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from tests.transports.test_memory_host import LATENCY, ask, join, world
from transports.addresses import classify
from transports.host import Host
from transports.libp2p.muxed_stream import OUTBOX_HIGH
from transports.memory import Link, latencies_between, open_network, same_everywhere
from transports.memory.network import fake_address
from transports.memory.pipe import Passage, Pipe, Uplink
from transports.memory.wire import Wire
from transports.peer_id import PeerId


def peer(number: int) -> PeerId:
    return PeerId.from_public_key(number.to_bytes(32, "big"))


class Recorder:
    """Both ends of a pipe."""

    def __init__(self) -> None:
        self.arrived: list[tuple[float, Any]] = []
        self.left = 0
        self.reasons: list[tuple[float, str]] = []

    def take(self, item: Any, size: int) -> None:
        self.arrived.append((round(trio.current_time(), 3), item))

    def has_left(self, size: int) -> None:
        self.left += size

    def broken(self, reason: str) -> None:
        self.reasons.append((round(trio.current_time(), 3), reason.split(":")[0]))


def pipe(nursery: trio.Nursery, link: Link, draw: Any = None) -> tuple[Pipe, Recorder]:
    wire, ends = Wire(), Recorder()
    nursery.start_soon(wire.run)
    return Pipe(wire, link, Uplink(), draw or random.Random(1).random, ends, ends), ends


# The model --------------------------------------------------------------------------------------------------------


def test_latencies_are_the_same_both_ways_and_for_every_order_of_asking() -> None:
    links, again, other = (latencies_between(0.02, 0.1, seed=number) for number in (1, 1, 2))
    peers = [peer(number) for number in range(40)]
    pairs = [(a, b) for a in peers for b in peers if a < b]
    found = {(a, b): links(a, b).latency_s for a, b in pairs}
    assert all(again(b, a).latency_s == latency for (a, b), latency in reversed(found.items()))
    assert sum(other(a, b).latency_s == found[a, b] for a, b in pairs) == 0
    assert 0.02 <= min(found.values()) < 0.025
    assert 0.095 < max(found.values()) < 0.1
    assert sum(found.values()) / len(found) == pytest.approx(0.06, abs=0.003)


@pytest.mark.parametrize(
    "wrong", [{"latency_s": -1}, {"jitter_s": -1}, {"loss": 1.0}, {"bytes_per_s": 0}, {"window": 0}]
)
def test_impossible_links_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="link"):
        Link(**wrong)  # type: ignore[arg-type]


def test_addresses_look_public_and_differ() -> None:
    found = [fake_address(number) for number in range(30_000)]
    assert len(set(found)) == len(found)
    assert {classify(f"/ip4/{host}/tcp/1") for host in found} == {"direct"}
    assert len({host.rsplit(".", 2)[0] for host in found[:20_000]}) == 20_000  # each in a /16 of its own


# A pipe -----------------------------------------------------------------------------------------------------------


async def test_width_puts_frames_behind_one_another(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        line, ends = pipe(nursery, Link(0.1, bytes_per_s=1000))
        for number in range(3):
            line.send(500, number)
        await trio.sleep(10)
        assert ends.arrived == [(0.6, 0), (1.1, 1), (1.6, 2)]
        line.send(500, 3)
        await trio.sleep(10)
        assert ends.arrived[-1] == (10.6, 3)
        nursery.cancel_scope.cancel()


async def test_jitter_never_changes_the_order(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        line, ends = pipe(nursery, Link(0.01, jitter_s=0.5))
        for number in range(200):
            line.send(10, number)
            await trio.sleep(0.01)
        await trio.sleep(1)
        assert [item for _, item in ends.arrived] == list(range(200))
        delays = [when - 0.01 * number for number, (when, _) in enumerate(ends.arrived)]
        assert min(delays) > 0.01
        assert max(delays) < 0.52
        assert max(delays) - min(delays) > 0.1
        nursery.cancel_scope.cancel()


async def test_loss_is_delay(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        line, ends = pipe(nursery, Link(0.05, loss=0.1))
        for number in range(1000):
            line.send(100, number)
            await trio.sleep(2)
        delays = [round(when - 2 * number, 2) for number, (when, _) in enumerate(ends.arrived)]
        assert len(delays) == 1000
        assert delays.count(0.05) == pytest.approx(900, abs=40)
        assert delays.count(0.35) == pytest.approx(90, abs=40)  # one retransmission: 0.2 s and a round trip
        assert delays.count(0.95) == pytest.approx(9, abs=8)  # two
        nursery.cancel_scope.cancel()


def test_a_large_frame_is_lost_more_often_than_a_small_one() -> None:
    link, draw = Link(0.05, loss=0.01), random.Random(1).random
    small, large = (sum(link.lost_for(size, draw) > 0 for _ in range(2000)) for size in (100, 70_000))
    assert small == pytest.approx(20, abs=15)
    assert large == pytest.approx(2000 * (1 - 0.99**50), abs=150)


async def test_no_more_than_a_window_is_under_way(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        line, ends = pipe(nursery, Link(0.1, window=1000))
        assert [line.send(400, number) for number in range(4)] == [True, True, False, False]
        assert line.in_flight == 800
        await trio.sleep(0.101)
        assert (ends.left, line.in_flight) == (800, 800)
        assert not line.send(5000, "larger than the window")
        await trio.sleep(1)
        assert [item for _, item in ends.arrived] == [0, 1, 2, 3, "larger than the window"]
        nursery.cancel_scope.cancel()


async def test_a_cut_pipe_goes_on_at_the_next_attempt_of_tcp(autojump_clock: MockClock) -> None:
    """With a round trip of 0.1 s attempts follow after 0.3, 0.6, 1.2, ... s, that is at 0.3, 0.9, 2.1, 4.5, 9.3 s."""
    async with trio.open_nursery() as nursery:
        line, ends = pipe(nursery, Link(0.05))
        line.send(10, "under way")
        line.set_passage(Passage.CUT)
        await trio.sleep(1)
        line.send(10, "sent meanwhile")
        await trio.sleep(4)
        line.set_passage(Passage.OPEN)
        line.send(10, "sent after")
        await trio.sleep(10)
        assert ends.arrived == [(9.35, "under way"), (9.35, "sent meanwhile"), (9.35, "sent after")]
        assert ends.reasons == []
        nursery.cancel_scope.cancel()


async def test_a_held_pipe_goes_on_at_once(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        line, ends = pipe(nursery, Link(0.05))
        line.set_passage(Passage.HELD)
        line.send(10, "held")
        await trio.sleep(100)
        line.set_passage(Passage.OPEN)
        await trio.sleep(1)
        assert ends.arrived == [(100.0, "held")]
        assert ends.reasons == []
        nursery.cancel_scope.cancel()


async def test_tcp_gives_up_after_thirty_seconds_with_data_and_later_without(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        busy, busy_ends = pipe(nursery, Link(0.05))
        idle, idle_ends = pipe(nursery, Link(0.05))
        for line in (busy, idle):
            line.set_passage(Passage.CUT)
        await trio.sleep(5)
        busy.send(10, "lost")
        await trio.sleep(100)
        assert busy_ends.reasons[0] == (35.0, "TimeoutError")
        assert idle_ends.reasons == [(45.0, "TimeoutError")]
        nursery.cancel_scope.cancel()


async def test_a_full_pipe_that_does_not_move_is_given_up(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        held, held_ends = pipe(nursery, Link(0.05, window=100))
        slow, slow_ends = pipe(nursery, Link(0.05, window=100, bytes_per_s=5))
        held.set_passage(Passage.HELD)
        for line in (held, slow):
            for number in range(6):
                line.send(100, number)
        await trio.sleep(29)
        assert held_ends.reasons == []
        await trio.sleep(200)
        assert held_ends.reasons == [(30.0, "the peer took no bytes for 30 s")]
        assert slow_ends.reasons == []  # a frame in 20 s
        assert len(slow_ends.arrived) == 6
        nursery.cancel_scope.cancel()


async def test_a_second_cut_counts_anew(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        line, ends = pipe(nursery, Link(0.05))
        for _ in range(3):
            line.set_passage(Passage.CUT)
            line.send(10, "late")
            await trio.sleep(29)
            line.set_passage(Passage.OPEN)
            await trio.sleep(60)
        assert len(ends.arrived) == 3
        assert ends.reasons == []
        nursery.cancel_scope.cancel()


async def test_the_last_word_comes_after_what_is_under_way_and_instead_of_what_waits(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        line, ends = pipe(nursery, Link(0.1, window=100))
        line.send(100, "under way")
        line.send(100, "waits")
        line.finish("end")
        await trio.sleep(1)
        assert [item for _, item in ends.arrived] == ["under way", "end"]
        nursery.cancel_scope.cancel()


Step = tuple[str, int]
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("send"), st.integers(1, 3000)),
        st.tuples(st.just("wait"), st.integers(1, 2000)),
        st.tuples(st.sampled_from([each.value for each in Passage]), st.just(0)),
    ),
    max_size=40,
)


@given(
    steps=STEPS,
    width=st.sampled_from([math.inf, 5000.0]),
    jitter=st.sampled_from([0.0, 0.3]),
    loss=st.sampled_from([0.0, 0.01, 0.5]),
)
@settings(max_examples=150, deadline=None)
def test_whatever_happens_nothing_is_lost_reordered_or_early(
    steps: list[Step], width: float, jitter: float, loss: float
) -> None:
    link = Link(0.05, jitter, width, loss, window=2000)

    async def run() -> None:
        async with trio.open_nursery() as nursery:
            line, ends = pipe(nursery, link)
            sent: list[float] = []
            for what, amount in steps:
                if what == "send":
                    line.send(amount, len(sent))
                    sent.append(trio.current_time())
                elif what == "wait":
                    await trio.sleep(amount / 1000)
                else:
                    line.set_passage(Passage(what))
                assert line.in_flight <= max(link.window, 3000)
            line.set_passage(Passage.OPEN)
            await trio.sleep(10_000)
            assert [item for _, item in ends.arrived] == list(range(len(sent)))
            assert all(when >= began + 0.049 for (when, _), began in zip(ends.arrived, sent, strict=True))
            assert line.in_flight == 0
            nursery.cancel_scope.cancel()

    trio.run(run, clock=MockClock(autojump_threshold=0))


# Hosts ------------------------------------------------------------------------------------------------------------


async def test_pings_over_a_bad_link(autojump_clock: MockClock) -> None:
    links = same_everywhere(Link(LATENCY, jitter_s=0.03, loss=0.05))
    async with world(2, links) as (_, (a, b)):
        await join(a, b)
        times = [await a.ping(b.peer_id) for _ in range(200)][1:]
        assert 2 * LATENCY <= min(times) < 2 * LATENCY + 0.02
        assert sum(time > 0.38 for time in times) == pytest.approx(20, abs=12)  # one way or the other lost it
        assert sorted(times)[100] == pytest.approx(2 * LATENCY + 0.03, abs=0.02)


async def test_bulk_is_as_fast_as_the_link(autojump_clock: MockClock) -> None:
    async with world(2, same_everywhere(Link(0.01, bytes_per_s=1_000_000))) as (_, (a, b)):
        await join(a, b)
        started = trio.current_time()
        assert await ask(a, b, bytes(250_000)) == bytes(250_000)
        assert trio.current_time() - started == pytest.approx(0.25, abs=0.15)


async def test_connections_share_the_uplink_of_their_host(autojump_clock: MockClock) -> None:
    async with world(3, same_everywhere(Link(0.01))) as (network, (a, b, c)):
        await join(a, b)
        await join(a, c)
        with pytest.raises(ValueError, match="uplink"):
            network.limit_uplink(a.peer_id, 0)
        network.limit_uplink(a.peer_id, 1_000_000)
        finished: list[float] = []

        async def upload(other: Host) -> None:
            assert await ask(a, other, bytes(250_000)) == bytes(250_000)
            finished.append(trio.current_time() - started)

        started = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(upload, b)
            nursery.start_soon(upload, c)
        assert max(finished) == pytest.approx(0.5, abs=0.1)
        await join(b, c)
        started = trio.current_time()
        await ask(b, c, bytes(250_000))
        assert trio.current_time() - started < 0.25  # theirs are as wide as before


async def test_writers_wait_when_nothing_arrives(autojump_clock: MockClock) -> None:
    """A window is under way, an outbox is full, and the writer stands; nothing is lost when the link is whole again."""
    window = 200_000
    async with world(2, same_everywhere(Link(0.01, window=window))) as (network, (a, b)):
        await join(a, b)
        stream = await a.open_stream(b.peer_id, "/echo")
        for _ in range(40):  # the first megabytes raise yamux's window to its full 16 MiB
            await stream.write(bytes(50_000))
            left = 50_000
            while left:
                left -= len(await stream.read(left))
        network.stall(b.peer_id)
        written = 0

        async def write() -> None:
            nonlocal written
            while written < 2_000_000:
                await stream.write(bytes(10_000))
                written += 10_000

        async with trio.open_nursery() as nursery:
            nursery.start_soon(write)
            await trio.sleep(20)
            assert window + OUTBOX_HIGH - 30_000 < written < window + OUTBOX_HIGH + 30_000
            assert network.statistics().in_flight <= window
            network.heal()
            left = 2_000_000
            while left:
                left -= len(await stream.read(left))
        assert written == 2_000_000


async def test_the_network_ends_with_the_error_of_its_block(autojump_clock: MockClock) -> None:
    with pytest.raises(LookupError):
        async with open_network(same_everywhere(Link()), random.Random(1).random):
            raise LookupError
