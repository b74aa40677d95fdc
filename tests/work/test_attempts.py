"""One call: second ones for slow ones, breakers, coming back, answers that go on elsewhere. Virtual time."""

from __future__ import annotations

import json

import pytest
import trio

from atmosphere.capabilities.backend import Emit, ToolCall
from atmosphere.capabilities.card import CONTINUE, Effects
from atmosphere.work.breaker import FIRST_PAUSE_S
from atmosphere.work.hedging import ENOUGH, FIRST, RATE
from protocols.call import CallError, Code
from tests.mesh.people import FOURTH, OTHER, THIRD
from tests.work.world import INTENT, Run, World, card, fails, takes, world


async def call(here: World, deadline_s: float | None = None) -> bytes:
    async with here.dispatcher.run(INTENT, b"{}", deadline_s=deadline_s) as execution:
        return await execution.result()


def mostly(seconds: float, every: int, slow: float) -> Run:
    """Takes *seconds*; each *every*-th call *slow* ones."""
    count = 0

    async def run(call: ToolCall, emit: Emit) -> bytes:
        nonlocal count
        count += 1
        await trio.sleep(slow if count % every == 0 else seconds)
        return b"slow" if count % every == 0 else b"{}"

    return run


async def test_a_slow_call_is_asked_of_a_second_node_within_the_budget(autojump_clock: trio.abc.Clock) -> None:
    async with world({OTHER: mostly(0.1, 10, 5.0), THIRD: takes(0.1)}) as here:
        took = []
        for _ in range(400):
            began = trio.current_time()
            await call(here)
            took.append(trio.current_time() - began)
        statistics = here.dispatcher.statistics()
        assert len(here.mesh.calls) == 400 + statistics.hedges  # each second call is counted
        assert 10 < statistics.hedges <= FIRST + 400 * RATE
        assert statistics.hedges_won == statistics.hedges
        # A tenth of the calls is slow; the budget is enough for half of them.
        assert sum(seconds > 4 for seconds in took) == 40 - statistics.hedges


@pytest.mark.parametrize("effects", [Effects.IDEMPOTENT, Effects.ONCE])
async def test_what_has_effects_is_never_run_twice_for_speed(effects: Effects, autojump_clock: trio.abc.Clock) -> None:
    async with world({OTHER: mostly(0.1, 10, 5.0), THIRD: takes(0.1)}, effects) as here:
        for _ in range(100):
            await call(here)
        assert len(here.mesh.calls) == 100
        assert here.mesh.asked(THIRD) == 0


async def test_the_loser_of_two_is_cancelled(autojump_clock: trio.abc.Clock) -> None:
    cancelled = trio.Event()
    slow = False

    async def run(call: ToolCall, emit: Emit) -> bytes:
        try:
            await trio.sleep(60 if slow else 0.1)
        except trio.Cancelled:
            cancelled.set()
            raise
        return b"{}"

    async with world({OTHER: run, THIRD: takes(0.1)}) as here:
        for _ in range(ENOUGH):
            await call(here)
        slow = True
        began = trio.current_time()
        async with here.dispatcher.run(INTENT, b"{}") as execution:
            assert execution.candidate.peer == THIRD
        assert trio.current_time() - began == pytest.approx(0.25)
        with trio.fail_after(1):
            await cancelled.wait()


async def test_of_two_that_both_fail_the_rule_of_effects_decides(autojump_clock: trio.abc.Clock) -> None:
    error: CallError | None = None

    async def breaks(call: ToolCall, emit: Emit) -> bytes:
        await trio.sleep(0.1 if error is None else 1.0)
        if error is not None:
            raise error
        return b"{}"

    async with world({OTHER: breaks, THIRD: breaks, FOURTH: takes(0.1)}) as here:
        for _ in range(ENOUGH):
            await call(here)
        error = CallError(Code.UNKNOWN_OUTCOME, "lost")
        async with here.dispatcher.run(INTENT, b"{}") as execution:
            assert execution.candidate.peer == FOURTH
            assert {attempt.candidate.peer for attempt in execution.attempts} == {OTHER, THIRD}
    error = None
    async with world({OTHER: breaks, THIRD: takes(5.0), FOURTH: takes(0.1)}) as here:
        for _ in range(ENOUGH):
            await call(here)
        error = CallError(Code.INVALID, "wrong")  # the same again fails again: nothing to wait for
        began = trio.current_time()
        with pytest.raises(CallError, match="wrong"):
            await call(here)
        assert trio.current_time() - began == pytest.approx(1.0)
        assert here.mesh.asked(FOURTH) == 0


