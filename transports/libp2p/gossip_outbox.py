"""Gossip frames on their way to one peer.

The library's queue keeps messages as objects: each is copied, measured and packed again for each of six peers, and each
wakes the task that sends to that peer. Here a message is packed once, and while the peer keeps up its bytes go straight
to the stream; only what has to wait is queued, and then bounded.
"""

from __future__ import annotations

from collections import deque

import trio

from transports.libp2p.muxed_stream import MuxedStream

QUEUE_LIMIT = 128
"""Frames waiting for one slow peer; gossip repairs what is dropped beyond."""


class GossipOutbox:
    """Frames leave in the order in which they came, control frames before others that wait."""

    def __init__(self, muxed: MuxedStream) -> None:
        self._muxed = muxed
        self._urgent: deque[bytes] = deque()
        self._rest: deque[bytes] = deque()
        self._writing = False
        self._filled = trio.Event()

    def __repr__(self) -> str:
        return f"<GossipOutbox, {len(self)} frames wait>"

    def __len__(self) -> int:
        return len(self._urgent) + len(self._rest)

    def push(self, frame: bytes, *, urgent: bool = False) -> bool:
        """Send *frame* now if the peer takes it, else when it does; False when too much waits: *frame* is dropped."""
        if not self._writing and not len(self) and self._muxed.write_now(frame):
            return True
        if len(self) >= QUEUE_LIMIT:
            return False
        (self._urgent if urgent else self._rest).append(frame)
        self._filled.set()
        return True

    async def run(self) -> None:
        """Write what waits. Raises MuxedStreamError when the stream has ended."""
        while True:
            while len(self):
                self._writing = True
                await self._muxed.write((self._urgent or self._rest).popleft())
            self._writing = False
            self._filled = trio.Event()
            await self._filled.wait()
