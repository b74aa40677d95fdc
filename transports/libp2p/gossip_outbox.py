"""Gossip frames on their way to one peer.

The library's queue keeps messages as objects: each is copied, measured and packed again for each of six peers, and each
wakes the task that sends to that peer. Here a message is packed once, and while the peer keeps up its bytes go straight
to the stream; only what has to wait is queued, and then bounded.
"""

from __future__ import annotations

import trio
from libp2p.stream_muxer.exceptions import MuxedStreamError

from transports.libp2p.muxed_stream import MuxedStream

QUEUE_LIMIT = 128
"""Frames waiting for one slow peer; gossip repairs what is dropped beyond."""


class GossipOutbox:
    """Frames leave in the order in which they came, control frames before others that wait.

    A task in *nursery* writes what waits, while something does. When the stream has ended, frames lead nowhere: whoever
    opened it sees its end.
    """

    __slots__ = ("_muxed", "_nursery", "_rest", "_urgent", "_writing")

    def __init__(self, muxed: MuxedStream, nursery: trio.Nursery) -> None:
        self._muxed = muxed
        self._nursery = nursery
        self._urgent: list[bytes] = []  # at most QUEUE_LIMIT, so taking the first of them is cheap
        self._rest: list[bytes] = []
        self._writing = False

    def __repr__(self) -> str:
        return f"<GossipOutbox, {len(self)} frames wait>"

    def __len__(self) -> int:
        return len(self._urgent) + len(self._rest)

    def push(self, frame: bytes, *, urgent: bool = False) -> bool:
        """Send *frame* now if the peer takes it, else when it does; False when too much waits: *frame* is dropped."""
        if not self._writing and self._muxed.write_now(frame):
            return True
        if len(self) >= QUEUE_LIMIT:
            return False
        (self._urgent if urgent else self._rest).append(frame)
        if not self._writing:
            self._writing = True
            self._nursery.start_soon(self._write)
        return True

    async def _write(self) -> None:
        try:
            while len(self):
                await self._muxed.write((self._urgent or self._rest).pop(0))
        except MuxedStreamError:
            self._urgent.clear()
            self._rest.clear()
        finally:
            self._writing = False
