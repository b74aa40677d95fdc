"""The muxer over an in-memory connection: frames in, frames out, and what ends the connection."""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from libp2p.peer.id import ID
from libp2p.stream_muxer.exceptions import MuxedStreamEOF, MuxedStreamError, MuxedStreamReset

from transports.libp2p import yamux
from transports.libp2p.muxed_stream import MuxedStream
from transports.libp2p.yamux import Yamux
from transports.libp2p.yamux_frames import INITIAL_WINDOW, MAX_WINDOW

HEADER = struct.Struct("!BBHII")
DATA, WINDOW, PING, GO_AWAY = range(4)
SYN, ACK, FIN, RST = 1, 2, 4, 8


class MemoryConnection:
    """The secured connection under the muxer; the test plays the peer."""

    is_initiator = False

    def __init__(self) -> None:
        self._send, self._receive = trio.open_memory_channel[bytes](1000)
        self.sent = b""
        self.closed = False
        self.opened: list[MuxedStream] = []

    async def stream(self) -> MuxedStream:
        """The next stream that the muxer has taken."""
        await trio.testing.wait_all_tasks_blocked()
        return self.opened.pop(0)

    def feed(self, kind: int, flags: int, stream: int, length: int, payload: bytes = b"", version: int = 0) -> None:
        self._send.send_nowait(HEADER.pack(version, kind, flags, stream, length) + payload)

    async def read(self, n: int | None = None) -> bytes:
        try:
            return await self._receive.receive()
        except (trio.EndOfChannel, trio.ClosedResourceError):
            raise ConnectionError("closed") from None

    async def write(self, data: bytes) -> None:
        await trio.lowlevel.checkpoint()
        self.sent += data

    async def close(self) -> None:
        self.closed = True
        self._send.close()
        self._receive.close()

    def get_remote_address(self) -> None: ...

    def frames(self) -> list[tuple[int, int, int, int, bytes]]:
        """What the muxer sent since the last call: (type, flags, stream, length, payload)."""
        found, offset = [], 0
        while offset < len(self.sent):
            _, kind, flags, stream, length = HEADER.unpack_from(self.sent, offset)
            offset += HEADER.size
            payload = self.sent[offset : offset + length] if kind == DATA else b""
            offset += len(payload)
            found.append((kind, flags, stream, length, payload))
        self.sent = b""
        return found


@asynccontextmanager
async def muxer(limit: int = 8) -> AsyncIterator[tuple[Yamux, Any]]:
    connection = MemoryConnection()
    mux = Yamux(connection, ID(b"peer"))  # type: ignore[arg-type]
    mux.inbound_limit = lambda: limit
    mux.on_stream = connection.opened.append
    async with trio.open_nursery() as nursery:
        nursery.start_soon(mux.start)
        await mux.event_started.wait()
        yield mux, connection
        await mux.close()


async def settle() -> None:
    await trio.testing.wait_all_tasks_blocked()


async def test_a_stream_from_the_peer(autojump_clock: trio.abc.Clock) -> None:
    async with muxer() as (mux, peer):
        peer.feed(DATA, SYN, 1, 5, b"hello")
        stream = await peer.stream()
        assert await stream.read(3) == b"hel"
        assert await stream.read(100) == b"lo"
        await stream.write(b"answer")
        peer.feed(WINDOW, FIN, 1, 0)
        with pytest.raises(MuxedStreamEOF):
            await stream.read(1)
        await stream.close()
        await settle()
        assert peer.frames() == [
            (WINDOW, ACK, 1, 0, b""),
            (DATA, 0, 1, 6, b"answer"),
            (WINDOW, FIN, 1, 0, b""),
        ]
        assert mux.streams == {}
        assert mux.inbound_count == 0


async def test_a_frame_in_pieces_and_two_in_one(autojump_clock: trio.abc.Clock) -> None:
    async with muxer() as (_, peer):
        frame = HEADER.pack(0, DATA, SYN, 1, 4) + b"abcd" + HEADER.pack(0, DATA, FIN, 1, 2) + b"ef"
        for byte in frame:
            peer._send.send_nowait(bytes([byte]))
        stream = await peer.stream()
        await settle()
        assert await stream.read() == b"abcdef"


