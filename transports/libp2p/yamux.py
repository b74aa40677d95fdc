"""Yamux 1.0.0 with one reader task, one writer task and no locks, behind the library's muxer interface.

Why the library's own (stream_muxer/yamux) is replaced and not touched up; all seen in 0.8.1:

- a cancel inside a frame write breaks the connection (bug I: 3 of 12 runs of 50 cancelled opens). Here callers only
  append to an outbox, in one step; the writer task is cancelled with the connection and never alone;
- a stream waiting for window polls every 10 ms and gives up with an error after 5 s;
- a peer that ignores the receive window is answered with a log line: memory without bound;
- inbound streams have no limit but the accept queue, which stops the reader of the whole connection;
- several lock acquisitions (a trip through the scheduler each) and 12-byte reads per frame.

Together with noise.py and multistream.py, two processes, loopback TCP, same machine and minute, against the bare
library: 200 B there and back p50 0.2 ms against 0.73 ms, opening a stream 0.4 against 2.3, connecting 5 against 251.

Delete when the library's muxer passes tests/transports/test_yamux.py and the stream benchmark.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable
from typing import Any

import trio
from libp2p.abc import IMuxedConn, ISecureConn
from libp2p.connection_types import ConnectionType
from libp2p.io.exceptions import ConnectionClosedError
from libp2p.peer.id import ID
from libp2p.stream_muxer.exceptions import MuxedStreamError
from multiaddr import Multiaddr

from transports.libp2p.muxed_stream import OUTBOX_HIGH, MuxedStream
from transports.libp2p.yamux_frames import (
    ACK,
    DATA,
    FIN,
    GARBAGE_COLLECTED,
    GO_AWAY,
    HEADER,
    HEADER_SIZE,
    MAX_WINDOW,
    NORMAL_TERMINATION,
    PING,
    RST,
    SYN,
    WINDOW_UPDATE,
    ProtocolViolation,
)

logger = logging.getLogger(__name__)

OUTBOX_LIMIT = 4 * 1024 * 1024
"""Unsent bytes beyond which the connection is dropped. Writers wait long before, so only replies that a peer provokes
and does not read (pings, resets) can reach it."""

STALL_TIMEOUT = 30.0
"""Seconds that the socket may refuse our bytes before the peer counts as gone."""

FLUSH_TIMEOUT = 1.0
"""Seconds that a closing connection waits for its last frames to leave."""

MAX_OUTBOUND_STREAMS = 1024
"""Streams that we hold open to one peer; calls share a few, so a thousand is a leak."""

MAX_SERVED = 512
"""Inbound streams being served; above every inbound limit, so only a peer that resets what it opens reaches it."""


class Yamux(IMuxedConn):
    """A connection carrying streams. :meth:`start` runs it and returns when it has ended, never raising."""

    on_close: Callable[[], Awaitable[Any]] | None
    inbound_limit: Callable[[], int]
    """How many inbound streams may be open now; beyond it they are reset. Set by the connection."""
    trusted = False
    """Whether the peer is admitted: the two limits that follow are for others. Set by the connection, as they are."""
    byte_limit: float = math.inf
    """How many bytes may have come by now; beyond it the connection ends."""
    stream_limit: float = math.inf
    """How many streams the peer may have opened by now, in the same way."""
    released = False
    """Whether the connection has ended because one side had too many and this one was idle."""
    on_stream: Callable[[MuxedStream], None]
    """Called with each stream that the peer opens, in the step in which it comes. Set by the connection."""

    def __init__(self, conn: ISecureConn, peer_id: ID) -> None:
        self.secured_conn = conn
        self.peer_id = peer_id
        self.event_started = trio.Event()
        self.event_closed = trio.Event()
        self.on_close = None
        self.inbound_limit = lambda: 0
        self.on_stream = lambda stream: stream.abort()
        self.received = 0
        self.heard_at = -math.inf
        self.accepted = 0
        self.streams: dict[int, MuxedStream] = {}
        self.inbound_count = 0
        self.refused_streams = 0
        self.close_reason: str | None = None
        self._next_id = 1 if conn.is_initiator else 2
        self._outbox: list[bytes] = []
        self.outbox_size = 0
        self._outbox_filled: trio.Event | None = None
        self._outbox_emptied: trio.Event | None = None
        self._scope = trio.CancelScope()

    def __repr__(self) -> str:
        state = self.close_reason or "open"
        return f"<Yamux with {self.peer_id}, {len(self.streams)} streams, {self.outbox_size} unsent, {state}>"

    @property
    def is_initiator(self) -> bool:
        return self.secured_conn.is_initiator

    @property
    def is_established(self) -> bool:
        return self.event_started.is_set() and self.close_reason is None

    @property
    def is_closed(self) -> bool:
        return self.close_reason is not None

    def get_transport_addresses(self) -> list[Multiaddr]:
        return self.secured_conn.get_transport_addresses()

    def get_connection_type(self) -> ConnectionType:
        return self.secured_conn.get_connection_type()

    def get_remote_address(self) -> tuple[str, int] | None:
        return self.secured_conn.get_remote_address()

    # Sending ------------------------------------------------------------------------------------------------------

    def queue(self, kind: int, flags: int, stream_id: int, length: int, payload: bytes = b"") -> None:
        """Put one frame into the outbox, in order, without waiting; dropped when the connection has ended."""
        if self.close_reason is not None:
            return
        self._outbox.append(HEADER.pack(0, kind, flags, stream_id, length) + payload)
        self.outbox_size += HEADER_SIZE + len(payload)
        if self._outbox_filled is not None:
            self._outbox_filled.set()
            self._outbox_filled = None
        if self.outbox_size > OUTBOX_LIMIT:
            self._end("the peer does not read what it asks for")

    async def outbox_room(self) -> None:
        """Wait until the outbox has room, or the connection has ended."""
        while self.outbox_size > OUTBOX_HIGH and self.close_reason is None:
            if self._outbox_emptied is None:
                self._outbox_emptied = trio.Event()
            await self._outbox_emptied.wait()

    def _wake_writers(self) -> None:
        if self._outbox_emptied is not None:
            self._outbox_emptied.set()
            self._outbox_emptied = None

    async def _send_loop(self) -> None:
        while True:
            while not self._outbox:
                self._outbox_filled = trio.Event()
                await self._outbox_filled.wait()
            data = self._outbox[0] if len(self._outbox) == 1 else b"".join(self._outbox)
            self._outbox.clear()
            with trio.fail_after(STALL_TIMEOUT):
                await self.secured_conn.write(data)
            self.outbox_size -= len(data)
            if self.outbox_size <= OUTBOX_HIGH:
                self._wake_writers()

    # Receiving ----------------------------------------------------------------------------------------------------

    async def _receive_loop(self) -> None:
        buffer = b""
        while True:
            received = await self.secured_conn.read()
            self.received += len(received)
            self.heard_at = trio.current_time()
            if self.received > self.byte_limit and not self.trusted:
                raise ProtocolViolation(f"{self.received} bytes before admission, the limit is {self.byte_limit}")
            buffer = buffer + received if buffer else received
            offset, end = 0, len(buffer)
            while end - offset >= HEADER_SIZE:
                version, kind, flags, stream_id, length = HEADER.unpack_from(buffer, offset)
                if version != 0 or kind > GO_AWAY:
                    raise ProtocolViolation(f"frame of version {version}, type {kind}")
                if kind == DATA:
                    if length > MAX_WINDOW:
                        raise ProtocolViolation(f"frame of {length} bytes, the largest window is {MAX_WINDOW}")
                    if end - offset - HEADER_SIZE < length:
                        break
                offset += HEADER_SIZE
                payload = b""
                if kind == DATA:
                    payload = buffer[offset : offset + length]
                    offset += length
                if kind <= WINDOW_UPDATE:
                    self._on_stream_frame(kind, flags, stream_id, length, payload)
                elif kind == PING:
                    if flags & SYN:
                        self.queue(PING, ACK, 0, length)
                else:
                    raise ConnectionClosedError(self._went_away(length))
            buffer = buffer[offset:]

    def _went_away(self, code: int) -> str:
        """The peer has ended the connection with a GO_AWAY of *code*: the reason for ours."""
        self.released = code == GARBAGE_COLLECTED
        return f"the peer went away (code {code:#x})"

    def _on_stream_frame(self, kind: int, flags: int, stream_id: int, length: int, payload: bytes) -> None:
        stream = self.streams.get(stream_id)
        if flags & SYN:
            if stream is not None or stream_id == 0 or stream_id % 2 == self._next_id % 2:
                raise ProtocolViolation(f"opened stream {stream_id}, which is not free to it")
            stream = self._accept(stream_id)
        if stream is None:
            return  # a frame that crossed our reset or close
        if kind == WINDOW_UPDATE:
            stream.send_window = min(stream.send_window + length, 0xFFFFFFFF)
            stream.wake()
        elif payload:
            stream.on_data(payload)
        if flags & FIN:
            stream.on_fin()
        if flags & RST:
            stream.kill("the peer reset the stream")

    def _accept(self, stream_id: int) -> MuxedStream | None:
        self.accepted += 1
        if self.accepted > self.stream_limit and not self.trusted:
            raise ProtocolViolation(f"{self.accepted} streams before admission, the limit is {self.stream_limit}")
        if self.inbound_count >= self.inbound_limit():
            self.refused_streams += 1
            self.queue(WINDOW_UPDATE, RST, stream_id, 0)
            return None
        stream = MuxedStream(self, stream_id, inbound=True)
        self.streams[stream_id] = stream
        self.inbound_count += 1
        self.queue(WINDOW_UPDATE, ACK, stream_id, 0)
        self.on_stream(stream)
        return stream

    # Streams ------------------------------------------------------------------------------------------------------

    async def open_stream(self) -> MuxedStream:
        """A new stream. Does not wait for the peer, and a cancel leaves nothing behind."""
        await trio.lowlevel.checkpoint()
        return self.open_stream_nowait()

    def open_stream_nowait(self) -> MuxedStream:
        """A new stream; MuxedStreamError when the connection has ended or too many are open."""
        if self.close_reason is not None:
            raise MuxedStreamError(f"the connection has ended: {self.close_reason}")
        if len(self.streams) - self.inbound_count >= MAX_OUTBOUND_STREAMS:
            raise MuxedStreamError(f"{MAX_OUTBOUND_STREAMS} streams are open to this peer; close some first")
        stream = MuxedStream(self, self._next_id, inbound=False)
        self._next_id += 2
        self.streams[stream.stream_id] = stream
        self.queue(WINDOW_UPDATE, SYN, stream.stream_id, 0)
        return stream

    async def accept_stream(self) -> MuxedStream:
        """The library's way of waiting for streams."""
        raise NotImplementedError("streams come to on_stream")

    def forget_if_done(self, stream: MuxedStream) -> None:
        if stream.done and self.streams.pop(stream.stream_id, None) is not None and stream.inbound:
            self.inbound_count -= 1

    # Life ---------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Run until the connection ends, whatever the peer sends."""
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._run, self._send_loop)
                    self.event_started.set()
                    await self._run(self._receive_loop)
        finally:
            self._end("the node is stopping")
            with trio.move_on_after(FLUSH_TIMEOUT) as grace:
                grace.shield = True
                await self._close_socket()
            self.event_closed.set()
            if self.on_close is not None:
                await self.on_close()

    async def _run(self, loop: Callable[[], Awaitable[None]]) -> None:
        """Run *loop*; whatever ends it ends the connection with that reason and nothing else."""
        try:
            await loop()
        except ProtocolViolation as error:
            logger.warning("closing the connection with %s: %s", self.peer_id, error)
            self._end(f"the peer broke the protocol: {error}")
        except trio.TooSlowError:
            self._end(f"the peer took no bytes for {STALL_TIMEOUT:.0f} s")
        except Exception as error:  # a forged or broken message, a reset socket: the reason is kept
            self._end(f"{type(error).__name__}: {error}")

    async def _close_socket(self) -> None:
        try:
            await self.secured_conn.close()
        except Exception as error:
            logger.debug("closing the socket to %s: %r", self.peer_id, error)

    def _end(self, reason: str) -> None:
        if self.close_reason is not None:
            return
        self.close_reason = reason
        self._scope.cancel()
        for stream in list(self.streams.values()):
            stream.kill(f"the connection has ended: {reason}")
        self._wake_writers()

    async def stay(self) -> None:
        """Return when whoever accepted the socket may let go of it: at the end of the connection."""
        await self.event_closed.wait()

    async def close(self, reason: str = "closed on this side") -> None:
        """Say goodbye and end the connection: what was written before leaves first, for at most FLUSH_TIMEOUT."""
        if self.close_reason is None and self.event_started.is_set():
            self.queue(GO_AWAY, 0, 0, GARBAGE_COLLECTED if self.released else NORMAL_TERMINATION)
            with trio.move_on_after(FLUSH_TIMEOUT) as grace:
                grace.shield = True
                while self.outbox_size and self.close_reason is None:
                    self._outbox_emptied = self._outbox_emptied or trio.Event()
                    await self._outbox_emptied.wait()
        self._end(reason)
        if not self.event_started.is_set():
            await self._close_socket()
            self.event_closed.set()
