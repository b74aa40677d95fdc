"""A stream of a yamux connection: what is buffered, both windows, and how it ends."""

from __future__ import annotations

import logging
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING

import trio
from libp2p.abc import IMuxedStream
from libp2p.stream_muxer.exceptions import MuxedStreamClosed, MuxedStreamEOF, MuxedStreamReset

from transports.libp2p.yamux_frames import (
    DATA,
    FIN,
    INITIAL_WINDOW,
    MAX_PAYLOAD,
    MAX_WINDOW,
    RST,
    WINDOW_UPDATE,
    ProtocolViolation,
)

if TYPE_CHECKING:
    from transports.libp2p.yamux import Yamux

logger = logging.getLogger(__name__)

OUTBOX_HIGH = 256 * 1024
"""Unsent bytes of a connection beyond which writers wait."""


class MuxedStream(IMuxedStream):
    """One stream. One task reads, or nobody does and :meth:`consume` says who gets what comes; one task writes.

    ``close`` and ``reset`` may come from any.
    """

    muxed_conn: Yamux

    def __init__(self, conn: Yamux, stream_id: int, inbound: bool) -> None:
        self.muxed_conn = conn
        self.stream_id = stream_id
        self.inbound = inbound
        self.fin_received = False
        self.fin_sent = False
        self.reset_reason: str | None = None
        self.standing = False
        """Whether it serves the connection itself, as gossip and pings do, and does not keep it from being idle."""
        self._buffer = bytearray()
        self._consumer: Callable[[bytes], None] | None = None
        self._changed: trio.Event | None = None
        self.send_window = INITIAL_WINDOW
        self._receive_window = INITIAL_WINDOW  # what the peer may still send
        self._consumed = 0  # read by us and not yet granted again

    def __repr__(self) -> str:
        return (
            f"<MuxedStream {self.stream_id} {'in' if self.inbound else 'out'}bound, {len(self._buffer)} unread, "
            f"window {self.send_window}, fin {self.fin_sent}/{self.fin_received}, reset={self.reset_reason}>"
        )

    @property
    def buffered(self) -> int:
        """Bytes that can be read without waiting."""
        return len(self._buffer)

    @property
    def consumed(self) -> bool:
        """Whether a consumer takes what comes, until the stream ends."""
        return self._consumer is not None

    async def _wait(self) -> None:
        if self._changed is None:
            self._changed = trio.Event()
        await self._changed.wait()

    def wake(self) -> None:
        if self._changed is not None:
            self._changed.set()
            self._changed = None

    async def read(self, n: int | None = None) -> bytes:
        """Up to *n* bytes (all that is there for None or -1); MuxedStreamEOF after the peer's FIN.

        Does not pass through the scheduler while bytes are buffered, at most one receive window of them.
        """
        buffer = self._buffer
        while not buffer:
            if self.reset_reason is not None:
                raise MuxedStreamReset(self.reset_reason)
            if self.fin_received:
                raise MuxedStreamEOF("the peer has closed its side")
            await self._wait()
        if n is None or n < 0 or n >= len(buffer):
            data = bytes(buffer)
            buffer.clear()
        else:
            data = bytes(buffer[:n])
            del buffer[:n]
        self._consumed += len(data)
        if self._consumed >= INITIAL_WINDOW // 2:
            self._grant()
        return data

    def consume(self, take: Callable[[bytes], None]) -> None:
        """Give *take* what has come and what comes, in the step in which it arrives: no task reads this stream.

        *take* must not wait; what it raises is logged and resets the stream. The peer's FIN is answered with ours.
        """
        self._consumer = take
        if self._buffer:
            payload = bytes(self._buffer)
            self._buffer.clear()
            self._give(payload)
        if self.fin_received:
            self._finish()

    def _give(self, payload: bytes) -> None:
        assert self._consumer is not None
        self._consumed += len(payload)
        if self._consumed >= INITIAL_WINDOW // 2:
            self._grant()
        try:
            self._consumer(payload)
        except Exception:
            logger.exception("what came on a stream could not be handled; the stream is reset")
            self.abort()

    def _grant(self) -> None:
        """Half a window was used: the peer may send as much again."""
        if not self.fin_received and self.reset_reason is None:
            # The first update also raises the window to its full size, as this stream is bulk.
            grant = MAX_WINDOW - self._receive_window - len(self._buffer)
            self._receive_window += grant
            self._consumed = 0
            self.muxed_conn.queue(WINDOW_UPDATE, 0, self.stream_id, grant)

    async def write(self, data: bytes) -> None:
        """Hand over all of *data*, waiting for window and for room in the outbox.

        A cancel leaves the connection intact; how much of *data* went out is unknown, so reset the stream then.
        """
        conn, start = self.muxed_conn, 0
        while True:
            if self.reset_reason is not None:
                raise MuxedStreamReset(self.reset_reason)
            if self.fin_sent:
                raise MuxedStreamClosed("the stream was closed for writing")
            if start >= len(data):
                return
            if self.send_window <= 0:
                await self._wait()
                continue
            size = min(self.send_window, MAX_PAYLOAD, len(data) - start)
            self.send_window -= size
            conn.queue(DATA, 0, self.stream_id, size, data if size == len(data) else data[start : start + size])
            start += size
            if conn.outbox_size > OUTBOX_HIGH:
                await conn.outbox_room()
            else:
                await trio.lowlevel.checkpoint_if_cancelled()

    def write_now(self, data: bytes) -> bool:
        """Hand over all of *data* at once; False, and nothing is handed over, when it would have to wait or fail."""
        conn, size = self.muxed_conn, len(data)
        if self.reset_reason is not None or self.fin_sent or conn.outbox_size > OUTBOX_HIGH:
            return False
        if not 0 < size <= MAX_PAYLOAD or size > self.send_window:
            return False
        self.send_window -= size
        conn.queue(DATA, 0, self.stream_id, size, data)
        return True

    async def close(self) -> None:
        """Send FIN: nothing more will be written. Reading goes on. Never waits, never raises."""
        self._finish()

    def _finish(self) -> None:
        if not self.fin_sent and self.reset_reason is None:
            self.fin_sent = True
            self.muxed_conn.queue(WINDOW_UPDATE, FIN, self.stream_id, 0)
            self.muxed_conn.forget_if_done(self)

    async def reset(self) -> None:
        """Drop the stream both ways. Never waits, never raises."""
        self.abort()

    def abort(self) -> None:
        """:meth:`reset`, for who cannot wait."""
        if self.reset_reason is None:
            if not (self.fin_sent and self.fin_received):
                self.muxed_conn.queue(WINDOW_UPDATE, RST, self.stream_id, 0)
            self.kill("the stream was reset on this side")

    def kill(self, reason: str) -> None:
        """Mark as reset, for *reason*, and wake whoever waits."""
        if self.reset_reason is None:
            self.reset_reason = reason
            self._buffer.clear()
            self.muxed_conn.forget_if_done(self)
            self.wake()

    def on_data(self, payload: bytes) -> None:
        """Take in what the reader received; raises ProtocolViolation when the peer ignores our window."""
        if len(payload) > self._receive_window:
            raise ProtocolViolation(f"{len(payload)} bytes in a window of {self._receive_window}")
        if self.reset_reason is None and not self.fin_received:
            self._receive_window -= len(payload)
            if self._consumer is not None:
                self._give(payload)
            else:
                self._buffer += payload
                self.wake()

    def on_fin(self) -> None:
        self.fin_received = True
        if self._consumer is not None:
            self._finish()
        self.muxed_conn.forget_if_done(self)
        self.wake()

    @property
    def done(self) -> bool:
        return self.reset_reason is not None or (self.fin_sent and self.fin_received)

    def set_deadline(self, ttl: int) -> None:
        """Trio's cancel scopes do this."""
        raise NotImplementedError("use a cancel scope")

    def get_remote_address(self) -> tuple[str, int] | None:
        return self.muxed_conn.get_remote_address()

    async def __aenter__(self) -> MuxedStream:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()
