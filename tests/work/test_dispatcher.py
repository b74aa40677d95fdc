"""Dispatch: which failures go to the next candidate, and what reaches the caller. Under virtual time."""

from __future__ import annotations

from dataclasses import replace

import pytest
import trio

from atmosphere.capabilities.backend import Emit, ToolCall
from atmosphere.capabilities.card import Effects
from atmosphere.mesh.table import State
from atmosphere.work.effects import may_try_next
from atmosphere.work.units import Unit
from protocols.call import CallError, Code
from tests.mesh.people import ME, OTHER, THIRD
from tests.work.world import INTENT, fails, takes, world


async def answers(call: ToolCall, emit: Emit) -> bytes:
    await emit(b"piece")
    return b"result"


async def breaks_midway(call: ToolCall, emit: Emit) -> bytes:
    await emit(b"piece")
    raise CallError(Code.BACKEND, "the stream broke")


async def test_pieces_and_result_reach_the_caller(autojump_clock: trio.abc.Clock) -> None:
    for peer in (ME, OTHER):
        async with world({peer: answers}) as here, here.dispatcher.run(INTENT, b"{}") as execution:
            assert [piece async for piece in execution.pieces()] == [b"piece"]
            assert await execution.result() == b"result"
            assert execution.candidate.peer == peer


NEXT = {
    # code: (effects none, idempotent, once)
    Code.UNAVAILABLE: (True, True, True),
    Code.OVERLOADED: (True, True, True),
    Code.RATE_LIMITED: (True, True, True),
    Code.NOT_FOUND: (True, True, True),
    Code.FORBIDDEN: (True, True, True),
    Code.UNKNOWN_OUTCOME: (True, True, False),
    Code.INTERNAL: (True, True, False),
    Code.CANCELLED: (True, True, False),
    Code.BACKEND: (False, False, False),
    Code.INVALID: (False, False, False),
    Code.TOO_LARGE: (False, False, False),
    Code.DEADLINE: (False, False, False),
}


@pytest.mark.parametrize("code", list(Code))
async def test_the_next_candidate_only_where_that_is_safe(code: Code, autojump_clock: trio.abc.Clock) -> None:
    for effects, expected in zip((Effects.NONE, Effects.IDEMPOTENT, Effects.ONCE), NEXT[code], strict=True):
        assert may_try_next(effects, CallError(code, "")) is expected
        async with world({OTHER: fails(code), THIRD: answers}, effects) as here:
            if expected:
                async with here.dispatcher.run(INTENT, b"{}") as execution:
                    assert execution.candidate.peer == THIRD
                    assert [attempt.candidate.peer for attempt in execution.attempts] == [OTHER]
                keys = {call.idempotency_key for _, call in here.mesh.calls}
                assert len(keys) == 1  # the same work keeps its key wherever it is tried
            else:
                with pytest.raises(CallError) as raised:
                    async with here.dispatcher.run(INTENT, b"{}"):
                        pass
                assert raised.value.code is code
                assert len(here.mesh.calls) == 1


def test_a_backend_that_says_it_may_be_tried_elsewhere_is() -> None:
    assert may_try_next(Effects.NONE, CallError(Code.BACKEND, "502", retryable=True))
    assert not may_try_next(Effects.ONCE, CallError(Code.BACKEND, "502", retryable=True))


async def test_after_the_first_piece_a_failure_is_the_callers_to_see(autojump_clock: trio.abc.Clock) -> None:
    async with world({OTHER: breaks_midway, THIRD: answers}) as here, here.dispatcher.run(INTENT, b"{}") as execution:
        pieces = execution.pieces()
        assert await anext(pieces) == b"piece"
        with pytest.raises(CallError, match="the stream broke"):
            await anext(pieces)
        assert len(here.mesh.calls) == 1


async def test_a_node_whose_connection_broke_is_doubted_at_once(autojump_clock: trio.abc.Clock) -> None:
    async with world({OTHER: fails(Code.UNKNOWN_OUTCOME), THIRD: answers}, noted=False) as here:
        async with here.dispatcher.run(INTENT, b"{}"):
            pass
        assert here.table.nodes[OTHER].state is State.SUSPECT
        assert here.router.outcomes.reliability(OTHER, bytes(32)) < 1.0
        assert here.table.nodes[THIRD].state is State.ONLINE


