"""Who has asked nobody yet goes by what the nodes state of their pace, and by what it finds as soon as it has asked."""

from __future__ import annotations

from dataclasses import replace

import pytest
import trio

from atmosphere.capabilities.backend import ToolCall
from atmosphere.capabilities.card import Effects
from atmosphere.capabilities.offer import Offer, OfferEntry
from atmosphere.routing.decision import Candidate
from atmosphere.work.attempts import LOOK_S
from atmosphere.work.hedging import ENOUGH, FIRST, LEAST_NEW_S, SLOW_FACTOR
from atmosphere.work.local import LocalWork
from atmosphere.work.units import Unit, UnitResult
from protocols.call import Code
from tests.mesh.people import FOURTH, OTHER, THIRD
from tests.work.world import CARD_ID, INTENT, World, fails, takes, world
from transports.peer_id import PeerId

SLOTS = 4


def state(here: World, sequence: int = 1, **paces_ms: int) -> None:
    """OTHER, THIRD and FOURTH state what a call takes there."""
    for name, pace_ms in paces_ms.items():
        peer = {"other": OTHER, "third": THIRD, "fourth": FOURTH}[name]
        entry = OfferEntry(CARD_ID, SLOTS, pace_ms=pace_ms)
        here.table.offered(peer, Offer(peer, 1, sequence, peer.short, (entry,), 0.0))


async def timed(here: World) -> tuple[PeerId, float]:
    """Who answers a call, and after how long."""
    began = trio.current_time()
    async with here.dispatcher.run(INTENT, b"{}") as execution:
        await execution.result()
        return execution.candidate.peer, trio.current_time() - began


async def unit(here: World) -> UnitResult:
    return await here.dispatcher.unit(Unit(INTENT, b"{}"))


async def test_the_first_slow_call_is_hedged_by_what_the_nodes_state(autojump_clock: trio.abc.Clock) -> None:
    async with world({OTHER: takes(60.0), THIRD: takes(2.0), FOURTH: takes(2.0)}) as here:
        state(here, third=1900, fourth=2100)
        assert await timed(here) == (THIRD, pytest.approx(SLOW_FACTOR * 1.9 + 2.0))


async def test_the_second_is_one_that_is_known(autojump_clock: trio.abc.Clock) -> None:
    async with world({OTHER: takes(60.0), THIRD: takes(60.0), FOURTH: takes(2.0)}) as here:
        state(here, fourth=2000)
        assert await timed(here) == (FOURTH, pytest.approx(SLOW_FACTOR * 2.0 + 2.0))
        assert here.mesh.asked(THIRD) == 0


@pytest.mark.parametrize("effects", [Effects.IDEMPOTENT, Effects.ONCE])
async def test_what_has_effects_is_not(effects: Effects, autojump_clock: trio.abc.Clock) -> None:
    async with world({OTHER: takes(60.0), THIRD: takes(2.0)}, effects) as here:
        state(here, third=2000)
        assert await timed(here) == (OTHER, pytest.approx(60.0))


async def test_only_so_many_are(autojump_clock: trio.abc.Clock) -> None:
    async with world({OTHER: takes(60.0), THIRD: takes(2.0)}) as here:
        state(here, third=2000)
        answered = [(await timed(here))[0] for _ in range(4)]
        assert answered.count(THIRD) == FIRST == here.dispatcher.statistics().hedges


async def test_what_nobody_knew_when_the_call_began_counts_when_it_is_told(autojump_clock: trio.abc.Clock) -> None:
    async with world({OTHER: takes(60.0), THIRD: takes(2.0)}) as here:
        here.mesh.nursery.start_soon(told_later, here)
        peer, seconds = await timed(here)
        assert peer == THIRD
        assert 20.0 + 2.0 <= seconds <= 20.0 + LOOK_S + 2.0


async def told_later(here: World) -> None:
    await trio.sleep(20.0)
    state(here, third=2000)


async def test_old_nodes_state_nothing_and_nothing_is_hedged(autojump_clock: trio.abc.Clock) -> None:
    async with world({OTHER: takes(60.0), THIRD: takes(2.0)}) as here:
        assert await timed(here) == (OTHER, pytest.approx(60.0))


