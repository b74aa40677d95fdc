"""Join over memory streams: one question, one answer, and a stranger that misbehaves costs nothing."""

from __future__ import annotations

from contextlib import suppress
from functools import partial

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from protocols.framing import encode_frame
from protocols.join import join_pb2 as pb
from protocols.join.client import ask
from protocols.join.messages import (
    MAX_FRAME,
    MAX_MESSAGE_BYTES,
    Enrol,
    Enrolled,
    JoinError,
    Pending,
    Refused,
    Renew,
    Reply,
    Request,
    decode_reply,
    decode_request,
    encode_reply,
    encode_request,
)
from protocols.join.server import TIMEOUT_S, serve_join
from transports.peer_id import PeerId
from transports.rates import TokenBuckets
from transports.stream import MemoryStream, StreamClosed, memory_stream_pair
from transports.varint import encode_varint

A, B = PeerId.from_public_key(bytes(32)), PeerId.from_public_key(bytes([1]) * 32)
ENROL = Enrol(b"invite", "laptop")


def now() -> float:
    return 1_800_000_000.5


async def grant(peer: PeerId, request: Request) -> Reply:
    await trio.lowlevel.checkpoint()
    what = request.invite if isinstance(request, Enrol) else request.chain
    return Reply(Enrolled(what + peer.raw, "home", b"inviter"), 5)


async def never(peer: PeerId, request: Request) -> Reply:
    raise AssertionError(f"asked to judge {request}")


@given(st.one_of(
    st.builds(Enrol, st.binary(max_size=600), st.text("aäß ", max_size=32)), st.builds(Renew, st.binary(max_size=2000))
))
def test_request_round_trip(request: Request) -> None:
    assert decode_request(encode_request(request)) == request


@given(st.builds(Reply, st.one_of(
    st.builds(Enrolled, st.binary(max_size=700), st.text("abc", max_size=32), st.binary(max_size=700)),
    st.builds(Pending, st.integers(0, 2**63)),
    st.builds(
        Refused, st.text("abc", min_size=1, max_size=20), st.text("abc ", max_size=500), st.integers(0, 2**63)
    ),
), st.integers(0, 2**63)))
def test_reply_round_trip(reply: Reply) -> None:
    assert decode_reply(encode_reply(reply)) == reply


@given(st.binary(max_size=100))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    for decode in (decode_request, decode_reply):
        with suppress(JoinError):
            decode(data)


@pytest.mark.parametrize(("payload", "words"), [
    (b"", "version 0"), (b"\xff", "damaged"), (pb.Request(version=2).SerializeToString(), "version 2"),
    (pb.Request(version=1).SerializeToString(), "asks for nothing"),
    (pb.Request(version=1, enrol=pb.Enrol(name="x" * 65)).SerializeToString(), "64 bytes"),
    (b"x" * (MAX_FRAME + 1), "maximum"),
])
def test_requests_that_are_refused(payload: bytes, words: str) -> None:
    with pytest.raises(JoinError, match=words):
        decode_request(payload)


def test_a_long_explanation_is_cut_between_characters() -> None:
    outcome = decode_reply(encode_reply(Reply(Refused("x", "ä" * 400), 1))).outcome
    assert outcome == Refused("x", "ä" * (MAX_MESSAGE_BYTES // 2))


@pytest.mark.parametrize("request_", [ENROL, Renew(b"chain")])
async def test_the_judge_knows_who_asks(autojump_clock: trio.testing.MockClock, request_: Request) -> None:
    mine, theirs = memory_stream_pair(A, B)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve_join, theirs, grant, now)
        reply = await ask(mine, request_)
    assert isinstance(reply.outcome, Enrolled)
    assert reply.outcome.chain.endswith(A.raw)
    assert reply.time_ms == 5


async def reset_or_reply(stream: MemoryStream) -> Reply | None:
    """What a peer that speaks raw bytes hears in the end; None: a reset or an end without a word."""
    heard = b""
    try:
        while data := await stream.read(4096):
            heard += data
    except StreamClosed:
        return None
    return decode_reply(heard[2 if len(heard) > 129 else 1 :]) if heard else None


@pytest.mark.parametrize(("sent", "closes", "told"), [
    (encode_varint(MAX_FRAME + 1), False, False),
    (b"\xff" * 11, False, False),
    (b"\x80\x00", False, False),
    (encode_frame(b"x" * 50)[:20], True, False),
    (b"", True, False),
    (encode_frame(b"\xff\xff"), True, True),
    (encode_frame(pb.Request(version=7).SerializeToString()), True, True),
])
async def test_a_stranger_that_breaks_the_rules(
    autojump_clock: trio.testing.MockClock, sent: bytes, closes: bool, told: bool
) -> None:
    mine, theirs = memory_stream_pair(A, B)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve_join, theirs, never, now)
        await mine.write(sent)
        if closes:
            await mine.close()
        reply = await reset_or_reply(mine)
    assert trio.current_time() < TIMEOUT_S, "refused at once, not by the deadline"
    if told:
        assert reply is not None
        assert isinstance(reply.outcome, Refused)
        assert reply.outcome.code == "malformed"
        assert reply.time_ms == 1_800_000_000_500
    else:
        assert reply is None


