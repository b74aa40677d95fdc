"""What a protocol needs of a stream: bytes in order, both ways, and an end."""

from __future__ import annotations

from collections import deque
from typing import Protocol

import trio

from transports.peer_id import PeerId


class StreamClosed(Exception):
    """The stream has ended: by the peer's reset, by a lost connection, or by our own close."""


class Stream(Protocol):
    """A bidirectional byte stream to one authenticated peer."""

    peer: PeerId

    async def read(self, limit: int) -> bytes:
        """Up to *limit* bytes as soon as any are there; ``b""`` once the peer has closed its side.

        Raises :class:`StreamClosed` on reset or loss of the connection.
        """

    async def write(self, data: bytes) -> None:
        """Hand *data* over in full, waiting while the peer reads slowly. Raises :class:`StreamClosed`.

        A cancelled write leaves the connection usable; the stream itself must then be reset.
        """

    async def close(self) -> None:
        """Say that nothing more will be written. Reading goes on. Never raises."""

    async def reset(self) -> None:
        """Drop the stream at once, both ways. Never raises."""


class MemoryStream:
    """One end of an in-memory stream pair: the twin of a libp2p stream, for unit tests.

    Holds at most *capacity* unread bytes; a writer waits beyond that.
    """

    def __init__(self, peer: PeerId, capacity: int = 256 * 1024) -> None:
        self.peer = peer
        self._capacity = capacity
        self._buffer: deque[bytes] = deque()
        self._size = 0
        self._eof = False
        self._reset = False
        self._other: MemoryStream
        self._changed = trio.Event()

    def __repr__(self) -> str:
        return f"<MemoryStream to {self.peer.short}, {self._size} bytes unread, eof={self._eof}, reset={self._reset}>"

    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def read(self, limit: int) -> bytes:
        await trio.lowlevel.checkpoint()
        while not self._buffer:
            if self._reset:
                raise StreamClosed("the stream was reset")
            if self._eof:
                return b""
            await self._changed.wait()
        if self._reset:
            raise StreamClosed("the stream was reset")
        first = self._buffer.popleft()
        if len(first) > limit:
            self._buffer.appendleft(first[limit:])
            first = first[:limit]
        self._size -= len(first)
        self._other._wake()
        return first

    async def write(self, data: bytes) -> None:
        await trio.lowlevel.checkpoint()
        other = self._other
        while other._size + len(data) > self._capacity and other._size:
            if self._reset or other._eof:
                break
            await self._changed.wait()
        if self._reset or other._eof:
            raise StreamClosed("the stream is closed for writing")
        if data:
            other._buffer.append(bytes(data))
            other._size += len(data)
            other._wake()

    async def close(self) -> None:
        self._other._eof = True
        self._other._wake()
        await trio.lowlevel.checkpoint()

    async def reset(self) -> None:
        for end in (self, self._other):
            end._reset = True
            end._buffer.clear()
            end._size = 0
            end._wake()
        await trio.lowlevel.checkpoint()


def memory_stream_pair(a: PeerId, b: PeerId, capacity: int = 256 * 1024) -> tuple[MemoryStream, MemoryStream]:
    """Two connected ends: the first is held by *a* (its peer is *b*), the second by *b*."""
    left, right = MemoryStream(b, capacity), MemoryStream(a, capacity)
    left._other, right._other = right, left
    return left, right
