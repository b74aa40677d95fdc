"""Tool calls between two nodes: results, streams of data, cancellation, deadlines, and lost connections."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from protocols.call.client import CallClient
from protocols.call.errors import CallError, Code
from protocols.call.limits import CallLimits
from protocols.call.messages import IncomingCall, Load
from protocols.call.server import CallServer, Emit
from tests.protocols.calls import ALICE, BOB, CARD, line
from transports.peer_id import PeerId
from transports.stream import Stream, memory_stream_pair


async def echo(call: IncomingCall, emit: Emit) -> bytes:
    return call.args


async def forever(call: IncomingCall, emit: Emit) -> bytes:
    await trio.sleep_forever()
    raise AssertionError("unreachable")


async def test_a_call_carries_everything_and_gives_the_result(autojump_clock: MockClock) -> None:
    seen: list[IncomingCall] = []

    async def handler(call: IncomingCall, emit: Emit) -> bytes:
        seen.append(call)
        return b'{"ok": true}'

    async with line(handler) as joined:
        result = await joined.client.request(
            BOB, CARD, "chat", b'{"x": 1}', deadline_s=5, trace_id=b"t" * 16, idempotency_key=b"key"
        )
    assert result == b'{"ok": true}'
    assert seen == [IncomingCall(ALICE, CARD, "chat", b'{"x": 1}', 5.0, b"t" * 16, b"key")]


async def test_many_calls_share_one_stream(autojump_clock: MockClock) -> None:
    async def handler(call: IncomingCall, emit: Emit) -> bytes:
        await trio.sleep(1)
        return call.args

    async with line(handler) as joined:
        results: dict[int, bytes] = {}

        async def one(i: int) -> None:
            results[i] = await joined.client.request(BOB, CARD, "echo", b"%d" % i)

        async with trio.open_nursery() as nursery:
            for i in range(40):
                nursery.start_soon(one, i)
        assert results == {i: b"%d" % i for i in range(40)}
        assert trio.current_time() < 2.5
        assert joined.client.statistics().streams_opened == 1


async def test_a_busy_stream_gets_company_up_to_a_bound_and_then_calls_are_refused_here(
    autojump_clock: MockClock,
) -> None:
    limits = CallLimits(busy_stream=2, calls_per_stream=4, shared_streams=3)
    async with line(forever, limits) as joined, trio.open_nursery() as nursery:
        for _ in range(12):
            nursery.start_soon(joined.client.request, BOB, CARD, "wait", b"")
        await trio.sleep(1)
        assert joined.client.statistics().streams == 3
        assert joined.client.statistics().calls == 12
        with pytest.raises(CallError) as refused:
            await joined.client.request(BOB, CARD, "wait", b"")
        assert refused.value.code is Code.OVERLOADED
        assert refused.value.retry_after_ms > 0
        nursery.cancel_scope.cancel()


async def test_an_idle_stream_is_closed_and_the_next_call_opens_another(autojump_clock: MockClock) -> None:
    async with line(echo) as joined:
        await joined.client.request(BOB, CARD, "echo", b"1")
        await trio.sleep(CallLimits().idle_caller + CallLimits().watch + 1)
        assert joined.client.statistics().streams == 0
        assert joined.client.statistics().peers == 0
        assert joined.server.statistics().streams == 0
        assert await joined.client.request(BOB, CARD, "echo", b"2") == b"2"


async def test_large_arguments_travel_beside_the_small_calls(autojump_clock: MockClock) -> None:
    async with line(forever) as joined, trio.open_nursery() as nursery:
        nursery.start_soon(joined.client.request, BOB, CARD, "small", b"x")
        await trio.lowlevel.checkpoint()
        for _ in range(6):  # bulk_streams is 4: two wait
            nursery.start_soon(joined.client.request, BOB, CARD, "large", b"x" * 100_000)
        await trio.sleep(1)
        assert joined.client.statistics().streams == 5
        assert joined.server.statistics().calls == 5
        nursery.cancel_scope.cancel()


async def test_large_arguments_and_results_arrive_whole(autojump_clock: MockClock) -> None:
    args = bytes(range(256)) * 4096 * 8  # 8 MiB
    async with line(echo) as joined:
        for _ in range(3):
            assert await joined.client.request(BOB, CARD, "echo", args) == args
        assert joined.client.statistics().streams_opened == 1  # the large calls' stream is used again


async def test_data_arrives_while_the_handler_runs_and_before_the_result(autojump_clock: MockClock) -> None:
    async def handler(call: IncomingCall, emit: Emit) -> bytes:
        for i in range(5):
            await emit(b"piece %d" % i)
            await trio.sleep(1)
        return b"end"

    async with line(handler) as joined, joined.client.call(BOB, CARD, "chat", b"") as call:
        start = trio.current_time()
        times = []
        async for piece in call:
            times.append((piece, round(trio.current_time() - start)))
        assert times == [(b"piece %d" % i, i) for i in range(5)]
        assert call.accepted
        assert await call.result() == b"end"


async def test_result_drops_unread_data_and_gives_credit_for_it(autojump_clock: MockClock) -> None:
    async def handler(call: IncomingCall, emit: Emit) -> bytes:
        for _ in range(100):
            await emit(b"x" * 50_000)
        return b"end"

    async with line(handler) as joined:
        assert await joined.client.request(BOB, CARD, "chat", b"") == b"end"


async def test_a_slow_consumer_stops_the_producer_at_the_window(autojump_clock: MockClock) -> None:
    sent = 0

    async def handler(call: IncomingCall, emit: Emit) -> bytes:
        nonlocal sent
        for _ in range(100):
            await emit(b"x" * 30_000)
            sent += 30_000
        return b"end"

    limits = CallLimits()
    async with line(handler) as joined, joined.client.call(BOB, CARD, "chat", b"") as call:
        await trio.sleep(10)
        assert limits.window - 30_000 <= sent <= limits.window
        assert call._unread == limits.window  # all that may ever be held
        got = 0
        async for piece in call:
            got += len(piece)
            assert sent - got <= limits.window
        assert got == 3_000_000
        assert await call.result() == b"end"


async def test_a_consumer_that_stops_reading_does_not_stop_the_others(autojump_clock: MockClock) -> None:
    async def handler(call: IncomingCall, emit: Emit) -> bytes:
        for _ in range(40):
            await emit(b"x" * 60_000)
        return b"end"

    async with line(handler) as joined, joined.client.call(BOB, CARD, "stuck", b"") as stuck:
        with trio.fail_after(5):
            assert await joined.client.request(BOB, CARD, "flows", b"") == b"end"
        assert joined.client.statistics().streams_opened == 1
        assert not stuck._done


async def test_calls_that_stream_share_the_line_fairly(autojump_clock: MockClock) -> None:
    progress: dict[bytes, int] = {}

    async def handler(call: IncomingCall, emit: Emit) -> bytes:
        while True:
            await emit(b"x" * 4000)

    async def consume(name: bytes) -> None:
        async with joined.client.call(BOB, CARD, "chat", name) as call:
            async for piece in call:
                progress[name] = progress.get(name, 0) + len(piece)
                if sum(progress.values()) > 20_000_000:
                    nursery.cancel_scope.cancel()

    async with line(handler) as joined, trio.open_nursery() as nursery:
        for i in range(8):
            nursery.start_soon(consume, b"%d" % i)
    assert len(progress) == 8
    assert min(progress.values()) > 0.5 * max(progress.values())


async def test_many_tiny_unread_pieces_are_joined(autojump_clock: MockClock) -> None:
    async def handler(call: IncomingCall, emit: Emit) -> bytes:
        for i in range(10_000):
            await emit(b"%d," % i)
        return b""

    async with line(handler) as joined, joined.client.call(BOB, CARD, "chat", b"") as call:
        await trio.sleep(1)
        assert len(call._pieces) <= 1025
        assert b"".join([piece async for piece in call]) == b"".join(b"%d," % i for i in range(10_000))


async def test_leaving_the_call_cancels_the_handler_at_once(autojump_clock: MockClock) -> None:
    cancelled_at: list[float] = []

    async def handler(call: IncomingCall, emit: Emit) -> bytes:
        await emit(b"first")
        try:
            await trio.sleep_forever()
        finally:
            cancelled_at.append(trio.current_time())
        raise AssertionError("unreachable")

    async with line(handler) as joined:
        async with joined.client.call(BOB, CARD, "chat", b"") as call:
            assert await anext(call) == b"first"
            await trio.sleep(3)
        left_at = trio.current_time()
        await trio.sleep(1)
        assert cancelled_at == [pytest.approx(left_at, abs=0.01)]
        assert joined.server.statistics().calls == 0


async def test_two_hundred_cancelled_calls_leave_the_stream_usable(autojump_clock: MockClock) -> None:
    async def handler(call: IncomingCall, emit: Emit) -> bytes:
        if call.tool == "echo":
            return call.args
        while True:
            await emit(b"x" * 10_000)
            await trio.sleep(0.0005)

    async with line(handler) as joined:
        for i in range(200):
            with trio.move_on_after(0.001 * (i % 7)) as scope:  # 0: cancelled before it is sent
                await joined.client.request(BOB, CARD, "stream", b"y" * (i * 300))
            assert scope.cancelled_caught
        assert await joined.client.request(BOB, CARD, "echo", b"still here") == b"still here"
        await trio.sleep(1)
        assert joined.server.statistics().calls == 0
        assert joined.server.statistics().args_bytes == 0
        assert joined.client.statistics().calls == 0
        assert joined.client.statistics().streams_lost == 0
        assert joined.client.statistics().streams_opened <= 2  # the shared one, and the one of large arguments


async def test_a_call_error_of_the_handler_arrives_as_it_was_raised(autojump_clock: MockClock) -> None:
    async def handler(call: IncomingCall, emit: Emit) -> bytes:
        await emit(b"partial")
        raise CallError(Code.BACKEND, "HTTP 400", retryable=True, retry_after_ms=7, details=b'{"status": 400}')

    async with line(handler) as joined, joined.client.call(BOB, CARD, "chat", b"") as call:
        assert await anext(call) == b"partial"
        with pytest.raises(CallError) as failed:
            await anext(call)
    error = failed.value
    assert (error.code, error.message, error.retryable) == (Code.BACKEND, "HTTP 400", True)
    assert (error.retry_after_ms, error.details) == (7, b'{"status": 400}')


@pytest.mark.logs_errors
async def test_a_bug_of_the_handler_is_logged_there_and_not_told(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async def handler(call: IncomingCall, emit: Emit) -> bytes:
        raise ValueError("secret path")

    async with line(handler) as joined:
        with pytest.raises(CallError) as failed:
            await joined.client.request(BOB, CARD, "chat", b"")
        assert failed.value.code is Code.INTERNAL
        assert "secret" not in str(failed.value)
        assert "secret path" in caplog.text
        with pytest.raises(CallError):  # the stream goes on
            await joined.client.request(BOB, CARD, "chat", b"")
        assert joined.client.statistics().streams_opened == 1


async def test_the_callee_ends_a_call_at_its_deadline(autojump_clock: MockClock) -> None:
    async with line(forever) as joined:
        start = trio.current_time()
        with pytest.raises(CallError) as failed:
            await joined.client.request(BOB, CARD, "wait", b"", deadline_s=3)
        assert failed.value.code is Code.DEADLINE
        assert trio.current_time() - start == pytest.approx(3, abs=0.1)


async def test_a_callee_that_says_nothing_is_left_after_the_grace(autojump_clock: MockClock) -> None:
    near, far = memory_stream_pair(ALICE, BOB)

    async def open_stream(peer: PeerId) -> Stream:
        await trio.lowlevel.checkpoint()
        return near

    async with trio.open_nursery() as nursery:
        client = CallClient(open_stream)
        nursery.start_soon(client.run)
        with pytest.raises(CallError) as failed:
            await client.request(BOB, CARD, "wait", b"", deadline_s=3)
        assert failed.value.code is Code.DEADLINE
        assert trio.current_time() == pytest.approx(3 + client.limits.grace, abs=0.1)
        assert far is not None
        nursery.cancel_scope.cancel()


async def test_a_stream_lost_after_the_open_was_written_leaves_the_outcome_unknown(autojump_clock: MockClock) -> None:
    async with line(forever) as joined, trio.open_nursery() as nursery:

        async def lose() -> None:
            await trio.sleep(1)
            await joined.ends[0][1].reset()

        nursery.start_soon(lose)
        with pytest.raises(CallError) as failed:
            await joined.client.request(BOB, CARD, "wait", b"")
        assert failed.value.code is Code.UNKNOWN_OUTCOME
        assert not failed.value.retryable
        await trio.sleep(1)
        assert joined.server.statistics().calls == 0  # the loss cancelled the handler
        assert joined.client.statistics().streams == 0


async def test_a_stream_lost_before_the_open_was_written_is_unavailable(autojump_clock: MockClock) -> None:
    near, far = memory_stream_pair(ALICE, BOB, capacity=1000)  # the first large write blocks the writer

    async def open_stream(peer: PeerId) -> Stream:
        await trio.lowlevel.checkpoint()
        return near

    codes: dict[str, CallError] = {}

    async def one(tool: str, args: bytes) -> None:
        try:
            await client.request(BOB, CARD, tool, args)
        except CallError as error:
            codes[tool] = error

    async with trio.open_nursery() as outer:
        client = CallClient(open_stream)
        outer.start_soon(client.run)
        async with trio.open_nursery() as nursery:
            for tool in ("first", "second", "third"):
                nursery.start_soon(one, tool, b"x" * 50_000)
                await trio.sleep(1)
            await far.reset()
        outer.cancel_scope.cancel()
    assert codes["first"].code is Code.UNKNOWN_OUTCOME
    assert codes["third"].code is Code.UNAVAILABLE
    assert codes["third"].retryable


async def test_a_peer_that_cannot_be_reached_is_unavailable_with_the_reason(autojump_clock: MockClock) -> None:
    async def open_stream(peer: PeerId) -> Stream:
        await trio.sleep(1)
        raise OSError("no route")

    async with trio.open_nursery() as nursery:
        client = CallClient(open_stream)
        nursery.start_soon(client.run)
        with pytest.raises(CallError, match="no route") as failed:
            await client.request(BOB, CARD, "echo", b"")
        assert failed.value.code is Code.UNAVAILABLE
        assert failed.value.retryable
        assert client.statistics().peers == 0
        nursery.cancel_scope.cancel()


async def test_the_deadline_bounds_dialling(autojump_clock: MockClock) -> None:
    async def open_stream(peer: PeerId) -> Stream:
        await trio.sleep_forever()
        raise AssertionError("unreachable")

    async with trio.open_nursery() as nursery:
        client = CallClient(open_stream)
        nursery.start_soon(client.run)
        for deadline, code in ((2.0, Code.DEADLINE), (1000.0, Code.UNAVAILABLE)):
            with pytest.raises(CallError) as failed:
                await client.request(BOB, CARD, "echo", b"", deadline_s=deadline)
            assert failed.value.code is code
            assert failed.value.retryable
        assert trio.current_time() == pytest.approx(2 + client.limits.open_timeout)
        nursery.cancel_scope.cancel()


async def test_load_rides_on_the_answers(autojump_clock: MockClock) -> None:
    loads: list[Load] = []

    async def handler(call: IncomingCall, emit: Emit) -> bytes:
        await trio.sleep(1)
        if call.tool == "fail":
            raise CallError(Code.NOT_FOUND, "no such tool")
        return b""

    server = CallServer(handler, load=lambda: Load(permille=250, queue=3))
    async with line(server) as joined:
        await joined.client.request(BOB, CARD, "good", b"", on_load=loads.append)
        with pytest.raises(CallError):
            await joined.client.request(BOB, CARD, "fail", b"", on_load=loads.append)
    assert loads == [Load(250, 3)] * 4  # Accepted and the end, twice


async def test_a_stopping_server_lets_calls_finish_and_takes_no_new_ones(autojump_clock: MockClock) -> None:
    async def handler(call: IncomingCall, emit: Emit) -> bytes:
        await trio.sleep(5)
        return b"done"

    async with line(handler) as joined, trio.open_nursery() as nursery:
        results: list[bytes] = []

        async def one() -> None:
            results.append(await joined.client.request(BOB, CARD, "work", b""))

        nursery.start_soon(one)
        await trio.sleep(1)
        nursery.start_soon(joined.server.drain)
        await trio.sleep(1)
        with pytest.raises(CallError) as refused:
            await joined.client.request(BOB, CARD, "work", b"")
        assert refused.value.code is Code.UNAVAILABLE
        assert refused.value.retryable
    assert results == [b"done"]


async def test_our_own_mistakes_are_refused_before_the_wire(autojump_clock: MockClock) -> None:
    async with line(echo) as joined:
        for card, tool, args, code in (
            (b"short", "echo", b"", Code.INVALID),
            (CARD, "", b"", Code.INVALID),
            (CARD, "echo", b"x" * (16 * 1024 * 1024 + 1), Code.TOO_LARGE),
        ):
            with pytest.raises(CallError) as failed:
                await joined.client.request(BOB, card, tool, args)
            assert failed.value.code is code
        assert joined.ends == []
