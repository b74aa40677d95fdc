"""One key, one piece of work: repeats wait or get the result, failures that may have run are not run again."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence

import pytest
import trio
from trio.testing import MockClock

from atmosphere.capabilities import idempotency
from atmosphere.capabilities.backend import Backend, Emit, Provision, ToolCall
from atmosphere.capabilities.card import Card, Effects, Tool, card_id
from atmosphere.capabilities.idempotency import KEPT_S, IdempotencyMemory
from atmosphere.capabilities.registry import LocalRegistry
from protocols.call import CallError, Code
from tests.mesh.people import OTHER, THIRD

CARD = Card(type="test/ledger", description="writes down", tools=(
    Tool("look"), Tool("put", effects=Effects.IDEMPOTENT), Tool("send", effects=Effects.ONCE)))
CARD_ID = card_id(CARD.encode())


class Ledger(Backend):
    """Writes down every run; each takes a second, then does what *outcome* does."""

    name = "ledger"

    def __init__(self) -> None:
        self.runs = 0
        self.outcome: Callable[[Emit], Awaitable[bytes]] = self.count

    async def discover(self) -> Sequence[Provision]:
        return [Provision(CARD, concurrency=1)]

    async def invoke(self, card: Card, call: ToolCall, emit: Emit) -> bytes:
        self.runs += 1
        await trio.sleep(1)
        return await self.outcome(emit)

    async def count(self, emit: Emit) -> bytes:
        return b'{"run": %d}' % self.runs

    async def breaks(self, emit: Emit) -> bytes:
        raise CallError(Code.BACKEND, "it broke")

    async def gone(self, emit: Emit) -> bytes:
        raise CallError(Code.UNAVAILABLE, "nobody there")

    async def says(self, emit: Emit) -> bytes:
        await emit(b"piece")
        return b""


class World:
    def __init__(self) -> None:
        self.ledger = Ledger()
        self.registry = LocalRegistry(trio.current_time)
        self.registry.update(self.ledger, [Provision(CARD, concurrency=1)])
        self.said: list[str] = []

    async def call(self, tool: str = "put", key: bytes = b"k", args: bytes = b"{}", caller: object = OTHER) -> str:
        """The result, or the error's code."""

        async def emit(_piece: bytes) -> None:
            await trio.lowlevel.checkpoint()

        call = ToolCall(tool, args, caller=caller, idempotency_key=key)  # type: ignore[arg-type]
        try:
            result = (await self.registry.serve(CARD_ID, call, emit)).decode()
        except CallError as error:
            result = error.code.value
        self.said.append(result)
        return result


@pytest.mark.parametrize("tool", ["put", "send"])
async def test_a_repeat_gets_the_result_and_runs_nothing(autojump_clock: MockClock, tool: str) -> None:
    world = World()
    first = await world.call(tool)
    assert [await world.call(tool), await world.call(tool)] == [first, first]
    assert (world.ledger.runs, world.registry.statistics().repeated) == (1, 2)


async def test_a_repeat_waits_for_the_one_that_runs(autojump_clock: MockClock) -> None:
    """And takes no slot meanwhile: the third call, with another key, is only behind the first."""
    world = World()
    async with trio.open_nursery() as nursery:
        for key in (b"k", b"k", b"other"):
            nursery.start_soon(world.call, "put", key)
            await trio.testing.wait_all_tasks_blocked()
        await trio.sleep(1.5)
        assert world.said == ['{"run": 1}'] * 2
    assert world.ledger.runs == 2


async def test_a_key_is_its_callers_own(autojump_clock: MockClock) -> None:
    world = World()
    for caller in (OTHER, THIRD, None):
        await world.call(caller=caller)
    assert world.ledger.runs == 3


async def test_what_only_reads_runs_again(autojump_clock: MockClock) -> None:
    world = World()
    for _ in range(2):
        await world.call("look")
    for _ in range(2):
        await world.call("put", key=b"")
    assert world.ledger.runs == 4


async def test_a_key_is_for_one_piece_of_work(autojump_clock: MockClock) -> None:
    world = World()
    await world.call()
    assert await world.call(args=b'{"x": 1}') == Code.INVALID
    assert await world.call("send") == Code.INVALID
    assert world.ledger.runs == 1