async def test_a_card_that_is_not_offered_any_more_waits_for_the_news(autojump_clock: trio.abc.Clock) -> None:
    """An offer has changed and the news is on its way: the caller sees the second decision, not the first refusal."""
    fresh = False

    async def run(call: ToolCall, emit: Emit) -> bytes:
        if not fresh:
            raise CallError(Code.NOT_FOUND, "not any more", retryable=True)
        return b"new"

    async with world({OTHER: run}) as here:

        async def news() -> None:
            nonlocal fresh
            await trio.sleep(0.4)
            fresh = True
            here.table.doubt(THIRD, "any change", 0.0)
            here.table.node(THIRD, 0.0)

        here.mesh.nursery.start_soon(news)
        started = trio.current_time()
        async with here.dispatcher.run(INTENT, b"{}") as execution:
            assert await execution.result() == b"new"
        assert trio.current_time() - started < 0.6


async def test_nobody_can_is_an_error_that_says_what_is_missing(autojump_clock: trio.abc.Clock) -> None:
    async with world({}) as here:
        with pytest.raises(CallError, match="nobody does that"):
            async with here.dispatcher.run(INTENT, b"{}"):
                pass


async def test_leaving_early_cancels_the_work(autojump_clock: trio.abc.Clock) -> None:
    cancelled = trio.Event()

    async def endless(call: ToolCall, emit: Emit) -> bytes:
        try:
            while True:
                await emit(b"more")
        finally:
            cancelled.set()

    async with world({OTHER: endless}) as here:
        async with here.dispatcher.run(INTENT, b"{}") as execution:
            assert await anext(execution.pieces()) == b"more"
            assert here.dispatcher.running == 1
        with trio.fail_after(1):
            await cancelled.wait()
        assert here.dispatcher.running == 0


async def test_the_deadline_is_passed_on_and_kept(autojump_clock: trio.abc.Clock) -> None:
    async def sleeps(call: ToolCall, emit: Emit) -> bytes:
        await trio.sleep_forever()
        return b""

    async with world({OTHER: sleeps, THIRD: answers}) as here:
        started = trio.current_time()
        with pytest.raises(CallError) as raised:
            async with here.dispatcher.run(INTENT, b"{}", deadline_s=3.0):
                pass
        assert raised.value.code is Code.DEADLINE
        assert trio.current_time() - started == pytest.approx(3.0)
        assert here.mesh.calls[0][1].deadline is not None
        assert len(here.mesh.calls) == 1  # a second node would have no time left either


async def test_a_slow_reader_holds_the_work_back(autojump_clock: trio.abc.Clock) -> None:
    sent = 0

    async def fast(call: ToolCall, emit: Emit) -> bytes:
        nonlocal sent
        while True:
            await emit(b"x")
            sent += 1

    async with world({OTHER: fast}) as here, here.dispatcher.run(INTENT, b"{}"):
        await trio.sleep(10)
        assert sent < 100


async def test_each_call_leaves_its_decision_and_what_became_of_it(autojump_clock: trio.abc.Clock) -> None:
    async with world({OTHER: fails(Code.UNAVAILABLE), THIRD: takes(0.1)}) as here:
        async with here.dispatcher.run(INTENT, b"{}", trace_id=bytes(16)) as execution:
            await execution.result()
        (entry,) = here.router.log.latest(10)
        assert (entry.request, entry.outcome, entry.tried) == ("00" * 16, "ok", 1)
        assert entry.ran is not None
        assert entry.ran.peer == THIRD
    async with world({OTHER: fails(Code.INVALID)}) as here:
        with pytest.raises(CallError):
            async with here.dispatcher.run(INTENT, b"{}"):
                pass
        (entry,) = here.router.log.latest(10)
        assert (entry.ran, entry.outcome) == (None, "invalid")


async def test_units_share_a_decision_and_flood_no_log(autojump_clock: trio.abc.Clock) -> None:
    async with world({OTHER: takes(0.01)}) as here:
        async with here.dispatcher.map(Unit(INTENT, b"{}") for _ in range(40)) as results:
            assert [result.ok async for result in results] == [True] * 40
        assert [entry.outcome for entry in here.router.log.latest(50)] == ["units"]


async def test_who_answered_is_known_for_the_beginning_of_the_request(autojump_clock: trio.abc.Clock) -> None:
    async with world({OTHER: takes(0.5), THIRD: takes(0.5)}) as here:
        async with here.dispatcher.run(replace(INTENT, prefixes=(b"talk", b"system")), b"{}") as execution:
            await execution.result()
        affinity = here.router.affinity
        assert affinity.holders((b"talk",), bytes(32)) == affinity.holders((b"system",), bytes(32)) == {OTHER}
        assert here.router.outcomes.seconds(OTHER, bytes(32)) == pytest.approx(0.5)