async def test_a_pair_that_failed_is_not_chosen_a_second_time(autojump_clock: trio.abc.Clock) -> None:
    async with world({OTHER: fails(Code.UNAVAILABLE, True), THIRD: takes(0.01)}) as here:
        for _ in range(50):
            await call(here)
        assert here.mesh.asked(OTHER) == 1
        assert here.failed == [OTHER]
        (breaker,) = here.dispatcher.statistics().breakers
        assert (breaker.peer, breaker.state) == (str(OTHER), "open")
        assert 0 < breaker.wait_s < FIRST_PAUSE_S
        (unreliable,) = here.dispatcher.statistics().unreliable
        assert (unreliable.peer, unreliable.success) == (str(OTHER), 0.7)
        await trio.sleep(FIRST_PAUSE_S)
        for _ in range(50):
            await call(here)
        assert here.mesh.asked(OTHER) == 2  # one probe


async def test_the_only_candidate_is_probed_and_the_error_says_when(autojump_clock: trio.abc.Clock) -> None:
    well = False

    async def run(call: ToolCall, emit: Emit) -> bytes:
        if not well:
            raise CallError(Code.UNAVAILABLE, "down", retryable=True)
        return b"{}"

    async with world({OTHER: run}) as here:
        for _ in range(100):  # ten seconds of somebody who does not give up
            with pytest.raises(CallError) as raised:
                await call(here)
            assert raised.value.code is Code.UNAVAILABLE
            assert raised.value.retryable
            await trio.sleep(0.1)
        assert here.mesh.asked(OTHER) <= 5
        assert "left alone for" in raised.value.message
        well = True
        await trio.sleep(raised.value.retry_after_ms / 1000)
        assert await call(here) == b"{}"
        assert here.dispatcher.statistics().breakers == ()


async def test_half_open_lets_one_of_many_through(autojump_clock: trio.abc.Clock) -> None:
    well = False

    async def run(call: ToolCall, emit: Emit) -> bytes:
        if not well:
            raise CallError(Code.UNKNOWN_OUTCOME, "lost")
        await trio.sleep(0.5)
        return b"{}"

    async with world({OTHER: run, THIRD: takes(0.1)}) as here:
        await call(here)
        await trio.sleep(FIRST_PAUSE_S)
        well = True
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(call, here)
        assert here.mesh.asked(OTHER) == 2
        await call(here)
        assert here.mesh.asked(OTHER) == 3  # closed: the first in rank again


async def test_errors_that_are_the_requests_own_open_nothing(autojump_clock: trio.abc.Clock) -> None:
    async with world({OTHER: fails(Code.INVALID)}) as here:
        for _ in range(20):
            with pytest.raises(CallError, match="no"):
                await call(here)
        assert here.mesh.asked(OTHER) == 20