async def test_a_node_that_is_being_dialled_is_left_alone_until_there_is_somebody_else(
    autojump_clock: trio.abc.Clock,
) -> None:
    """Calls of this tool take 10 ms, and the way to this node 2 s: to begin anew every few ms would never end."""
    dials = 0

    async with world({OTHER: takes(0.01), THIRD: takes(0.01)}) as here:
        for _ in range(ENOUGH + 5):
            await timed(here)
        while here.dispatcher._attempts.budget.take():
            pass
        start = here.mesh.start

        async def dial(candidate: Candidate, call: ToolCall) -> LocalWork:
            nonlocal dials
            dials += 1
            await trio.sleep(2.0)
            return await start(candidate, call)

        here.mesh.start = dial  # type: ignore[method-assign]
        assert await timed(here) == (OTHER, pytest.approx(2.01))
        assert dials == 1


async def test_units_go_where_they_are_done_soonest(autojump_clock: trio.abc.Clock) -> None:
    """The best score is not stated to be fast."""
    runs = {OTHER: takes(20.0), THIRD: takes(2.0), FOURTH: takes(2.0)}
    async with world(runs, Effects.ONCE) as here:  # hedging could not help
        state(here, other=20_000, third=2000, fourth=2000)
        assert all([(await unit(here)).peer in (THIRD, FOURTH) for _ in range(10)])
        assert here.mesh.asked(OTHER) == 0


async def test_who_states_nothing_is_taken_for_an_ordinary_one(autojump_clock: trio.abc.Clock) -> None:
    async with world({OTHER: takes(2.0), THIRD: takes(2.0), FOURTH: takes(20.0)}, Effects.ONCE) as here:
        state(here, third=2000, fourth=20_000)
        asked = [(await unit(here)).peer for _ in range(20)]
        assert set(asked) == {OTHER, THIRD}


async def test_a_liar_gains_the_first_call(autojump_clock: trio.abc.Clock) -> None:
    async with world({OTHER: takes(20.0), THIRD: takes(2.0)}, Effects.ONCE) as here:
        state(here, other=100, third=2000)
        assert [(await unit(here)).peer for _ in range(5)] == [OTHER, THIRD, THIRD, THIRD, THIRD]


async def test_a_liar_that_never_answers_is_known_by_the_answer_of_another(autojump_clock: trio.abc.Clock) -> None:
    async with world({OTHER: takes(1e6), THIRD: takes(2.0)}) as here:
        state(here, other=100, third=2000)
        assert (await unit(here)).peer == THIRD
        assert [(await unit(here)).hedged for _ in range(5)] == [False] * 5
        assert here.router.outcomes.seconds(OTHER, CARD_ID) > LEAST_NEW_S


async def test_who_was_asked_second_and_called_off_at_once_keeps_what_it_states(autojump_clock: trio.abc.Clock) -> None:
    async with world({OTHER: takes(7.0), THIRD: takes(60.0)}) as here:
        state(here, other=2000, third=3000)
        assert (await timed(here))[0] == OTHER, "one second after the other one was asked"
        assert here.mesh.asked(THIRD) == 1
        assert here.router.outcomes.seconds(THIRD, CARD_ID) == 0


async def test_a_pace_is_no_reason_to_ask_again_who_has_failed(autojump_clock: trio.abc.Clock) -> None:
    async with world({OTHER: fails(Code.UNAVAILABLE, True), THIRD: takes(0.01)}) as here:
        await timed(here)
        state(here, other=5000)
        await timed(here)
        assert here.mesh.asked(OTHER) == 1
        state(here, sequence=2, other=5000)
        await timed(here)
        assert here.mesh.asked(OTHER) == 2, "but anything else that it says is"


def test_the_log_of_changes_tells_paces_from_what_is_offered() -> None:
    from atmosphere.mesh.table import GradientTable

    table = GradientTable(THIRD)
    offer = Offer(OTHER, 1, 1, "", (OfferEntry(CARD_ID),), 0.0)
    table.node(OTHER, 0.0)
    table.offered(OTHER, offer)
    table.offered(OTHER, replace(offer, entries=(OfferEntry(CARD_ID, pace_ms=900),), issued_at=1.0))
    table.offered(OTHER, replace(offer, sequence=2, issued_at=2.0))
    assert [change.what for change in table.changes] == ["known", "offer", "paces", "offer"]
    assert (table.pace_s(OTHER, CARD_ID), table.pace_s(OTHER, bytes(1)), table.pace_s(FOURTH, CARD_ID)) == (0, 0, 0)