async def test_credit_comes_by_half_windows_and_a_bulk_stream_gets_more(autojump_clock: trio.abc.Clock) -> None:
    async with muxer() as (_, peer):
        peer.feed(WINDOW, SYN, 1, 0)
        stream = await peer.stream()
        half = INITIAL_WINDOW // 2
        peer.feed(DATA, 0, 1, half - 1, bytes(half - 1))
        await settle()
        await stream.read()
        await settle()
        assert peer.frames() == [(WINDOW, ACK, 1, 0, b"")]
        peer.feed(DATA, 0, 1, 1, b"x")
        await settle()
        await stream.read()
        await settle()
        assert peer.frames() == [(WINDOW, 0, 1, MAX_WINDOW - half, b"")]


async def test_a_consumer_gets_what_comes_and_the_peer_may_go_on(autojump_clock: trio.abc.Clock) -> None:
    async with muxer() as (mux, peer):
        peer.feed(DATA, SYN, 1, 5, b"early")
        stream = await peer.stream()
        taken: list[bytes] = []
        stream.consume(taken.append)
        for _ in range(2):
            peer.feed(DATA, 0, 1, INITIAL_WINDOW // 2 - 5, bytes(INITIAL_WINDOW // 2 - 5))
        await settle()
        assert [len(payload) for payload in taken] == [5, INITIAL_WINDOW // 2 - 5, INITIAL_WINDOW // 2 - 5]
        assert (WINDOW, 0, 1, MAX_WINDOW - INITIAL_WINDOW // 2, b"") in peer.frames()
        peer.feed(WINDOW, FIN, 1, 0)
        await settle()
        assert peer.frames() == [(WINDOW, FIN, 1, 0, b"")]
        assert mux.streams == {}


@pytest.mark.logs_errors
async def test_a_consumer_that_fails_resets_its_stream_alone(
    autojump_clock: trio.abc.Clock, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(payload: bytes) -> None:
        raise ValueError(payload)

    async with muxer() as (mux, peer):
        peer.feed(DATA, SYN, 1, 3, b"one")
        (await peer.stream()).consume(fail)
        await settle()
        assert peer.frames()[-1] == (WINDOW, RST, 1, 0, b"")
        assert mux.close_reason is None
        assert "could not be handled" in caplog.text


async def test_a_writer_stops_at_the_window_and_goes_on_with_credit(autojump_clock: trio.abc.Clock) -> None:
    async with muxer() as (mux, peer):
        stream = await mux.open_stream()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.write, bytes(INITIAL_WINDOW + 10))
            await settle()
            assert sum(frame[3] for frame in peer.frames() if frame[0] == DATA) == INITIAL_WINDOW
            await trio.sleep(3600)  # however long it takes: no polling, no giving up
            peer.feed(WINDOW, 0, 2, 100)
        await settle()
        assert [frame[3] for frame in peer.frames()] == [10]


async def test_frames_are_whole_and_in_order_when_writers_are_cancelled(autojump_clock: trio.abc.Clock) -> None:
    async with muxer() as (mux, peer):
        stream = await mux.open_stream()
        for number in range(50):
            with trio.CancelScope() as scope:
                scope.cancel()
                await stream.write(b"%02d" % number)
        await settle()
        written = [frame[4] for frame in peer.frames() if frame[0] == DATA]
        assert written == [b"%02d" % number for number in range(50)]


async def test_streams_beyond_the_limit_are_reset(autojump_clock: trio.abc.Clock) -> None:
    async with muxer(limit=2) as (mux, peer):
        for number in (1, 3, 5):
            peer.feed(WINDOW, SYN, number, 0)
        await settle()
        assert peer.frames()[-1] == (WINDOW, RST, 5, 0, b"")
        assert mux.refused_streams == 1
        await (await peer.stream()).reset()
        peer.feed(WINDOW, SYN, 7, 0)
        await settle()
        assert set(mux.streams) == {3, 7}


async def test_a_reset_wakes_the_reader(autojump_clock: trio.abc.Clock) -> None:
    async with muxer() as (mux, peer):
        stream = await mux.open_stream()
        peer.feed(WINDOW, RST, 2, 0)
        with pytest.raises(MuxedStreamReset, match="the peer reset"):
            await stream.read(1)
        with pytest.raises(MuxedStreamReset):
            await stream.write(b"x")


async def test_a_ping_is_answered(autojump_clock: trio.abc.Clock) -> None:
    async with muxer() as (_, peer):
        peer.feed(PING, SYN, 0, 77)
        await settle()
        assert peer.frames() == [(PING, ACK, 0, 77, b"")]


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        ({"kind": DATA, "flags": SYN, "stream": 1, "length": 0xFFFFFFFF}, "largest window"),
        ({"kind": 9, "flags": 0, "stream": 0, "length": 0}, "type 9"),
        ({"kind": DATA, "flags": SYN, "stream": 1, "length": 0, "version": 1}, "version 1"),
        ({"kind": WINDOW, "flags": SYN, "stream": 2, "length": 0}, "not free"),
        ({"kind": WINDOW, "flags": SYN, "stream": 0, "length": 0}, "not free"),
        ({"kind": DATA, "flags": SYN, "stream": 1, "length": 300_000, "payload": bytes(300_000)}, "in a window of"),
        ({"kind": GO_AWAY, "flags": 0, "stream": 0, "length": 0}, "went away"),
    ],
)
async def test_what_breaks_the_protocol_ends_the_connection(
    frame: dict[str, Any], reason: str, autojump_clock: trio.abc.Clock
) -> None:
    async with muxer() as (mux, peer):
        stream = await mux.open_stream()
        peer.feed(**frame)
        with pytest.raises(MuxedStreamError, match="the connection has ended"):
            await stream.read(1)
        await mux.event_closed.wait()
        assert reason in (mux.close_reason or "")
        assert peer.closed
        with pytest.raises(MuxedStreamError):
            await mux.open_stream()


@pytest.mark.parametrize(("code", "released"), [(0, False), (1, False), (0x1005, True), (0x1006, False)])
async def test_a_connection_that_was_let_go_of_is_told_from_one_that_ended(
    code: int, released: bool, autojump_clock: trio.abc.Clock
) -> None:
    async with muxer() as (mux, peer):
        peer.feed(GO_AWAY, 0, 0, code)
        await mux.event_closed.wait()
        assert mux.released is released


async def test_frames_for_unknown_streams_are_dropped(autojump_clock: trio.abc.Clock) -> None:
    async with muxer() as (mux, peer):
        peer.feed(DATA, 0, 41, 3, b"abc")
        peer.feed(WINDOW, RST, 43, 0)
        await settle()
        assert mux.close_reason is None


async def test_a_peer_that_asks_and_does_not_read_is_dropped(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.abc.Clock
) -> None:
    monkeypatch.setattr(yamux, "OUTBOX_LIMIT", 1000)
    async with muxer() as (mux, peer):

        async def stuck(data: bytes) -> None:
            await trio.sleep_forever()

        peer.write = stuck
        for number in range(200):
            peer.feed(PING, SYN, 0, number)
        await mux.event_closed.wait()
        assert "does not read" in (mux.close_reason or "")


async def test_a_peer_that_takes_nothing_is_dropped_after_a_while(autojump_clock: trio.abc.Clock) -> None:
    async with muxer() as (mux, peer):

        async def stuck(data: bytes) -> None:
            await trio.sleep_forever()

        peer.write = stuck
        started = trio.current_time()
        await mux.open_stream()
        await mux.event_closed.wait()
        assert trio.current_time() - started == pytest.approx(yamux.STALL_TIMEOUT)
        assert "took no bytes" in (mux.close_reason or "")
