"""The greeting and the exchange of ``/atmosphere/sync/1``, over memory streams under virtual time."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio

from protocols.framing import encode_frame
from protocols.sync import sync_pb2 as pb
from protocols.sync.messages import (
    HELLO_TIMEOUT,
    MAX_HELLO_BYTES,
    MAX_KEYS,
    RECORDS_FRAME_BYTES,
    Ask,
    Hello,
    Key,
    Kind,
    Known,
    Overview,
    Record,
    Refused,
    SyncError,
)
from protocols.sync.session import open_session, serve_session
from transports.peer_id import PeerId
from transports.stream import MemoryStream, memory_stream_pair

A, B = PeerId.from_public_key(bytes(32)), PeerId.from_public_key(bytes([1]) * 32)
HELLO = Hello(mesh=bytes(32), membership=b"chain", trust=bytes(32), agent="test", now_ms=1)
DIGEST = bytes([7]) * 32


class Shelf:
    """A Source with what a test puts in."""

    def __init__(self, records: dict[Key, bytes] | None = None, known: list[Known] | None = None) -> None:
        self.shelf = records or {}
        self.known = known or []
        self.asked: list[tuple[PeerId, Ask]] = []

    def overview(self, peer: PeerId, ask: Ask) -> Overview:
        self.asked.append((peer, ask))
        return Overview([Key(Kind.REVOCATION, DIGEST)], self.known)

    def records(self, keys):  # type: ignore[no-untyped-def]
        return [Record(key.kind, self.shelf[key]) for key in keys if key in self.shelf]


def let_in(peer: PeerId, hello: Hello) -> None:
    assert hello.membership == b"chain"


def shut_out(peer: PeerId, hello: Hello) -> None:
    raise Refused("foreign_mesh", "another mesh")


async def serve(stream: MemoryStream, judge: Callable[[PeerId, Hello], None], shelf: Shelf, log: list[str]) -> None:
    def logged(peer: PeerId, hello: Hello) -> None:
        judge(peer, hello)
        log.append("server admits")

    try:
        await serve_session(stream, lambda: HELLO, logged, lambda peer: log.append("server ready"), shelf)
    except Refused as refusal:
        log.append(f"server refused {refusal.code}")
    except SyncError as error:
        log.append(f"server error {error}")


async def test_both_sides_have_admitted_each_other_before_either_is_used(autojump_clock: trio.abc.Clock) -> None:
    left, right = memory_stream_pair(A, B)
    log: list[str] = []

    def admit(peer: PeerId, hello: Hello) -> None:
        assert peer == B
        log.append("opener admits")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve, right, let_in, Shelf(), log)
        session = await open_session(left, HELLO, admit)
        await session.overview()
        assert log == ["server admits", "opener admits", "server ready"]
        await session.aclose()


async def test_a_stranger_gets_a_reason_and_no_more(autojump_clock: trio.abc.Clock) -> None:
    left, right = memory_stream_pair(A, B)
    log: list[str] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve, right, shut_out, Shelf(), log)
        with pytest.raises(Refused) as refused:
            await open_session(left, HELLO, let_in)
    assert refused.value.code == "foreign_mesh"
    assert log == ["server refused foreign_mesh"]
    assert await left.read(100) == b""  # nothing else came over


async def test_the_opener_may_refuse_too_and_says_why(autojump_clock: trio.abc.Clock) -> None:
    left, right = memory_stream_pair(A, B)
    log: list[str] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve, right, let_in, Shelf(), log)
        with pytest.raises(Refused):
            await open_session(left, HELLO, shut_out)
    assert log == ["server admits", "server refused foreign_mesh"]


async def test_overview_and_records_arrive_whole_in_many_frames(autojump_clock: trio.abc.Clock) -> None:
    left, right = memory_stream_pair(A, B)
    shelf = Shelf(
        {Key(Kind.CARD, bytes([n]) * 32): bytes([n]) * (RECORDS_FRAME_BYTES // 3) for n in range(10)},
        [Known(bytes([n % 256]) * 32, 1, n + 1) for n in range(9000)],
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve, right, let_in, shelf, [])
        session = await open_session(left, HELLO, let_in)
        overview = await session.overview()
        assert list(overview.known) == shelf.known
        assert list(overview.trust) == [Key(Kind.REVOCATION, DIGEST)]
        unknown = Key(Kind.OFFER, bytes(32))
        records = await session.fetch([unknown, *shelf.shelf])
        assert [record.body for record in records] == list(shelf.shelf.values())  # the unknown one is left out
        await session.aclose()


def _ask_before_hello() -> bytes:
    return encode_frame(pb.Frame(ask=pb.Ask()).SerializeToString())


HOSTILE = {
    "no protobuf": (encode_frame(b"\xff\xff\xff"), "not protobuf"),
    "a request before hello": (_ask_before_hello(), "ask where hello was due"),
    "a hello larger than the limit": (encode_frame(bytes(MAX_HELLO_BYTES + 1)), "announced"),
    "an empty frame": (encode_frame(b""), "an unknown message where hello was due"),
    "a truncated frame": (b"\x20abc", "ended inside a frame"),
    "another version": (
        encode_frame(pb.Frame(hello=pb.Hello(version=9)).SerializeToString()),
        "server refused version",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
async def test_hostile_greetings_are_refused_with_a_reason(name: str, autojump_clock: trio.abc.Clock) -> None:
    sent, reason = HOSTILE[name]
    left, right = memory_stream_pair(A, B)
    log: list[str] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve, right, let_in, Shelf(), log)
        await left.write(sent)
        await left.close()
    assert len(log) == 1
    assert reason in log[0]


async def test_a_silent_peer_is_given_up_at_the_deadline(autojump_clock: trio.abc.Clock) -> None:
    _left, right = memory_stream_pair(A, B)
    log: list[str] = []
    started = trio.current_time()
    await serve(right, let_in, Shelf(), log)
    assert trio.current_time() - started == pytest.approx(HELLO_TIMEOUT)
    assert "did not answer within 10 s" in log[0]


async def test_more_keys_than_allowed_end_the_session(autojump_clock: trio.abc.Clock) -> None:
    left, right = memory_stream_pair(A, B)
    log: list[str] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve, right, let_in, Shelf(), log)
        session = await open_session(left, HELLO, let_in)
        with pytest.raises(ValueError, match="512 are allowed"):
            await session.fetch([Key(Kind.CARD, bytes(32))] * (MAX_KEYS + 1))
        keys = [pb.Key(kind=5, key=bytes(32))] * (MAX_KEYS + 1)
        await left.write(encode_frame(pb.Frame(want=pb.Want(keys=keys)).SerializeToString()))
    assert log[-1] == f"server error {MAX_KEYS + 1} keys in one request, {MAX_KEYS} are allowed"


async def test_records_that_nobody_asked_for_are_an_error(autojump_clock: trio.abc.Clock) -> None:
    left, right = memory_stream_pair(A, B)

    class Generous(Shelf):
        def records(self, keys):  # type: ignore[no-untyped-def]
            return [Record(Kind.CARD, b"x")] * (len(keys) + 1)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve, right, let_in, Generous(), [])
        session = await open_session(left, HELLO, let_in)
        with pytest.raises(SyncError, match="more records than were asked for"):
            await session.fetch([Key(Kind.CARD, bytes(32))])
        nursery.cancel_scope.cancel()


async def test_a_question_is_passed_on_and_impossible_digests_end_the_session(autojump_clock: trio.abc.Clock) -> None:
    left, right = memory_stream_pair(A, B)
    shelf = Shelf()
    log: list[str] = []
    ask = Ask(nodes=bytes([1]) * 16, trust=bytes([2]) * 8, answering=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve, right, let_in, shelf, log)
        session = await open_session(left, HELLO, let_in)
        await session.overview(ask)
        assert shelf.asked == [(A, ask)]
        await left.write(encode_frame(pb.Frame(ask=pb.Ask(nodes=bytes(24))).SerializeToString()))
    assert log[-1].startswith("server error digests of 24 bytes")
    assert len(shelf.asked) == 1