async def test_all_are_busy_so_it_comes_back_after_the_smallest_hint(autojump_clock: trio.abc.Clock) -> None:
    free_at = trio.current_time() + 2.0

    def busy(hint_ms: int) -> Run:
        async def run(call: ToolCall, emit: Emit) -> bytes:
            if trio.current_time() < free_at:
                raise CallError(Code.OVERLOADED, "busy", retryable=True, retry_after_ms=hint_ms)
            return b"done"

        return run

    async with world({OTHER: busy(9000), THIRD: busy(500)}, Effects.ONCE) as here:
        began = trio.current_time()
        assert await call(here) == b"done"
        assert 2.0 <= trio.current_time() - began <= 2.7
        assert here.mesh.asked(OTHER) <= 5
        free_at = trio.current_time() + 100.0
        began = trio.current_time()
        with pytest.raises(CallError) as raised:
            await call(here, deadline_s=3.0)
        assert raised.value.code is Code.OVERLOADED
        assert trio.current_time() - began <= 3.0
        began = trio.current_time()
        with pytest.raises(CallError):
            await call(here)
        assert 25.0 <= trio.current_time() - began <= 30.0


def token(text: str) -> bytes:
    return json.dumps({"id": "1", "choices": [{"index": 0, "delta": {"content": text}}]}).encode()


CHAT = INTENT.__class__(tool="chat")
REQUEST = json.dumps({"messages": [{"role": "user", "content": "count"}], "stream": True}).encode()


def counts(until: int, error: CallError | None = None) -> Run:
    """Says numbers from where the request's prefix ends; breaks at *until* with *error*."""

    async def run(call: ToolCall, emit: Emit) -> bytes:
        last = json.loads(call.args)["messages"][-1]
        for number in range(len(last["content"]) if last["role"] == "assistant" else 0, until):
            await emit(token(str(number)))
        if error is not None:
            raise error
        return b""

    return run


LOST = CallError(Code.UNKNOWN_OUTCOME, "the connection was lost")


async def test_an_answer_that_breaks_goes_on_at_another_node_and_says_so(autojump_clock: trio.abc.Clock) -> None:
    what = card(Effects.NONE, (CONTINUE,), "chat")
    async with world({OTHER: counts(3, LOST), THIRD: counts(6, LOST), FOURTH: counts(9)}, what=what) as here:
        async with here.dispatcher.run(CHAT, REQUEST) as execution:
            pieces = [json.loads(piece) async for piece in execution.pieces()]
            assert here.dispatcher.statistics().under_way == 1  # those that broke are closed
            assert await execution.result() == b""
            assert execution.candidate.peer == FOURTH
        text = "".join(piece["choices"][0]["delta"]["content"] for piece in pieces if piece["choices"])
        assert text == "012345678"  # nothing twice, nothing missing
        marks = [piece["atmosphere"] for piece in pieces if "atmosphere" in piece]
        assert marks == [
            {"continued_on": THIRD.short, "after_chars": 3},
            {"continued_on": FOURTH.short, "after_chars": 6},
        ]
        assert here.dispatcher.statistics().continued == 2
        assert here.failed == [OTHER, THIRD]
        assert (here.dispatcher.running, here.dispatcher.statistics().under_way) == (0, 0)


async def test_an_answer_goes_on_only_where_that_was_declared_and_it_was_cut_off(
    autojump_clock: trio.abc.Clock,
) -> None:
    refused = CallError(Code.BACKEND, "context is full", details=b'{"status": 400}')
    for features, error in (((), LOST), ((CONTINUE,), refused)):
        what = card(Effects.NONE, features, "chat")
        async with world({OTHER: counts(3, error), THIRD: counts(9)}, what=what) as here:
            async with here.dispatcher.run(CHAT, REQUEST) as execution:
                pieces = execution.pieces()
                for _ in range(3):
                    await anext(pieces)
                with pytest.raises(CallError) as raised:
                    await anext(pieces)
                assert raised.value is error
            assert here.mesh.asked(THIRD) == 0


async def test_nobody_to_go_on_with_is_the_error_that_broke_it(autojump_clock: trio.abc.Clock) -> None:
    what = card(Effects.NONE, (CONTINUE,), "chat")
    runs = {OTHER: counts(3, LOST), THIRD: fails(Code.UNAVAILABLE, True)}
    async with world(runs, what=what) as here, here.dispatcher.run(CHAT, REQUEST) as execution:
        with pytest.raises(CallError) as raised:
            await execution.result()
        assert raised.value is LOST
