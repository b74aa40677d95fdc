"""Frames of many calls onto one stream, whole and in order, whoever is cancelled.

One task writes. Senders only queue, which needs no await, so no cancelled caller can leave half a frame behind, and
frames that are queued while a write is under way go out together in the next one: one encryption and one system
call for all of them.

Writing from the sender's own task while the stream is idle (shielded) was measured too, over loopback libp2p: one call
at a time 6 % quicker (0.27 against 0.29 ms), 32 at a time 20-35 % slower, since less is joined into one write. And
a cancelled caller would hang on a peer that does not read for as long as that write may take.
"""

from __future__ import annotations

from collections import deque

import trio

from protocols.call.limits import CallLimits
from transports.stream import Stream
from transports.varint import encode_varint


class FrameWriter:
    """The writing half of one stream."""

    def __init__(self, stream: Stream, limits: CallLimits) -> None:
        self._stream = stream
        self._limits = limits
        self._queue: deque[bytes] = deque()
        self._size = 0  # bytes queued, and those of the write under way
        self._queued = 0  # frames ever queued
        self._handed_over = 0  # of those: given to the stream
        self._work = trio.Event()
        self._room = trio.Event()
        self._waiting_for_room = 0
        self._finishing = False
        self._began: float | None = None  # the write under way
        self._ended = trio.Event()
        self.broken = False

    def __repr__(self) -> str:
        return f"<FrameWriter {len(self._queue)} frames, {self._size} bytes to write, broken={self.broken}>"

    @property
    def full(self) -> bool:
        """Whether who would queue more than a few bytes should :meth:`wait_for_room` first."""
        return self._size > self._limits.queued_bytes

    @property
    def stalled(self) -> bool:
        """Whether the peer has let one write wait for *write_timeout*: it is to be given up."""
        return self._began is not None and trio.current_time() - self._began >= self._limits.write_timeout

    def send(self, payload: bytes) -> int:
        """Queue one frame; returns its ordinal for :meth:`was_sent`. Never waits; dropped once the stream is broken."""
        self._queued += 1
        if not self.broken:
            self._queue.append(payload)
            self._size += len(payload)
            self._work.set()
        return self._queued

    def was_sent(self, ordinal: int) -> bool:
        """Whether the frame may have reached the peer. False is certain, True is not."""
        return ordinal <= self._handed_over

    async def wait_for_room(self) -> None:
        """Wait until the queue is short. Returns at once, and for ever after, when the stream is broken."""
        while self._size > self._limits.queued_bytes and not self.broken:
            self._waiting_for_room += 1
            try:
                await self._room.wait()
            finally:
                self._waiting_for_room -= 1

    async def finish(self) -> None:
        """Wait until everything queued is written (or the stream broke) and :meth:`run` has returned."""
        self._finishing = True
        self._work.set()
        await self._ended.wait()

    def abandon(self) -> None:
        """The stream is gone: drop what is queued, let nobody wait."""
        self.broken = True
        self._queue.clear()
        self._size = 0
        self._room.set()

    async def run(self) -> None:
        """Write until :meth:`finish`. Raises StreamClosed when the peer is gone."""
        queue, stream, limits = self._queue, self._stream, self._limits
        try:
            while True:
                while not queue:
                    if self._finishing:
                        return
                    self._work = trio.Event()
                    await self._work.wait()
                batch: list[bytes] = []
                size = frames = 0
                while queue and (not frames or size + len(queue[0]) <= limits.batch):
                    payload = queue.popleft()
                    size += len(payload)
                    frames += 1
                    batch.append(encode_varint(len(payload)))
                    batch.append(payload)
                data = b"".join(batch)
                batch.clear()
                self._handed_over += frames
                self._began = trio.current_time()
                await stream.write(data)
                self._began = None
                self._size -= size
                if self._waiting_for_room and self._size <= limits.queued_bytes:
                    self._room.set()
                    self._room = trio.Event()
        finally:
            self.abandon()
            self._ended.set()
