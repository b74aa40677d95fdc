"""Frames on a stream: whatever way the bytes are cut, and whatever the sender claims."""

from __future__ import annotations

import itertools

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from protocols.framing import FrameDecoder, FrameError, FrameReader, encode_frame, encode_frames
from transports.peer_id import PeerId
from transports.stream import MemoryStream, StreamClosed, memory_stream_pair
from transports.varint import encode_varint

MAX = 1000


def pair() -> tuple[MemoryStream, MemoryStream]:
    return memory_stream_pair(PeerId.from_public_key(b"a" * 32), PeerId.from_public_key(b"b" * 32))


def cut(data: bytes, places: list[int]) -> list[bytes]:
    borders = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(borders)]


def decode(chunks: list[bytes], max_frame: int = MAX) -> tuple[list[bytes], str | None]:
    """Everything a decoder says about *chunks* and their end: payloads, then the reason it refused, if it did."""
    decoder = FrameDecoder(max_frame)
    frames: list[bytes] = []
    try:
        for chunk in chunks:
            frames += decoder.feed(chunk)
        decoder.end()
    except FrameError as error:
        return frames, error.reason
    return frames, None


@given(st.lists(st.binary(max_size=400)), st.lists(st.integers(min_value=0), max_size=12))
def test_frames_come_out_as_they_went_in_however_they_are_cut(payloads: list[bytes], places: list[int]) -> None:
    assert decode(cut(encode_frames(payloads), places)) == (payloads, None)


@given(st.binary(max_size=300), st.lists(st.integers(min_value=0), max_size=12))
def test_arbitrary_bytes_give_the_same_answer_however_they_are_cut(data: bytes, places: list[int]) -> None:
    assert decode(cut(data, places), 100) == decode([data], 100)


@given(st.integers(min_value=0, max_value=2**64 - 1))
def test_lengths_are_in_their_shortest_form(length: int) -> None:
    encoded = encode_varint(length)
    assert len(encoded) == max(1, -(-length.bit_length() // 7))
    assert sum((byte & 127) << 7 * i for i, byte in enumerate(encoded)) == length


def test_encode_frame_is_the_libp2p_convention() -> None:
    assert encode_frame(b"") == b"\x00"
    assert encode_frame(b"abc") == b"\x03abc"
    assert encode_frame(b"x" * 300) == b"\xac\x02" + b"x" * 300


MALFORMED = [
    pytest.param(b"\xe9\x07", "maximum", id="one byte over the maximum"),
    pytest.param(b"\xff\xff\xff\xff\xff\xff\xff\xff\x7f", "maximum", id="an absurd length"),
    pytest.param(b"\x80" * 10, "more than 10 bytes", id="a length that does not end"),
    pytest.param(b"\x81\x00x", "shortest form", id="a length with a needless byte"),
    pytest.param(b"\x80\x00", "shortest form", id="zero in two bytes"),
    pytest.param(b"\x05abc", "ended inside a frame", id="a truncated payload"),
    pytest.param(b"\xac", "ended inside a frame", id="a truncated length"),
]


@pytest.mark.parametrize(("data", "reason"), MALFORMED)
def test_a_violation_is_named_after_the_good_frames_before_it(data: bytes, reason: str) -> None:
    frames, error = decode([encode_frames([b"good", b""]) + data])
    assert frames == [b"good", b""]
    assert error is not None
    assert reason in error


def test_a_broken_decoder_stays_broken() -> None:
    decoder = FrameDecoder(MAX)
    with pytest.raises(FrameError):
        decoder.feed(b"\x81\x00")
    with pytest.raises(FrameError):
        decoder.feed(encode_frame(b"good"))
    assert decoder.pending == 0


def test_memory_follows_what_arrived_not_what_was_claimed() -> None:
    decoder = FrameDecoder(1 << 30)
    decoder.feed(encode_varint(1 << 30) + b"only this")
    assert decoder._rest.__sizeof__() < 200


async def test_reader_gives_many_frames_of_one_read_and_then_the_end(autojump_clock: trio.abc.Clock) -> None:
    near, far = pair()
    await far.write(encode_frames([b"%d" % i for i in range(100)]))
    await far.close()
    reader = FrameReader(near, MAX)
    assert [await reader.read() for _ in range(100)] == [b"%d" % i for i in range(100)]
    assert await reader.read() is None


async def test_buffered_frames_leave_others_their_turn_and_can_be_cancelled(autojump_clock: trio.abc.Clock) -> None:
    near, far = pair()
    await far.write(encode_frames([b"x"] * 100))
    reader = FrameReader(near, MAX)
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(other)
        for _ in range(100):
            assert await reader.read() == b"x"
        nursery.cancel_scope.cancel()
    assert turns >= 5

    await far.write(encode_frames([b"1", b"2"]))
    assert await reader.read() == b"1"
    with trio.CancelScope() as scope:
        scope.cancel()
        await reader.read()
    assert scope.cancelled_caught
    assert await reader.read() == b"2"


async def test_a_begun_frame_must_end_in_time_but_none_need_begin(autojump_clock: trio.abc.Clock) -> None:
    near, far = pair()
    reader = FrameReader(near, MAX, frame_timeout=5)

    async def drip() -> None:
        await trio.sleep(100)
        await far.write(encode_frame(b"whole"))
        for byte in encode_frame(b"slow enough to be an attack"):
            await trio.sleep(1)
            await far.write(bytes((byte,)))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(drip)
        assert await reader.read() == b"whole"
        with pytest.raises(FrameError, match="not ended within 5 s"):
            await reader.read()
        nursery.cancel_scope.cancel()


async def test_the_clock_of_a_frame_starts_with_that_frame(autojump_clock: trio.abc.Clock) -> None:
    near, far = pair()
    reader = FrameReader(near, MAX, frame_timeout=5)
    stream = encode_frames([b"abcd"] * 10)

    async def write() -> None:
        for i in range(0, len(stream), 3):  # every read ends inside a frame, no frame takes more than 5 s
            await far.write(stream[i : i + 3])
            await trio.sleep(2)
        await far.close()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(write)
        assert [await reader.read() for _ in range(11)] == [b"abcd"] * 10 + [None]


async def test_a_violation_is_raised_without_waiting_for_more(autojump_clock: trio.abc.Clock) -> None:
    near, far = pair()
    await far.write(encode_frame(b"good") + b"\x81\x00")
    reader = FrameReader(near, MAX)
    assert await reader.read() == b"good"
    with trio.fail_after(1), pytest.raises(FrameError, match="shortest form"):
        await reader.read()


async def test_a_reset_is_not_an_end(autojump_clock: trio.abc.Clock) -> None:
    near, far = pair()
    reader = FrameReader(near, MAX)
    await far.reset()
    with pytest.raises(StreamClosed):
        await reader.read()
