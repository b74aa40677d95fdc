"""The registry: change detection, admission in order, honest refusals, nothing leaked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from atmosphere.capabilities.admission import Admission, Waiting
from atmosphere.capabilities.backend import Backend, Emit, Provision, ToolCall
from atmosphere.capabilities.card import Card, CardId, Tool, card_id
from atmosphere.capabilities.registry import Load, LocalRegistry
from protocols.call import CallError, Code

ECHO = Card(type="test/echo", description="says it again", tools=(Tool("say"), Tool("fail"), Tool("bug"), Tool("wait")))
ECHO_ID: CardId = card_id(ECHO.encode())


class EchoBackend(Backend):
    """Runs until it is told to finish, so that tests decide who runs when."""

    def __init__(self, name: str = "echo") -> None:
        self.name = name
        self.started: list[bytes] = []
        self.cancelled = 0
        self.go = trio.Semaphore(0)

    async def discover(self) -> Sequence[Provision]:
        return [Provision(ECHO, concurrency=2)]

    async def invoke(self, card: Card, call: ToolCall, emit: Emit) -> bytes:
        self.started.append(call.args)
        match call.tool:
            case "fail":
                raise CallError(Code.UNAVAILABLE, "connection refused", retryable=True)
            case "bug":
                raise ZeroDivisionError
            case "wait":
                try:
                    await self.go.acquire()
                except trio.Cancelled:
                    self.cancelled += 1
                    raise
        await emit(b"piece")
        return call.args


async def ignore(_piece: bytes) -> None:
    await trio.lowlevel.checkpoint()


def registry(**options: Any) -> LocalRegistry:
    return LocalRegistry(trio.current_time, **options)


async def refused(registry: LocalRegistry, tool: str, args: bytes = b"{}", card: CardId = ECHO_ID) -> CallError:
    with pytest.raises(CallError) as caught:
        await registry.serve(card, ToolCall(tool, args), ignore)
    return caught.value


async def test_what_is_offered_and_when_it_changes() -> None:
    changes: list[int] = []
    local = LocalRegistry(trio.current_time, on_change=lambda: changes.append(1))
    one, two = EchoBackend("one"), EchoBackend("two")
    assert local.update(one, await one.discover())
    assert not local.update(one, await one.discover()), "the same again is no change"
    assert local.update(two, [Provision(ECHO, concurrency=3, price_micros=5, labels=("gpu",))])
    (entry,) = local.offer_entries()
    assert (entry.card, entry.concurrency, entry.price_micros, entry.labels) == (ECHO_ID, 5, 0, ("gpu",))
    assert local.card_bytes(ECHO_ID) == ECHO.encode()
    assert local.backend_names(ECHO_ID) == ("one", "two")
    assert local.remove(one)
    assert local.cards() == {ECHO_ID: ECHO}, "the other backend still has it"
    assert local.update(two, [])
    assert (local.cards(), local.offer_entries(), len(changes), local.version) == ({}, (), 4, 4)
    assert not local.remove(one)


async def test_a_call_runs_and_is_counted() -> None:
    local, backend, pieces = registry(), EchoBackend(), []
    local.update(backend, await backend.discover())

    async def emit(piece: bytes) -> None:
        pieces.append(piece)

    assert await local.serve(ECHO_ID, ToolCall("say", b'{"a": 1}'), emit) == b'{"a": 1}'
    assert pieces == [b"piece"]
    statistics = local.statistics()
    assert (statistics.served, statistics.failed, statistics.running) == (1, 0, 0)
    assert local.last_activity(backend) <= trio.current_time()


@pytest.mark.parametrize("args", [b"{", b"[1]", b"\xff", b"nul", b"[" * 100_000], ids=lambda args: repr(args[:8]))
async def test_arguments_must_be_a_json_object(args: bytes) -> None:
    local, backend = registry(), EchoBackend()
    local.update(backend, await backend.discover())
    assert (await refused(local, "say", args)).code is Code.INVALID
    assert backend.started == []


async def test_unknown_cards_and_tools() -> None:
    local, backend = registry(), EchoBackend()
    assert (await refused(local, "say")).code is Code.NOT_FOUND
    local.update(backend, await backend.discover())
    error = await refused(local, "sing")
    assert error.code is Code.NOT_FOUND
    assert "say" in error.message, "it names what there is"


async def test_queue_in_order_then_refusal(autojump_clock: trio.testing.MockClock) -> None:
    """Two run, two wait in order, the fifth is told when to come back; a freed slot goes to who waited longest."""
    local, backend = registry(queue_limit=2), EchoBackend()
    local.update(backend, await backend.discover())
    async with trio.open_nursery() as nursery:
        for n in range(4):
            nursery.start_soon(local.serve, ECHO_ID, ToolCall("wait", b'{"n": %d}' % n), ignore)
            await trio.testing.wait_all_tasks_blocked()
        assert local.load(ECHO_ID) == local.load() == Load(1000, 2)
        error = await refused(local, "wait")
        assert (error.code, error.retryable) == (Code.OVERLOADED, True)
        assert error.retry_after_ms == 1500, "three ahead of two slots, at the first guess of 1 s each"
        for _ in range(4):
            backend.go.release()
            await trio.testing.wait_all_tasks_blocked()
    assert backend.started == [b'{"n": %d}' % n for n in range(4)]
    statistics = local.statistics()
    assert (statistics.served, statistics.refused, statistics.running, statistics.waiting) == (4, 1, 0, 0)
    assert local.load() == Load(0, 0)


async def test_a_wait_beyond_the_deadline_is_refused_at_once(autojump_clock: trio.testing.MockClock) -> None:
    """Calls take 4 s here; two run: the next would wait about 2 s, so it waits with 3 s left and not with 1 s."""
    local, backend = registry(), EchoBackend()
    local.update(backend, await backend.discover())

    async def call(deadline_s: float | None) -> str:
        deadline = None if deadline_s is None else trio.current_time() + deadline_s
        try:
            await local.serve(ECHO_ID, ToolCall("wait", b"{}", deadline=deadline), ignore)
        except CallError as error:
            seen.append(error)
            return error.code
        return "ok"

    seen: list[CallError] = []
    async with trio.open_nursery() as nursery:
        for _ in range(2):
            nursery.start_soon(call, None)
        await trio.testing.wait_all_tasks_blocked()
        began = trio.current_time()
        assert await call(0.5) == Code.DEADLINE, "nothing has finished yet: the first guess refuses nobody"
        assert trio.current_time() - began == pytest.approx(0.5)
        await trio.sleep(3.5)
        for _ in range(2):
            backend.go.release()
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(2):
            nursery.start_soon(call, None)
        await trio.testing.wait_all_tasks_blocked()
        began = trio.current_time()
        assert await call(1.0) == Code.OVERLOADED
        assert trio.current_time() == began, "without waiting"
        assert (seen[-1].retryable, seen[-1].retry_after_ms) == (True, 2000)
        assert "about 2.0 s of waiting with 1.0 s left" in seen[-1].message
        nursery.start_soon(call, 3.0)
        await trio.testing.wait_all_tasks_blocked()
        assert local.load().queue == 1
        for _ in range(3):
            backend.go.release()
    assert local.statistics().refused == 1
    assert len(seen) == 2


async def test_cancelling_frees_the_slot_and_the_place(autojump_clock: trio.testing.MockClock) -> None:
    local, backend = registry(), EchoBackend()
    local.update(backend, await backend.discover())
    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(local.serve, ECHO_ID, ToolCall("wait", b"{}"), ignore)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert backend.cancelled == 2
    assert local.statistics().cancelled == 5
    assert local.load() == Load(0, 0)
    assert await local.serve(ECHO_ID, ToolCall("say", b"{}"), ignore) == b"{}"


@pytest.mark.parametrize("busy", [False, True], ids=["running", "waiting"])
async def test_the_deadline_ends_running_and_waiting_calls(busy: bool, autojump_clock: trio.testing.MockClock) -> None:
    local, backend = registry(), EchoBackend()
    local.update(backend, await backend.discover())
    async with trio.open_nursery() as nursery:
        for _ in range(2 if busy else 0):
            nursery.start_soon(local.serve, ECHO_ID, ToolCall("wait", b"{}"), ignore)
        await trio.testing.wait_all_tasks_blocked()
        began = trio.current_time()
        with pytest.raises(CallError) as caught:
            await local.serve(ECHO_ID, ToolCall("wait", b"{}", deadline=began + 3), ignore)
        assert caught.value.code is Code.DEADLINE
        assert trio.current_time() - began == pytest.approx(3)
        with pytest.raises(CallError, match="before the call began"):
            await local.serve(ECHO_ID, ToolCall("wait", b"{}", deadline=began), ignore)
        nursery.cancel_scope.cancel()
    assert local.load() == Load(0, 0)


async def test_a_vanished_backend_refuses_those_who_wait(autojump_clock: trio.testing.MockClock) -> None:
    local, backend = registry(), EchoBackend()
    local.update(backend, await backend.discover())
    async with trio.open_nursery() as nursery:
        for _ in range(2):
            nursery.start_soon(local.serve, ECHO_ID, ToolCall("wait", b"{}"), ignore)
        await trio.testing.wait_all_tasks_blocked()
        errors: list[CallError] = []

        async def waits() -> None:
            errors.append(await refused(local, "wait"))

        nursery.start_soon(waits)
        await trio.testing.wait_all_tasks_blocked()
        local.remove(backend)
        await trio.testing.wait_all_tasks_blocked()
        assert [(error.code, error.retryable) for error in errors] == [(Code.UNAVAILABLE, True)]
        backend.go.release()
        backend.go.release()
    assert local.statistics().served == 2, "what ran went on to its end"


async def test_a_failing_backend_is_suspected_once_until_it_is_seen_again() -> None:
    suspects: list[Backend] = []
    local, backend = registry(on_suspect=suspects.append), EchoBackend()
    local.update(backend, await backend.discover())
    for _ in range(3):
        assert (await refused(local, "fail")).code is Code.UNAVAILABLE
    assert suspects == [backend]
    local.update(backend, await backend.discover())
    await refused(local, "fail")
    assert suspects == [backend, backend]


@pytest.mark.logs_errors
async def test_a_bug_in_an_adapter_is_an_internal_error_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    local, backend = registry(), EchoBackend()
    local.update(backend, await backend.discover())
    assert (await refused(local, "bug")).code is Code.INTERNAL
    assert "ZeroDivisionError" in caplog.text
    assert local.statistics().running == 0


@given(st.lists(st.tuples(st.sampled_from(["call", "end", "leave", "add", "remove"]), st.integers(0, 9)), max_size=60))
def test_slots_are_never_over_used_nor_lost(steps: list[tuple[str, int]]) -> None:
    """Whatever happens in whatever order: no source runs more than its slots, and free slots mean an empty queue."""
    admission: Admission[str] = Admission(queue_limit=4)
    names = ["a", "b"]
    running: list[Any] = []
    waiting: list[Waiting[str]] = []
    for step, n in steps:
        match step:
            case "call":
                if (slots := admission.take()) is not None:
                    running.append(slots)
                elif not admission.full():
                    waiting.append(admission.wait(lambda: None))
            case "end" if running:
                admission.release(running.pop(n % len(running)), 1.0)
            case "leave" if waiting:
                admission.leave(waiting.pop(n % len(waiting)))
            case "add":
                admission.add(names[n % 2], 2)
            case "remove":
                admission.remove(names[n % 2])
        running += [w.granted for w in waiting if w.granted is not None]
        waiting = [w for w in waiting if w.granted is None and not w.refused]
        assert list(admission.queue) == waiting
        assert all(slots.running <= slots.size for slots in admission.slots)
        assert sum(slots.running for slots in {id(s): s for s in running}.values()) == len(running)
        assert not waiting or admission.running == admission.size