async def test_a_flood_is_told_when_to_ask_again_and_costs_no_check(autojump_clock: trio.testing.MockClock) -> None:
    """Five at once and one each five seconds; whoever waits as told is judged."""
    rates: TokenBuckets[PeerId] = TokenBuckets(0.2, 5, 100)
    judged = []

    async def count(peer: PeerId, request: Request) -> Reply:
        judged.append(peer)
        return await grant(peer, request)

    async def once() -> Reply:
        mine, theirs = memory_stream_pair(A, B)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(
                partial(serve_join, admit=lambda peer: rates.take(peer, trio.current_time())),
                theirs, count, now,
            )
            return await ask(mine, ENROL)

    outcomes = [(await once()).outcome for _ in range(50)]
    assert judged == [A] * 5
    refused = outcomes[-1]
    assert isinstance(refused, Refused)
    assert refused == Refused("rate_limited", refused.message, 5000)
    assert "ask again in 5 s" in refused.message
    await trio.sleep(refused.retry_after_ms / 1000)
    assert isinstance((await once()).outcome, Enrolled)


async def test_a_slow_stranger_is_dropped_at_the_deadline(autojump_clock: trio.testing.MockClock) -> None:
    mine, theirs = memory_stream_pair(A, B)
    start = trio.current_time()
    await mine.write(encode_frame(encode_request(ENROL))[:3])
    await serve_join(theirs, never, now)
    assert trio.current_time() - start == pytest.approx(TIMEOUT_S)
    assert await reset_or_reply(mine) is None


async def test_a_second_request_is_not_looked_at(autojump_clock: trio.testing.MockClock) -> None:
    asked = []

    async def count(peer: PeerId, request: Request) -> Reply:
        asked.append(request)
        return await grant(peer, request)

    mine, theirs = memory_stream_pair(A, B)
    await mine.write(encode_frame(encode_request(ENROL)) * 3)
    await serve_join(theirs, count, now)
    assert asked == [ENROL]


async def test_a_judge_that_raises_leaves_no_open_stream(autojump_clock: trio.testing.MockClock) -> None:
    async def broken(peer: PeerId, request: Request) -> Reply:
        raise OSError("disk full")

    mine, theirs = memory_stream_pair(A, B)
    await mine.write(encode_frame(encode_request(ENROL)))
    with pytest.raises(OSError, match="disk full"):
        await serve_join(theirs, broken, now)
    assert await reset_or_reply(mine) is None


@pytest.mark.parametrize(("answer", "words"), [
    (b"", "without an answer"), (encode_frame(b"\xff"), "damaged"), (encode_varint(MAX_FRAME + 1), "maximum"),
    (encode_frame(b"x" * 9)[:5], "broke off"),
    (encode_frame(pb.Reply(version=1).SerializeToString()), "says nothing"),
])
async def test_an_answer_that_cannot_be_used(
    autojump_clock: trio.testing.MockClock, answer: bytes, words: str
) -> None:
    mine, theirs = memory_stream_pair(A, B)
    await theirs.write(answer)
    await theirs.close()
    with pytest.raises(JoinError, match=words):
        await ask(mine, ENROL)


async def test_no_answer_ends_at_the_deadline(autojump_clock: trio.testing.MockClock) -> None:
    mine, theirs = memory_stream_pair(A, B)
    with pytest.raises(JoinError, match="no answer within 10 s"):
        await ask(mine, ENROL)
    with pytest.raises(StreamClosed):
        await theirs.read(1)
