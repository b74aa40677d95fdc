"""Messages on a byte stream: every payload behind its length as an unsigned varint, the libp2p convention.

:class:`FrameDecoder` is the format alone, without I/O; :class:`FrameReader` reads frames from a stream through a
buffer, because a read of the underlying stream costs far more than taking the next frame out of memory.

What a sender claims is not believed: memory grows with the bytes that have arrived, never with an announced length,
and a length above the protocol's bound is refused before its first byte is taken in.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

import trio

from transports.stream import Stream
from transports.varint import encode_varint

READ_SIZE = 64 * 1024
"""Bytes asked of the stream at once: more than a Noise message can carry, so a read is never cut short by us."""

MAX_VARINT_BYTES = 10
"""No 64-bit number needs more; protobuf and multiformats both stop here."""

FRAMES_PER_TURN = 16
"""Buffered frames handed out before other tasks get a turn: a full scheduling round per frame would cost more than
the frame, none at all would let one peer starve the rest."""


class FrameError(Exception):
    """The peer broke the framing. *reason* says how. Nothing after it can be read: reset the stream."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def encode_frame(payload: bytes) -> bytes:
    """*payload* behind its length. The protocol's maximum is the caller's to keep."""
    return encode_varint(len(payload)) + payload


def encode_frames(payloads: Iterable[bytes]) -> bytes:
    """Several frames in one piece, for one write."""
    parts: list[bytes] = []
    for payload in payloads:
        parts.append(encode_varint(len(payload)))
        parts.append(payload)
    return b"".join(parts)


class FrameDecoder:
    """Bytes in, whole payloads out; no I/O and no clock.

    The result does not depend on how the bytes were cut: frames before a violation are always returned, and the
    violation is raised by the next :meth:`feed` (or seen in :attr:`error`), after which the decoder stays broken.
    """

    def __init__(self, max_frame: int) -> None:
        """*max_frame*: the largest payload taken, bytes."""
        self.max_frame = max_frame
        self.error: FrameError | None = None
        self._rest = bytearray()  # the begun frame: its length and what has come of its payload
        self._needed = 0  # bytes of _rest that make the begun frame whole; 0: its length is not known yet

    def __repr__(self) -> str:
        return f"<FrameDecoder {len(self._rest)} bytes of a begun frame, max {self.max_frame}, error={self.error}>"

    @property
    def pending(self) -> int:
        """Bytes held of a frame that has begun and not ended; 0 at a frame border."""
        return len(self._rest)

    def feed(self, data: bytes) -> list[bytes]:
        """Take *data* in; every payload that is whole now, in order. Raises the FrameError found earlier, if any."""
        if self.error is not None:
            raise self.error
        rest = self._rest
        source: bytes | bytearray = data
        if rest:
            rest += data
            if len(rest) < self._needed:
                return []
            source = rest
        frames: list[bytes] = []
        size = len(source)
        start = 0  # of the frame looked at
        self._needed = 0
        while start < size:
            length = source[start]
            body = start + 1
            if length > 127:  # two bytes of length or more
                try:
                    length, body = self._length(source, start)
                except FrameError as error:
                    self.error = error
                    break
                if body == 0:
                    break  # the length itself is not whole
            if length > self.max_frame:
                self.error = FrameError(f"a frame of {length} bytes announced, {self.max_frame} is the maximum here")
                break
            end = body + length
            if end > size:
                self._needed = end - start
                break
            frames.append(bytes(source[body:end]))
            start = end
        if self.error is not None:
            self._rest = bytearray()
        elif source is rest:
            del rest[:start]
        elif start < size:
            rest += data[start:]
        if self.error is not None and not frames:
            raise self.error
        return frames

    def end(self) -> None:
        """The stream has ended here. Raises FrameError inside a frame, or the violation found before."""
        if self.error is None and self._rest:
            self.error = FrameError(f"the stream ended inside a frame, {len(self._rest)} bytes into it")
        if self.error is not None:
            raise self.error

    @staticmethod
    def _length(source: bytes | bytearray, start: int) -> tuple[int, int]:
        """The varint at *start* and the index behind it; index 0 if it is not whole yet."""
        value = 0
        for count, byte in enumerate(source[start : start + MAX_VARINT_BYTES]):
            value |= (byte & 127) << 7 * count
            if byte < 128:
                if byte == 0 and count:
                    raise FrameError("a length that is not in its shortest form")
                return value, start + count + 1
        if len(source) - start >= MAX_VARINT_BYTES:
            raise FrameError(f"a length of more than {MAX_VARINT_BYTES} bytes")
        return 0, 0


class FrameReader:
    """Frames from a stream, in order, one reader at a time.

    A cancelled :meth:`read` loses nothing: the next one goes on where it stopped.
    """

    def __init__(self, stream: Stream, max_frame: int, frame_timeout: float | None = None) -> None:
        """*max_frame*: largest payload, bytes. *frame_timeout*: seconds from the first byte of a frame to its last;
        waiting for a frame to begin is not bounded here (put a cancel scope around :meth:`read` for that)."""
        self._stream = stream
        self._decoder = FrameDecoder(max_frame)
        self._frame_timeout = frame_timeout
        self._begun_at: float | None = None
        self._ready: deque[bytes] = deque()
        self._turn = 0

    @property
    def max_frame(self) -> int:
        """The largest payload taken, bytes. May be raised once the peer is trusted with more."""
        return self._decoder.max_frame

    @max_frame.setter
    def max_frame(self, value: int) -> None:
        self._decoder.max_frame = value

    def __repr__(self) -> str:
        begun = self._decoder.pending
        return f"<FrameReader of {self._stream!r}, {len(self._ready)} frames ready, {begun} bytes begun>"

    @property
    def begun(self) -> bool:
        """Whether part of a frame has come and the rest not."""
        return self._decoder.pending > 0

    async def read(self) -> bytes | None:
        """The next payload; None once the peer has ended the stream at a frame border.

        Raises FrameError for a violation (oversize, bad length, an end inside a frame, a frame too slow) and
        StreamClosed when the stream was reset or lost.
        """
        if self._ready:
            await self._give_turn()
            return self._ready.popleft()
        while True:
            if self._decoder.error is not None:
                raise self._decoder.error
            data = await self._read_some()
            if not data:
                self._decoder.end()
                return None
            frames = self._decoder.feed(data)
            if not self._decoder.pending:
                self._begun_at = None
            elif frames or self._begun_at is None:
                self._begun_at = trio.current_time()
            if frames:
                self._turn += 1
                self._ready.extend(frames)
                return self._ready.popleft()

    async def _read_some(self) -> bytes:
        if self._begun_at is None or self._frame_timeout is None:
            return await self._stream.read(READ_SIZE)
        with trio.CancelScope(deadline=self._begun_at + self._frame_timeout) as scope:
            return await self._stream.read(READ_SIZE)
        assert scope.cancelled_caught
        raise FrameError(f"a frame was begun and not ended within {self._frame_timeout:g} s")

    async def _give_turn(self) -> None:
        self._turn += 1
        if self._turn % FRAMES_PER_TURN:
            await trio.lowlevel.checkpoint_if_cancelled()
        else:
            await trio.lowlevel.checkpoint()
