"""Asking a witness, and being one: over memory streams under virtual time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import trio

from protocols.framing import FrameReader, encode_frame
from protocols.probe import probe_pb2 as pb
from protocols.probe.client import WITNESS_SHARE, ask
from protocols.probe.messages import MAX_FRAME, ProbeError, ProbeOutcome, Reply, Request
from protocols.probe.server import BURST, IDLE_TIMEOUT, MAX_CHECKS, RATE, ProbeServer
from transports.peer_id import PeerId
from transports.stream import MemoryStream, StreamClosed, memory_stream_pair

ASKER, WITNESS, SUBJECT = (PeerId.from_public_key(bytes([n]) * 32) for n in range(3))


async def alive(subject: PeerId) -> ProbeOutcome:
    assert subject == SUBJECT
    return ProbeOutcome.ALIVE


async def stuck(subject: PeerId) -> ProbeOutcome:
    await trio.sleep_forever()
    raise AssertionError


@asynccontextmanager
async def asked(check: Callable[[PeerId], Awaitable[ProbeOutcome]]) -> AsyncIterator[MemoryStream]:
    """The asker's end of a stream that is served."""
    near, far = memory_stream_pair(ASKER, WITNESS)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ProbeServer(check).serve, far)
        yield near
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("outcome", ProbeOutcome)
async def test_the_witness_says_what_it_found_out(outcome: ProbeOutcome, autojump_clock: trio.abc.Clock) -> None:
    async def check(subject: PeerId) -> ProbeOutcome:
        assert subject == SUBJECT
        return outcome

    async with asked(check) as stream:
        for _ in range(3):  # one stream, several questions
            assert await ask(stream, SUBJECT, 1.0) is outcome


async def test_silence_is_told_before_the_asker_gives_up(autojump_clock: trio.abc.Clock) -> None:
    async with asked(stuck) as stream:
        started = trio.current_time()
        assert await ask(stream, SUBJECT, 1.0) is ProbeOutcome.SILENT
        assert trio.current_time() - started == pytest.approx(WITNESS_SHARE, abs=0.01)


async def test_a_slow_witness_says_nothing_about_the_subject(autojump_clock: trio.abc.Clock) -> None:
    near, far = memory_stream_pair(ASKER, WITNESS)
    started = trio.current_time()
    with pytest.raises(ProbeError, match=r"no answer of the witness within 0\.5 s"):
        await ask(near, SUBJECT, 0.5)
    assert trio.current_time() - started == pytest.approx(0.5)
    with pytest.raises(StreamClosed):
        await far.write(b"late")


BROKEN = {
    "closed": (b"", "without an answer"),
    "not a reply": (encode_frame(b"\xff"), "not a reply"),
    "says nothing": (encode_frame(b""), "without an outcome"),
    "oversized": (b"\x81\x01", "maximum"),
    "cut off": (b"\x05\x08", "inside a frame"),
}


@pytest.mark.parametrize("name", BROKEN)
async def test_a_broken_answer_is_none(name: str, autojump_clock: trio.abc.Clock) -> None:
    sent, reason = BROKEN[name]
    near, far = memory_stream_pair(ASKER, WITNESS)
    await far.write(sent)
    await far.close()
    with pytest.raises(ProbeError, match=reason):
        await ask(near, SUBJECT, 0.5)
    with pytest.raises(StreamClosed):
        await near.read(1)


async def test_an_outcome_of_a_later_release_is_unknown_here() -> None:
    assert Reply.decode(pb.Reply(outcome=pb.Outcome.ValueType(9)).SerializeToString()).outcome is ProbeOutcome.UNKNOWN


async def test_a_cancelled_question_ends_the_stream(autojump_clock: trio.abc.Clock) -> None:
    async with asked(stuck) as stream:
        with trio.move_on_after(0.1):
            await ask(stream, SUBJECT, 5.0)
        with pytest.raises(StreamClosed):
            await stream.write(b"x")


HOSTILE = {
    "not a request": encode_frame(b"\xff\xff"),
    "about nobody": encode_frame(pb.Request(timeout_ms=1).SerializeToString()),
    "for no time": encode_frame(pb.Request(subject=bytes(32)).SerializeToString()),
    "for ever": encode_frame(pb.Request(subject=bytes(32), timeout_ms=10_001).SerializeToString()),
    "oversized": b"\x81\x01",
    "cut off": b"\x09xx",
}


@pytest.mark.parametrize("name", HOSTILE)
async def test_a_question_that_is_none_is_answered_with_a_reset(name: str, autojump_clock: trio.abc.Clock) -> None:
    async def never(subject: PeerId) -> ProbeOutcome:
        raise AssertionError("it was checked")

    async with asked(never) as stream:
        await stream.write(HOSTILE[name])
        await stream.close()
        with pytest.raises(StreamClosed):
            await stream.read(1)


async def test_a_peer_that_asks_without_end_is_cut_off(autojump_clock: trio.abc.Clock) -> None:
    async with asked(alive) as stream:
        for _ in range(int(BURST)):
            await ask(stream, SUBJECT, 1.0)
        with pytest.raises(ProbeError, match="broke off"):
            await ask(stream, SUBJECT, 1.0)


async def test_a_peer_that_asks_as_often_as_a_sound_node_is_not_cut_off(autojump_clock: trio.abc.Clock) -> None:
    async with asked(alive) as stream:
        for _ in range(300):
            await ask(stream, SUBJECT, 1.0)
            await trio.sleep(1.01 / RATE)


async def test_checks_are_bounded_over_all_peers(autojump_clock: trio.abc.Clock) -> None:
    server = ProbeServer(stuck)
    outcomes: list[ProbeOutcome] = []

    async def one(number: int) -> None:
        near, far = memory_stream_pair(PeerId.from_public_key(number.to_bytes(32, "big")), WITNESS)
        far.peer = PeerId.from_public_key(number.to_bytes(32, "big"))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.serve, far)
            outcomes.append(await ask(near, SUBJECT, 2.0))
            nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        for number in range(MAX_CHECKS + 5):
            nursery.start_soon(one, number)
    assert outcomes.count(ProbeOutcome.UNKNOWN) == 5
    assert outcomes.count(ProbeOutcome.SILENT) == MAX_CHECKS
    assert "checking 0" in repr(server)


async def test_a_stream_without_questions_is_given_up(autojump_clock: trio.abc.Clock) -> None:
    near, far = memory_stream_pair(ASKER, WITNESS)
    started = trio.current_time()
    await ProbeServer(alive).serve(far)
    assert trio.current_time() - started == pytest.approx(IDLE_TIMEOUT)
    assert await near.read(1) == b""


async def test_a_check_that_fails_is_our_own_fault_and_resets(autojump_clock: trio.abc.Clock) -> None:
    async def broken(subject: PeerId) -> ProbeOutcome:
        raise RuntimeError("a bug")

    near, far = memory_stream_pair(ASKER, WITNESS)
    await near.write(encode_frame(Request(SUBJECT, 100).encode()))
    with pytest.raises(RuntimeError, match="a bug"):
        await ProbeServer(broken).serve(far)
    with pytest.raises(StreamClosed):
        await FrameReader(near, MAX_FRAME).read()
