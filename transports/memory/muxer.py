"""The node's own yamux, whose frames travel as objects instead of bytes.

Streams, windows, limits and resets are the code that runs in production; what is left out is the packing of frames and
the two tasks that read and write a socket.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import trio
from libp2p.peer.id import ID

from transports.libp2p.yamux import OUTBOX_LIMIT, Yamux
from transports.libp2p.yamux_frames import GO_AWAY, HEADER_SIZE, WINDOW_UPDATE, ProtocolViolation

if TYPE_CHECKING:
    from transports.memory.connection import End

logger = logging.getLogger(__name__)

Frame = tuple[int, int, int, int, bytes]
"""Kind, flags, stream id, length, payload."""


class MemoryMuxer(Yamux):
    """See the module. *end* carries its frames; *nursery* runs what has to happen after its end."""

    def __init__(self, end: End, peer_id: ID, nursery: trio.Nursery) -> None:
        super().__init__(end, peer_id)  # type: ignore[arg-type]  # an end is secure: the network knows who is there
        self._end_of_wire = end
        self._nursery = nursery
        self._early: list[tuple[Frame, int]] = []

    def queue(self, kind: int, flags: int, stream_id: int, length: int, payload: bytes = b"") -> None:
        if self.close_reason is not None:
            return
        size = HEADER_SIZE + len(payload)
        if not self._end_of_wire.send(size, (kind, flags, stream_id, length, bytes(payload))):
            self.outbox_size += size
            if self.outbox_size > OUTBOX_LIMIT:
                self._end("the peer does not read what it asks for")

    def has_left(self, size: int) -> None:
        """That many bytes of the outbox are under way now."""
        self.outbox_size -= size
        self._wake_writers()

    def take(self, frame: Frame, size: int) -> None:
        """A frame has arrived. Whatever it is, it can end this connection and nothing else."""
        if self.close_reason is not None:
            return
        if not self.event_started.is_set():
            self._early.append((frame, size))  # it would wait in the socket
            return
        self.received += size
        self.heard_at = trio.current_time()
        kind, flags, stream_id, length, payload = frame
        try:
            if self.received > self.byte_limit and not self.trusted:
                raise ProtocolViolation(f"{self.received} bytes before admission, the limit is {self.byte_limit}")
            if kind <= WINDOW_UPDATE:
                self._on_stream_frame(kind, flags, stream_id, length, payload)
            elif kind == GO_AWAY:
                self._end(f"ConnectionClosedError: {self._went_away(length)}")
        except ProtocolViolation as error:
            logger.warning("closing the connection with %s: %s", self.peer_id, error)
            self._end(f"the peer broke the protocol: {error}")

    async def start(self) -> None:
        """Begin. Returns at once: the wire's task moves the frames."""
        self.event_started.set()
        early, self._early = self._early, []
        for frame, size in early:
            self.take(frame, size)

    async def stay(self) -> None:
        """There is no socket."""

    def end(self, reason: str) -> None:
        """The connection has ended, for *reason*."""
        self._end(reason)

    def _end(self, reason: str) -> None:
        if self.close_reason is not None:
            return
        super()._end(reason)
        self._end_of_wire.hang_up()
        self.event_closed.set()
        if self.on_close is not None:
            self._nursery.start_soon(self.on_close)
