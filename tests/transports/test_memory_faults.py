"""Kills, stalls, partings and NATs, as hosts see them."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from tests.transports.support import seed
from tests.transports.test_memory_host import LATENCY, LISTEN, ask, join, told, world
from transports.config import HostConfig
from transports.errors import PeerUnreachable
from transports.host import Host, open_host
from transports.memory import MemoryNetwork, Nat
from transports.memory.connection import HANDSHAKE_ROUND_TRIPS
from transports.memory.nat import lets_in


async def ping_in(a: Host, b: Host, seconds: float) -> float | None:
    with trio.move_on_after(seconds):
        return await a.ping(b.peer_id)
    return None


async def refusal(a: Host, b: Host, network: MemoryNetwork) -> tuple[bool, float]:
    """Whether a dial is refused, and how many seconds it took to fail."""
    started = trio.current_time()
    with pytest.raises(PeerUnreachable) as caught:
        await a.connect(b.peer_id, (network.address(b.peer_id),))
    return caught.value.refused, round(trio.current_time() - started, 2)


# Kills ------------------------------------------------------------------------------------------------------------


async def test_a_killed_process_is_noticed_by_all_within_the_latency(autojump_clock: MockClock) -> None:
    async with world(3) as (network, (a, b, c)):
        await join(a, b)
        await join(c, b)
        events = [told(host) for host in (a, b, c)]
        network.kill(b.peer_id, silent=False)
        await trio.sleep(LATENCY + 0.002)
        gone = [f"-{b.peer_id.short}"]
        assert (events[0], events[2], a.connections(), b.connections()) == (gone, gone, {}, {})
        assert await refusal(a, b, network) == (True, 2 * LATENCY)
        with pytest.raises(PeerUnreachable, match="killed"):
            await b.connect(a.peer_id, a.addresses)
        await trio.sleep(100)
        assert (events[0], events[2]) == (gone, gone)


async def test_a_machine_that_goes_dark_is_silent(autojump_clock: MockClock) -> None:
    async with world(2) as (network, (a, b)):
        await join(a, b)
        events = told(a)
        await a.ping(b.peer_id)
        heard = a.heard(b.peer_id)
        network.kill(b.peer_id, silent=True)
        assert await ping_in(a, b, 5) is None
        assert (a.heard(b.peer_id), events) == (heard, [])
        await trio.sleep(24)
        assert events == []
        await trio.sleep(1.1)
        assert events == [f"-{b.peer_id.short}"]  # 30 s after the first byte that nobody acknowledged
        assert await refusal(a, b, network) == (False, 10.0)


@pytest.mark.parametrize("silent", [True, False])
async def test_a_host_comes_back_after_a_kill(autojump_clock: MockClock, silent: bool) -> None:
    async with world(1) as (network, (a,)):
        config = HostConfig(listen=LISTEN)
        async with trio.open_nursery() as nursery:
            old = trio.Event()

            async def first_life() -> None:
                async with open_host(config, seed(2), network) as b:
                    b.admit(a.peer_id)
                    await join(a, b)
                    old.set()
                    await trio.sleep(1000)  # it does not know that it is dead

            nursery.start_soon(first_life)
            await old.wait()
            (peer,) = a.connections()
            events = told(a)
            network.kill(peer, silent)
            await trio.sleep(2)
            async with open_host(config, seed(2), network) as again:
                again.admit(a.peer_id)
                if silent:  # the new process knows nothing of the old connection, and says so when it is used
                    assert events == []
                    with pytest.raises(PeerUnreachable):
                        await a.ping(peer)
                await trio.testing.wait_all_tasks_blocked()  # what has ended is told
                assert events == [f"-{peer.short}"]
                await a.connect(peer, again.addresses)
                await a.ping(peer)
                nursery.cancel_scope.cancel()
                assert len(again.connections()) == 1


# Stalls -----------------------------------------------------------------------------------------------------------


async def test_a_stalled_process_answers_when_it_goes_on(autojump_clock: MockClock) -> None:
    async with world(3) as (network, (a, b, c)):
        await join(a, b)
        await a.ping(b.peer_id)
        events = told(a)
        network.stall(b.peer_id)
        assert await ping_in(a, b, 20) is None
        refused, seconds = await refusal(c, b, network)  # its kernel takes the connection, nobody shakes hands
        assert (refused, seconds) == (False, 10.0)
        network.heal()
        assert await ping_in(a, b, 1) is not None
        assert await ask(a, b) == b"hello"
        assert events == []


# Partings ---------------------------------------------------------------------------------------------------------


async def test_a_parted_connection_goes_on_after_a_short_cut(autojump_clock: MockClock) -> None:
    async with world(4) as (network, (a, b, c, d)):
        for dialler, listener in ((a, b), (c, d), (a, c)):
            await join(dialler, listener)
        events = told(a)
        network.part([(a.peer_id, b.peer_id)])
        assert await ping_in(a, b, 1) is not None
        assert await ping_in(c, d, 1) is not None  # those in no group are together
        assert await ping_in(a, c, 1) is None
        answers: list[bytes] = []

        async def ask_meanwhile() -> None:
            answers.append(await ask(a, c))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask_meanwhile)
            await trio.sleep(4)
            network.heal()
            assert answers == []
        assert answers == [b"hello"]
        assert trio.current_time() < 20
        assert events == []


async def test_a_long_cut_breaks_connections_on_both_sides(autojump_clock: MockClock) -> None:
    async with world(2) as (network, (a, b)):
        await join(a, b)
        events = told(a), told(b)
        network.part([[a.peer_id]])
        await ping_in(a, b, 1)
        await trio.sleep(29.5)
        assert (len(events[0]), len(events[1])) == (1, 0)
        await trio.sleep(15)
        assert (len(events[0]), len(events[1])) == (1, 1)
        network.heal()
        await join(a, b)
        assert await ping_in(b, a, 1) is not None


async def test_a_parting_may_break_connections_at_once(autojump_clock: MockClock) -> None:
    async with world(3) as (network, (a, b, c)):
        await join(a, b)
        await join(b, c)
        network.part([[a.peer_id]], reset_after=5)
        await trio.sleep(4.9)
        assert (len(a.connections()), len(b.connections())) == (1, 2)
        await trio.sleep(0.2)
        assert (len(a.connections()), list(b.connections())) == (0, [c.peer_id])


async def test_a_heal_in_time_spares_the_connection(autojump_clock: MockClock) -> None:
    async with world(2) as (network, (a, b)):
        await join(a, b)
        network.part([[a.peer_id]], reset_after=5)
        await trio.sleep(3)
        network.heal()
        await trio.sleep(1)
        network.part([[b.peer_id]])
        await trio.sleep(3)
        network.heal()
        await trio.sleep(60)
        assert len(a.connections()) == len(b.connections()) == 1


async def test_a_dial_into_a_parting_connects_when_it_is_healed(autojump_clock: MockClock) -> None:
    async with world(2) as (network, (a, b)):
        network.part([[a.peer_id]])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(join, a, b)
            await trio.sleep(2)
            network.heal()
        connected = (1 + HANDSHAKE_ROUND_TRIPS) * 2 * LATENCY
        assert trio.current_time() == pytest.approx(3 + connected, abs=0.01)  # SYN at 0, 1 and 3 s


async def test_a_cut_in_the_handshake_ends_it_in_time(autojump_clock: MockClock) -> None:
    async with world(2) as (network, (a, b)):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(refusal, a, b, network)
            await trio.sleep(3 * LATENCY)
            network.part([[a.peer_id]])
        assert trio.current_time() == pytest.approx(10, abs=0.01)
        await trio.sleep(60)
        assert network.statistics().connections == 0


# NATs -------------------------------------------------------------------------------------------------------------


def test_what_each_kind_of_nat_lets_in() -> None:
    assert [lets_in(kind, "a", ()) for kind in Nat] == [True, False, False, False]
    assert [lets_in(kind, "a", ("b",)) for kind in Nat] == [True, True, False, False]
    assert [lets_in(kind, "a", ("a",)) for kind in Nat] == [True, True, True, False]


@pytest.mark.parametrize(
    ("dialler", "listener", "connects"),
    [
        (Nat.NONE, Nat.NONE, True),
        (Nat.FULL_CONE, Nat.NONE, True),
        (Nat.RESTRICTED, Nat.NONE, True),
        (Nat.SYMMETRIC, Nat.NONE, True),
        (Nat.NONE, Nat.FULL_CONE, True),
        (Nat.NONE, Nat.RESTRICTED, False),
        (Nat.NONE, Nat.SYMMETRIC, False),
        (Nat.RESTRICTED, Nat.FULL_CONE, True),
        (Nat.SYMMETRIC, Nat.RESTRICTED, False),
        (Nat.SYMMETRIC, Nat.SYMMETRIC, False),
    ],
)
async def test_dials_between_kinds_of_nats(
    autojump_clock: MockClock, dialler: Nat, listener: Nat, connects: bool
) -> None:
    """The listener has a connection to a third, public host, as every node of a mesh has."""
    async with world(3) as (network, (a, b, public)):
        network.put_behind(a.peer_id, dialler)
        network.put_behind(b.peer_id, listener)
        await join(b, public)
        if connects:
            await join(a, b)
            assert await ask(b, a) == b"hello"
        else:
            assert await refusal(a, b, network) == (False, 10.0)


@pytest.mark.parametrize(("kind", "connects"), [(Nat.RESTRICTED, True), (Nat.SYMMETRIC, False)])
async def test_two_that_dial_each_other_meet_behind_restricted_nats(
    autojump_clock: MockClock, kind: Nat, connects: bool
) -> None:
    async with world(2) as (network, (a, b)):
        for host in (a, b):
            network.put_behind(host.peer_id, kind)
        async with trio.open_nursery() as nursery:
            for host, other in ((a, b), (b, a)):
                if connects:
                    nursery.start_soon(join, host, other)
                else:
                    nursery.start_soon(refusal, host, other, network)
        await trio.sleep(1)
        assert (len(a.connections()), len(b.connections())) == (int(connects), int(connects))


async def test_a_mapping_is_forgotten(autojump_clock: MockClock) -> None:
    async with world(3) as (network, (a, b, c)):
        network.put_behind(b.peer_id, Nat.RESTRICTED)
        await join(b, a)
        await b.disconnect(a.peer_id)
        await trio.sleep(100)
        await join(a, b)
        await a.disconnect(b.peer_id)
        await trio.sleep(21)
        assert await refusal(a, b, network) == (False, 10.0)
        assert await refusal(c, b, network) == (False, 10.0)
