"""Many units at once: none is lost, none of effects `once` runs twice, the slow are given out again. Virtual time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest
import trio

from atmosphere.capabilities.backend import Emit, ToolCall
from atmosphere.capabilities.card import Effects
from atmosphere.work.hedging import RATE
from atmosphere.work.parallel import RESULTS_WAITING
from atmosphere.work.units import Outcome, Unit, UnitResult
from protocols.call import CallError, Code
from tests.mesh.people import FOURTH, OTHER, THIRD
from tests.work.world import INTENT, Run, World, fails, takes, world


class Ledger:
    """Which idempotency keys took effect, and how often."""

    def __init__(self) -> None:
        self.keys: Counter[bytes] = Counter()

    def at(self, seconds: float) -> Run:
        async def run(call: ToolCall, emit: Emit) -> bytes:
            self.keys[call.idempotency_key] += 1
            await trio.sleep(seconds)
            return call.args

        return run


def units(count: int, **fields: object) -> list[Unit]:
    return [Unit(INTENT, b"%d" % number, b"key %d" % number, **fields) for number in range(count)]  # type: ignore[arg-type]


async def run_all(here: World, what: list[Unit], in_flight: int | None = None) -> list[UnitResult]:
    async with here.dispatcher.map(what, in_flight) as results:
        return [result async for result in results]


def dying(run: Run, at: float) -> Run:
    """Like *run* until the time *at*: then what runs is lost, and nobody can be reached any more."""

    async def dies(call: ToolCall, emit: Emit) -> bytes:
        if trio.current_time() - started >= at:
            raise CallError(Code.UNAVAILABLE, "cannot be reached", retryable=True)
        with trio.move_on_at(started + at):
            return await run(call, emit)
        raise CallError(Code.UNKNOWN_OUTCOME, "the connection was lost after the call was sent")

    started = trio.current_time()
    return dies


@pytest.mark.parametrize("effects", list(Effects))
async def test_one_dies_and_one_is_ten_times_slower(effects: Effects, autojump_clock: trio.abc.Clock) -> None:
    ledger = Ledger()
    runs = {OTHER: dying(ledger.at(0.2), 1.1), THIRD: ledger.at(2.0), FOURTH: ledger.at(0.2)}
    async with world(runs, effects) as here:
        began = trio.current_time()
        results = await run_all(here, units(200))
        took = trio.current_time() - began
        assert sorted(result.number for result in results) == list(range(200))
        unknown = [result for result in results if result.outcome is Outcome.UNKNOWN]
        assert all(result.ok for result in results if result not in unknown)
        assert all(result.result == b"%d" % result.number for result in results if result.ok)
        keys = [call.idempotency_key for _, call in here.mesh.calls]
        assert set(keys) == {b"key %d" % number for number in range(200)}
        if effects is Effects.ONCE:
            assert max(ledger.keys.values()) == 1  # never sent twice, not even where nobody knows
            assert 0 < len(unknown) <= 8  # what was under way at the node that died: two for each of its slots
            assert {result.peer for result in unknown} == {OTHER}
            assert not any(result.hedged for result in results)
        else:
            assert not unknown
            reissued = [result for result in results if result.hedged]
            assert reissued  # those that the slow node held
            assert max(ledger.keys.values()) <= 3
            # Two quick nodes, then one, four slots each: 200 units would take 8 to 10 s; a straggler at the end adds
            # its second try, not the slow node's 2 s.
            assert took < 11
        assert here.mesh.asked(OTHER) < 55  # the dead one was asked again by probes only
        assert here.failed  # and the detector was told
        assert here.dispatcher.statistics().under_way == 0


async def test_at_the_end_stragglers_are_given_out_again_whatever_the_budget(
    autojump_clock: trio.abc.Clock,
) -> None:
    stuck = False

    async def sticks(call: ToolCall, emit: Emit) -> bytes:
        await trio.sleep(600.0 if stuck else 0.1)
        return b""

    async with world({OTHER: sticks, THIRD: takes(0.1)}, Effects.IDEMPOTENT) as here:
        await run_all(here, units(40))
        stuck = True
        began = trio.current_time()
        results = await run_all(here, units(16))
        assert all(result.ok for result in results)
        assert sum(result.hedged for result in results) > 40 * RATE
        assert trio.current_time() - began < 2.0


async def test_results_come_as_units_end_and_everything_is_bounded(autojump_clock: trio.abc.Clock) -> None:
    most = 0
    running = 0

    async def run(call: ToolCall, emit: Emit) -> bytes:
        nonlocal most, running
        running += 1
        most = max(most, running)
        await trio.sleep(5.0 if call.args == b"0" else 0.1)
        running -= 1
        return b""

    read = 0

    def endless() -> Iterator[Unit]:
        nonlocal read
        while True:
            yield Unit(INTENT, b"%d" % read)
            read += 1

    async with world({OTHER: run}, Effects.ONCE) as here, here.dispatcher.map(endless(), 3) as results:
        first = [await anext(results) for _ in range(10)]
        assert 0 not in [result.number for result in first]
        await trio.sleep(100)  # nobody reads: nothing goes on
        assert read <= 10 + 3 + RESULTS_WAITING + 1
        assert most == 3
        assert here.dispatcher.running == 0


async def test_room_follows_the_slots_that_the_mesh_offers(autojump_clock: trio.abc.Clock) -> None:
    async with world({OTHER: takes(1.0), THIRD: takes(1.0)}, slots=10) as here:
        async with here.dispatcher.map(units(1000)) as results:
            await trio.sleep(0.5)
            assert here.dispatcher.running == 40
            here.router.peers = [OTHER]
            here.table.node(FOURTH, 0.0)  # any change
            for _ in range(60):
                await anext(results)
            await trio.sleep(0.5)
            assert here.dispatcher.running == 20
        assert here.router.decisions < 60  # one a second and one for each change, not one for each unit


async def test_leaving_a_map_cancels_all_its_calls_there_too(autojump_clock: trio.abc.Clock) -> None:
    began, cancelled = 0, 0

    async def endless(call: ToolCall, emit: Emit) -> bytes:
        nonlocal began, cancelled
        began += 1
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            cancelled += 1
            raise
        return b""

    async with world({OTHER: endless, THIRD: endless}) as here:
        with trio.move_on_after(1.0):
            await run_all(here, units(50))
        await trio.testing.wait_all_tasks_blocked()
        assert began == cancelled == 16
        assert (here.dispatcher.running, here.dispatcher.statistics().under_way) == (0, 0)


async def test_an_error_of_the_readers_own_reaches_him_as_it_is(autojump_clock: trio.abc.Clock) -> None:
    async with world({OTHER: takes(0.1)}) as here:
        with pytest.raises(ZeroDivisionError):  # noqa: PT012 - leaving the block is what is tested
            async with here.dispatcher.map(units(5)) as results:
                await anext(results)
                raise ZeroDivisionError

        def broken() -> Iterator[Unit]:
            yield Unit(INTENT, b"0")
            raise LookupError("of the units' own")

        async with here.dispatcher.map(broken()) as results:
            assert (await anext(results)).ok
            with pytest.raises(LookupError, match="own"):
                await anext(results)
        async with here.dispatcher.map([]) as results:
            assert [result async for result in results] == []


async def test_a_node_that_stops_says_so_instead_of_ending_early(autojump_clock: trio.abc.Clock) -> None:
    async with world({OTHER: takes(1.0)}) as here, here.dispatcher.map(units(20)) as results:
        await anext(results)
        here.mesh.nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True), pytest.raises(CallError, match="the node is stopping"):
            [result async for result in results]


async def test_units_come_back_to_the_busy_within_their_deadline(autojump_clock: trio.abc.Clock) -> None:
    free_at = trio.current_time() + 5.0

    async def busy(call: ToolCall, emit: Emit) -> bytes:
        if trio.current_time() < free_at:
            raise CallError(Code.OVERLOADED, "busy", retryable=True, retry_after_ms=400)
        return b"now"

    async with world({OTHER: busy, THIRD: busy}, Effects.ONCE) as here:
        results = await run_all(here, units(8))
        assert all(result.ok for result in results)
        assert len(here.mesh.calls) < 8 * 2 * 14  # at their pace, about 0.45 s
        result = await here.dispatcher.unit(Unit(INTENT, b"{}", deadline_s=1.0))
        assert result.ok
        free_at = trio.current_time() + 5.0
        began = trio.current_time()
        result = await here.dispatcher.unit(Unit(INTENT, b"{}", deadline_s=2.0))
        assert result.outcome is Outcome.FAILED  # it was refused, so it is known not to have run
        assert result.error is not None
        assert result.error.code is Code.OVERLOADED
        assert trio.current_time() - began <= 2.0


async def test_a_unit_waits_for_its_only_node_to_come_back(autojump_clock: trio.abc.Clock) -> None:
    back_at = trio.current_time() + 4.0

    async def away(call: ToolCall, emit: Emit) -> bytes:
        if trio.current_time() < back_at:
            raise CallError(Code.UNAVAILABLE, "away", retryable=True)
        return b"{}"

    async with world({OTHER: away}, Effects.ONCE) as here:
        result = await here.dispatcher.unit(Unit(INTENT, b"{}"))
        assert result.ok
        assert len(here.mesh.calls) <= 5  # at 0, about 1, 3 and 7 s: probes, no hammering
        assert result.node == OTHER.short


WHAT: dict[Code, tuple[Outcome, Outcome]] = {
    # of a last error: what is known of a unit with effects idempotent, and once
    Code.UNKNOWN_OUTCOME: (Outcome.FAILED, Outcome.UNKNOWN),
    Code.INTERNAL: (Outcome.FAILED, Outcome.UNKNOWN),
    Code.CANCELLED: (Outcome.FAILED, Outcome.UNKNOWN),
    Code.DEADLINE: (Outcome.FAILED, Outcome.UNKNOWN),
    Code.BACKEND: (Outcome.FAILED, Outcome.FAILED),
    Code.INVALID: (Outcome.FAILED, Outcome.FAILED),
    Code.FORBIDDEN: (Outcome.FAILED, Outcome.FAILED),
}


@pytest.mark.parametrize("code", list(WHAT))
async def test_unknown_is_said_of_once_only_and_only_where_it_is_so(
    code: Code, autojump_clock: trio.abc.Clock
) -> None:
    for effects, expected in zip((Effects.IDEMPOTENT, Effects.ONCE), WHAT[code], strict=True):
        async with world({OTHER: fails(code)}, effects) as here:
            result = await here.dispatcher.unit(Unit(INTENT, b"{}", deadline_s=5.0))
            assert result.outcome is expected
            assert result.error is not None
            assert result.error.code is code
            assert (result.peer, len(result.attempts)) == (OTHER, 1)


async def test_a_unit_once_whose_deadline_passes_while_it_runs_is_unknown(autojump_clock: trio.abc.Clock) -> None:
    async with world({OTHER: takes(60.0), THIRD: takes(60.0)}, Effects.ONCE) as here:
        result = await here.dispatcher.unit(Unit(INTENT, b"{}", deadline_s=3.0))
        assert result.outcome is Outcome.UNKNOWN
        assert result.seconds == pytest.approx(3.0)
        assert len(here.mesh.calls) == 1
        statistics = here.dispatcher.statistics()
        assert (statistics.ok, statistics.failed, statistics.unknown) == (0, 0, 1)


async def test_a_unit_once_that_could_not_be_sent_in_time_is_known_not_to_have_run(
    autojump_clock: trio.abc.Clock,
) -> None:
    async with world({OTHER: takes(0.1)}, Effects.ONCE) as here:

        async def dials(candidate: object, call: ToolCall) -> None:
            await trio.sleep_forever()

        here.mesh.start = dials  # type: ignore[assignment,method-assign]
        result = await here.dispatcher.unit(Unit(INTENT, b"{}", deadline_s=3.0))
        assert result.outcome is Outcome.FAILED
        assert result.error is not None
        assert result.error.code is Code.DEADLINE


async def test_nobody_can_ends_a_unit_at_once(autojump_clock: trio.abc.Clock) -> None:
    async with world({}) as here:
        result = await here.dispatcher.unit(Unit(INTENT, b"{}"))
        assert result.outcome is Outcome.FAILED
        assert result.seconds == 0
        assert "nobody does that" in str(result.error)
        assert result.peer is None


async def test_units_spread_by_what_their_nodes_get_done(autojump_clock: trio.abc.Clock) -> None:
    async with world({OTHER: takes(0.1), THIRD: takes(0.1), FOURTH: takes(1.0)}, Effects.ONCE) as here:
        await run_all(here, units(400))
        share = {peer: here.mesh.asked(peer) / 400 for peer in (OTHER, THIRD, FOURTH)}
        assert share[FOURTH] < 0.12  # it does a tenth of what another one does: 4.8 % of all
        assert abs(share[OTHER] - share[THIRD]) < 0.1
