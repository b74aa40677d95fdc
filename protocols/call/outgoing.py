"""One call as its caller holds it: what has come of it, what is still allowed to come, and how it ended.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self

import trio

from protocols.call import call_pb2 as pb
from protocols.call.errors import CallError, Code
from protocols.call.limits import CallLimits
from protocols.call.messages import Load, ProtocolViolation, call_error
from transports.peer_id import PeerId

if TYPE_CHECKING:
    from protocols.call.link import Link

MAX_PIECES = 1024
"""Unread pieces a call keeps apart; more are joined, so that a peer's one-byte pieces do not cost forty bytes each."""


class OutgoingCall:
    """One call: an async context manager. Made by :meth:`CallClient.call`.

    ``async for data in call`` gives the streamed bytes as they come (a byte stream: how it is cut means nothing) and
    ends with the call; at most the credit window is held unread. ``await call.result()`` gives the result, dropping
    what was not read of the stream. Both raise the call's CallError. Leaving the block before the end cancels the
    call at the peer.
    """

    __slots__ = (
        "_changed",
        "_done",
        "_error",
        "_granted",
        "_limits",
        "_on_load",
        "_pieces",
        "_result",
        "_start",
        "_taken",
        "_unread",
        "accepted",
        "args",
        "card",
        "deadline",
        "key",
        "link",
        "number",
        "ordinal",
        "peer",
        "progress",
        "slot",
        "tool",
        "trace_id",
    )

    def __init__(
        self,
        start: Callable[[OutgoingCall], Awaitable[None]],
        limits: CallLimits,
        peer: PeerId,
        card: bytes,
        tool: str,
        args: bytes,
        deadline: float,
        trace_id: bytes,
        idempotency_key: bytes,
        on_load: Callable[[Load], None] | None,
    ) -> None:
        self.peer = peer
        self.accepted = False
        """The peer has confirmed that it queued or runs the call."""
        self.progress: tuple[int, str] | None = None
        """The last progress that was told: permille, and a text."""
        self._start = start
        self._limits = limits
        self.card, self.tool, self.args = card, tool, args
        self.deadline = deadline
        self.trace_id, self.key = trace_id, idempotency_key
        self._on_load = on_load
        self.link: Link | None = None
        self.slot: trio.Semaphore | None = None
        self.number = 0
        self.ordinal = 0
        self._changed: trio.Event | None = None
        self._pieces: deque[bytes] = deque()
        self._unread = 0  # bytes in _pieces
        self._taken = 0  # bytes read since credit was last given
        self._granted = limits.window  # credit the peer has left
        self._result = b""
        self._error: CallError | None = None
        self._done = False

    def __repr__(self) -> str:
        state = "done" if self._done else "running" if self.link else "not started"
        return f"<OutgoingCall {self.number} {self.tool} at {self.peer.short}, {state}, {self._unread} bytes unread>"

    async def __aenter__(self) -> Self:
        await self._start(self)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._done:
            self._abandon("the caller left", CallError(Code.CANCELLED, "the caller left the call"))
        self._pieces.clear()
        if self.slot is not None:
            self.slot.release()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        while not self._pieces:
            if self._done:
                if self._error is not None:
                    raise self._error
                raise StopAsyncIteration
            await self._wait()
        piece = self._pieces.popleft()
        size = len(piece)
        self._unread -= size
        self._taken += size
        if self._taken * 2 >= self._limits.window and not self._done:
            self._give_credit()
        return piece

    async def result(self) -> bytes:
        """The result (JSON). Raises CallError; see :class:`CallClient` for the codes."""
        while True:
            if self._pieces:
                self._taken += self._unread
                self._unread = 0
                self._pieces.clear()
            if self._done:
                break
            if self._taken * 2 >= self._limits.window:
                self._give_credit()
            await self._wait()
        if self._error is not None:
            raise self._error
        return self._result

    def _give_credit(self) -> None:
        assert self.link is not None
        self.link.writer.send(pb.Frame(call=self.number, credit=pb.Credit(bytes=self._taken)).SerializeToString())
        self._granted += self._taken
        self._taken = 0

    async def _wait(self) -> None:
        """Until the reader has news. The callee enforces the deadline; past a grace period we do without it."""
        changed = self._changed = trio.Event()
        with trio.CancelScope(deadline=self.deadline + self._limits.grace) as scope:
            await changed.wait()
        if scope.cancelled_caught and not self._done:
            text = "the deadline passed and the peer did not answer; give it more time or ask another node"
            self._abandon("deadline", CallError(Code.DEADLINE, text))

    def _abandon(self, reason: str, error: CallError) -> None:
        if self.link is not None:
            self.link.cancel(self, reason)
        self._end(error)

    def _end(self, error: CallError | None) -> None:
        self._done = True
        self._error = error
        if self._changed is not None:
            self._changed.set()

    def lost(self, why: str) -> None:
        """The stream is gone. Only a call that was certainly not sent is safe to try elsewhere."""
        assert self.link is not None
        if self.link.writer.was_sent(self.ordinal):
            text = f"the connection to {self.peer.short} was lost after the call was sent ({why}); it may have run"
            self._end(CallError(Code.UNKNOWN_OUTCOME, text))
        else:
            text = f"the connection to {self.peer.short} was lost before the call was sent ({why}); try another node"
            self._end(CallError(Code.UNAVAILABLE, text, retryable=True))

    def take(self, body: str | None, frame: pb.Frame) -> bool:
        """One frame of this call; True if it was the last."""
        if body == "result":
            self._result = frame.result.payload
            if self._on_load is not None and frame.result.HasField("load"):
                self._tell_load(frame.result.load)
            self._end(None)
            return True
        if body == "data":
            self._take_data(frame.data.payload)
        elif body == "error":
            if self._on_load is not None and frame.error.HasField("load"):
                self._tell_load(frame.error.load)
            self._end(call_error(frame.error))
            return True
        elif body == "accepted":
            self.accepted = True
            if self._on_load is not None and frame.accepted.HasField("load"):
                self._tell_load(frame.accepted.load)
        elif body == "progress":
            self.progress = (min(frame.progress.permille, 1000), frame.progress.message[:1000])
        elif body is not None:  # None: a later version's frame, not for us
            raise ProtocolViolation(f"a frame '{body}' from the callee of a tool call")
        return False

    def _take_data(self, payload: bytes) -> None:
        size = len(payload)
        if size > self._limits.max_data:
            raise ProtocolViolation(f"a piece of {size} bytes, {self._limits.max_data} is the maximum")
        if size > self._granted:
            raise ProtocolViolation(f"{size} bytes of data, {self._granted} were asked for")
        if not size:
            return
        self._granted -= size
        self._unread += size
        if len(self._pieces) >= MAX_PIECES:
            joined = b"".join(self._pieces)
            self._pieces.clear()
            self._pieces.append(joined)
        self._pieces.append(payload)
        if self._changed is not None:
            self._changed.set()

    def _tell_load(self, load: pb.Load) -> None:
        assert self._on_load is not None
        self._on_load(Load(min(load.permille, 1000), load.queue))