@pytest.mark.parametrize(("tool", "failure", "runs"), [
    ("put", "breaks", 2), ("put", "gone", 2), ("send", "gone", 2), ("send", "breaks", 1),
])
async def test_a_failure_runs_again_unless_it_may_have_done_what_must_be_done_once(
    autojump_clock: MockClock, tool: str, failure: str, runs: int
) -> None:
    world = World()
    world.ledger.outcome = getattr(world.ledger, failure)
    first = await world.call(tool)
    assert await world.call(tool) == first
    assert world.ledger.runs == runs


@pytest.mark.parametrize(("tool", "told"), [("put", '{"run": 2}'), ("send", Code.UNKNOWN_OUTCOME)])
async def test_when_the_first_is_called_off_the_repeat_takes_over_or_is_told_so(
    autojump_clock: MockClock, tool: str, told: str
) -> None:
    world = World()
    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as first:
            async def leave() -> None:
                nursery.start_soon(world.call, tool)
                await trio.sleep(0.5)
                first.cancel()

            nursery.start_soon(leave)
            await world.call(tool)
    assert world.said == [told]


async def test_what_never_began_may_begin_later(autojump_clock: MockClock) -> None:
    """Called off while it waited for a slot: not even ``once`` work has run."""
    world = World()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.call, "put", b"other")
        await trio.testing.wait_all_tasks_blocked()
        with trio.move_on_after(0.5):
            await world.call("send")
    assert await world.call("send") == '{"run": 2}'


async def test_a_stream_is_not_given_twice(autojump_clock: MockClock) -> None:
    world = World()
    args = json.dumps({"stream": True}).encode()
    world.ledger.outcome = world.ledger.says
    assert [await world.call(args=args), await world.call(args=args)] == ["", Code.INVALID]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.call, "send", b"new", args)
        await trio.testing.wait_all_tasks_blocked()
        assert await world.call("send", b"new", args) == Code.INVALID
    assert world.ledger.runs == 2


async def test_a_result_is_forgotten_in_time(autojump_clock: MockClock) -> None:
    world = World()
    await world.call()
    await trio.sleep(KEPT_S - 1)
    await world.call()
    assert world.ledger.runs == 1
    await trio.sleep(2)
    await world.call()
    assert world.ledger.runs == 2


def keep(memory: IdempotencyMemory, key: bytes, caller: object = OTHER, result: bytes = b"{}",
         effects: Effects = Effects.IDEMPOTENT) -> ToolCall:
    call = ToolCall("put", b"{}", caller=caller, idempotency_key=key)  # type: ignore[arg-type]
    record = memory.begin(call, effects)
    record.begun = True
    memory.end(record, result, 0.0)
    return call


def test_one_caller_cannot_push_out_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idempotency, "KEPT_OF_CALLER_MAX", 3)
    monkeypatch.setattr(idempotency, "KEPT_MAX", 5)
    memory = IdempotencyMemory()
    kept = keep(memory, b"mine", THIRD)
    calls = [keep(memory, b"%d" % n) for n in range(10)]
    assert memory.find(kept, 1.0) is not None
    assert [memory.find(call, 1.0) is not None for call in calls] == [False] * 7 + [True] * 3


def test_the_bytes_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idempotency, "KEPT_BYTES", 1000)
    monkeypatch.setattr(idempotency, "RESULT_MAX_BYTES", 400)
    memory = IdempotencyMemory()
    calls = [keep(memory, b"%d" % n, result=bytes(300)) for n in range(5)]
    assert [memory.find(call, 1.0) is not None for call in calls] == [False, False, True, True, True]
    assert memory.find(keep(memory, b"large", result=bytes(401)), 1.0) is None
    once = memory.find(keep(memory, b"large once", result=bytes(401), effects=Effects.ONCE), 1.0)
    assert once is not None
    assert isinstance(once.outcome, CallError)
    assert once.outcome.code is Code.UNKNOWN_OUTCOME
    assert "4 kept in 900 bytes" in repr(memory)
