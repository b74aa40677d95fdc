"""The caller of ``/atmosphere/call/1``: calls to a peer share a few long-lived streams.

A call costs no task and no stream of its own: its frames are queued for the stream's writer, and the stream's reader
hands the answers to whoever waits. So a cancelled caller touches nothing that others use.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import trio

from protocols.call import call_pb2 as pb
from protocols.call.errors import CallError, Code
from protocols.call.limits import CallLimits
from protocols.call.messages import MAX_CALL_ID, Load, ProtocolViolation, call_error, open_fault, parse_frame
from protocols.call.writer import FrameWriter
from protocols.framing import FrameError, FrameReader
from transports.errors import TransportError
from transports.peer_id import PeerId
from transports.stream import Stream, StreamClosed

logger = logging.getLogger(__name__)

MAX_PIECES = 1024
"""Unread pieces a call keeps apart; more are joined, so that a peer's one-byte pieces do not cost forty bytes each."""

MAX_ATTEMPTS = 3
"""Streams that may break under a call before its Open is queued, until it is given up as unavailable."""


@dataclass(frozen=True, slots=True)
class ClientStatistics:
    """A :class:`CallClient` at one moment (first three) and in its life."""

    peers: int
    streams: int
    calls: int
    streams_opened: int
    calls_started: int
    calls_cancelled: int
    streams_lost: int


class OutgoingCall:
    """One call: an async context manager. Made by :meth:`CallClient.call`.

    ``async for data in call`` gives the streamed bytes as they come (a byte stream: how it is cut means nothing) and
    ends with the call; at most the credit window is held unread. ``await call.result()`` gives the result, dropping
    what was not read of the stream. Both raise the call's CallError. Leaving the block before the end cancels the
    call at the peer.
    """

    __slots__ = (
        "_args",
        "_card",
        "_changed",
        "_client",
        "_deadline",
        "_done",
        "_error",
        "_granted",
        "_key",
        "_link",
        "_number",
        "_on_load",
        "_ordinal",
        "_pieces",
        "_result",
        "_slot",
        "_taken",
        "_tool",
        "_trace_id",
        "_unread",
        "accepted",
        "peer",
        "progress",
    )

    def __init__(
        self,
        client: CallClient,
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
        self._client = client
        self._card, self._tool, self._args = card, tool, args
        self._deadline = deadline
        self._trace_id, self._key = trace_id, idempotency_key
        self._on_load = on_load
        self._link: _Link | None = None
        self._slot: trio.Semaphore | None = None
        self._number = 0
        self._ordinal = 0
        self._changed: trio.Event | None = None
        self._pieces: deque[bytes] = deque()
        self._unread = 0  # bytes in _pieces
        self._taken = 0  # bytes read since credit was last given
        self._granted = client.limits.window  # credit the peer has left
        self._result = b""
        self._error: CallError | None = None
        self._done = False

    def __repr__(self) -> str:
        state = "done" if self._done else "running" if self._link else "not started"
        return f"<OutgoingCall {self._number} {self._tool} at {self.peer.short}, {state}, {self._unread} bytes unread>"

    async def __aenter__(self) -> Self:
        await self._client._start(self)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._done:
            self._abandon("the caller left", CallError(Code.CANCELLED, "the caller left the call"))
        self._pieces.clear()
        if self._slot is not None:
            self._slot.release()

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
        if self._taken * 2 >= self._client.limits.window and not self._done:
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
            if self._taken * 2 >= self._client.limits.window:
                self._give_credit()
            await self._wait()
        if self._error is not None:
            raise self._error
        return self._result

    def _give_credit(self) -> None:
        assert self._link is not None
        self._link.writer.send(pb.Frame(call=self._number, credit=pb.Credit(bytes=self._taken)).SerializeToString())
        self._granted += self._taken
        self._taken = 0

    async def _wait(self) -> None:
        """Until the reader has news. The callee enforces the deadline; past a grace period we do without it."""
        changed = self._changed = trio.Event()
        with trio.CancelScope(deadline=self._deadline + self._client.limits.grace) as scope:
            await changed.wait()
        if scope.cancelled_caught and not self._done:
            text = "the deadline passed and the peer did not answer; give it more time or ask another node"
            self._abandon("deadline", CallError(Code.DEADLINE, text))

    def _abandon(self, reason: str, error: CallError) -> None:
        if self._link is not None:
            self._link.cancel(self, reason)
        self._end(error)

    def _end(self, error: CallError | None) -> None:
        self._done = True
        self._error = error
        if self._changed is not None:
            self._changed.set()

    def _lost(self, why: str) -> None:
        """The stream is gone. Only a call that was certainly not sent is safe to try elsewhere."""
        assert self._link is not None
        if self._link.writer.was_sent(self._ordinal):
            text = f"the connection to {self.peer.short} was lost after the call was sent ({why}); it may have run"
            self._end(CallError(Code.UNKNOWN_OUTCOME, text))
        else:
            text = f"the connection to {self.peer.short} was lost before the call was sent ({why}); try another node"
            self._end(CallError(Code.UNAVAILABLE, text, retryable=True))

    def _take(self, body: str | None, frame: pb.Frame) -> bool:
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
        if size > self._client.limits.max_data:
            raise ProtocolViolation(f"a piece of {size} bytes, {self._client.limits.max_data} is the maximum")
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


class CallClient:
    """Calls tools of peers.

    :meth:`run` must be running in the owner's nursery: calls made before it wait for it, within their deadline; when
    it is cancelled, calls under way fail.

    A call fails with ``unavailable`` (retryable) when it was certainly not sent: the peer cannot be reached, or the
    stream broke before; ``unknown_outcome`` when the stream broke later; ``deadline``; ``too_large`` and
    ``overloaded`` by our own bounds; and with whatever the callee answers.
    """

    def __init__(self, open_stream: Callable[[PeerId], Awaitable[Stream]], limits: CallLimits | None = None) -> None:
        """*open_stream*: opens a stream of this protocol to a peer. Its TransportError, StreamClosed and OSError become
        ``unavailable``."""
        self.limits = limits or CallLimits()
        self._open_stream = open_stream
        self._peers: dict[PeerId, _Peer] = {}
        self._nursery: trio.Nursery | None = None
        self._running = trio.Event()
        self._streams_opened = 0
        self._calls_started = 0
        self._calls_cancelled = 0
        self._streams_lost = 0

    def __repr__(self) -> str:
        return f"<CallClient {self.statistics()}>"

    def statistics(self) -> ClientStatistics:
        links = [link for peer in self._peers.values() for link in (*peer.shared, *peer.bulk)]
        return ClientStatistics(
            peers=len(self._peers),
            streams=len(links),
            calls=sum(len(link.calls) for link in links),
            streams_opened=self._streams_opened,
            calls_started=self._calls_started,
            calls_cancelled=self._calls_cancelled,
            streams_lost=self._streams_lost,
        )

    async def run(self) -> None:
        """Own the streams' tasks until cancelled. Once in a client's life."""
        try:
            async with trio.open_nursery() as self._nursery:
                self._running.set()
                await trio.sleep_forever()
        finally:
            self._nursery = None

    def call(
        self,
        peer: PeerId,
        card: bytes,
        tool: str,
        args: bytes,
        *,
        deadline_s: float | None = None,
        trace_id: bytes = b"",
        idempotency_key: bytes = b"",
        on_load: Callable[[Load], None] | None = None,
    ) -> OutgoingCall:
        """A call to be entered with ``async with``; nothing happens before. *deadline_s*: seconds from now; None: the
        longest the protocol allows. *on_load*: told how busy the peer says it is, synchronously, must not raise."""
        limits = self.limits
        seconds = limits.max_call if deadline_s is None else min(deadline_s, limits.max_call)
        deadline = trio.current_time() + seconds
        return OutgoingCall(self, peer, card, tool, args, deadline, trace_id, idempotency_key, on_load)

    async def request(
        self,
        peer: PeerId,
        card: bytes,
        tool: str,
        args: bytes,
        *,
        deadline_s: float | None = None,
        trace_id: bytes = b"",
        idempotency_key: bytes = b"",
        on_load: Callable[[Load], None] | None = None,
    ) -> bytes:
        """Make the call and return its result."""
        async with self.call(
            peer,
            card,
            tool,
            args,
            deadline_s=deadline_s,
            trace_id=trace_id,
            idempotency_key=idempotency_key,
            on_load=on_load,
        ) as call:
            return await call.result()

    async def _start(self, call: OutgoingCall) -> None:
        """Find a stream for *call* and queue its Open."""
        limits = self.limits
        size = len(call._args)
        fault = open_fault(call._card, call._tool, call._trace_id, call._key)
        if fault is not None:
            raise CallError(Code.INVALID, fault)
        if size > limits.max_args:
            text = f"the arguments have {size} bytes, {limits.max_args} can be sent; send less"
            raise CallError(Code.TOO_LARGE, text)
        peer = self._peers.get(call.peer)
        if peer is None:
            peer = self._peers[call.peer] = _Peer(limits)
        peer.starting += 1
        try:
            link = peer.ready() if size <= limits.bulk_args else None
            if link is not None:
                await trio.lowlevel.checkpoint_if_cancelled()
            else:
                link = await self._start_slowly(peer, call, size > limits.bulk_args)
            link.start(call)
            self._calls_started += 1
        except BaseException:
            if call._slot is not None:
                call._slot.release()
                call._slot = None
            raise
        finally:
            peer.starting -= 1
            self._forget_if_unused(call.peer, peer)

    async def _start_slowly(self, peer: _Peer, call: OutgoingCall, bulk: bool) -> _Link:
        """A link with room for *call*, opened if need be. All waiting of a start is here, within its deadline."""
        with trio.CancelScope(deadline=call._deadline):
            if bulk:
                await peer.bulk_slots.acquire()
                call._slot = peer.bulk_slots
            for _ in range(MAX_ATTEMPTS):
                link = await self._link(call.peer, peer, bulk)
                await link.writer.wait_for_room()
                if link.usable:
                    return link
            text = f"streams to {call.peer.short} break as soon as they are opened; try another node"
            raise CallError(Code.UNAVAILABLE, text, retryable=True)
        text = f"no stream to {call.peer.short} within the deadline; the call was not sent"
        raise CallError(Code.DEADLINE, text, retryable=True)

    async def _link(self, address: PeerId, peer: _Peer, bulk: bool) -> _Link:
        async with peer.opening:
            link = peer.choose(bulk)
            if link is not None:
                return link
            links = peer.bulk if bulk else peer.shared
            await self._running.wait()
            stream = await self._opened(address)
            if self._nursery is None:
                await stream.reset()
                raise CallError(Code.UNAVAILABLE, "this node's call client is not running", retryable=True)
            link = _Link(self, stream)
            links.append(link)
            self._streams_opened += 1
            self._nursery.start_soon(self._run_link, address, peer, links, link)
            return link

    async def _opened(self, address: PeerId) -> Stream:
        with trio.move_on_after(self.limits.open_timeout):
            try:
                return await self._open_stream(address)
            except (TransportError, StreamClosed, OSError) as error:
                logger.debug("no call stream to %s", address, exc_info=error)
                text = f"{address.short} cannot be reached ({error}); try another node"
                raise CallError(Code.UNAVAILABLE, text, retryable=True) from error
        text = f"{address.short} did not answer within {self.limits.open_timeout:g} s; try another node"
        raise CallError(Code.UNAVAILABLE, text, retryable=True)

    async def _run_link(self, address: PeerId, peer: _Peer, links: list[_Link], link: _Link) -> None:
        try:
            await link.run()
        finally:
            links.remove(link)
            self._forget_if_unused(address, peer)

    def _forget_if_unused(self, address: PeerId, peer: _Peer) -> None:
        if not peer.starting and not peer.shared and not peer.bulk and self._peers.get(address) is peer:
            del self._peers[address]


class _Peer:
    """The streams to one peer, opened one at a time."""

    def __init__(self, limits: CallLimits) -> None:
        self.shared: list[_Link] = []
        self.bulk: list[_Link] = []
        self.bulk_slots = trio.Semaphore(limits.bulk_streams)
        self.opening = trio.Lock()
        self.starting = 0  # calls that are about to get a link
        self._limits = limits

    def ready(self) -> _Link | None:
        """A shared link that takes a small call now, without waiting."""
        for link in self.shared:
            if len(link.calls) < self._limits.busy_stream and not link.writer.full and link.usable:
                return link
        return None

    def choose(self, bulk: bool) -> _Link | None:
        """The link to use or wait for; None: open another one. Raises OVERLOADED."""
        limits = self._limits
        if bulk:
            return next((link for link in self.bulk if not link.calls and link.usable), None)
        usable = [link for link in self.shared if link.usable]
        best = min(usable, key=lambda link: len(link.calls), default=None)
        if best is None or (len(best.calls) >= limits.busy_stream and len(usable) < limits.shared_streams):
            return None
        if len(best.calls) >= limits.calls_per_stream:
            text = "all streams to this peer are full of our own calls; come back later or ask another node"
            raise CallError(Code.OVERLOADED, text, True, limits.retry_after_ms)
        return best


class _Link:
    """One stream: its reader, its writer, and the calls open on it."""

    def __init__(self, client: CallClient, stream: Stream) -> None:
        self._client = client
        self._stream = stream
        self._limits = client.limits
        self.writer = FrameWriter(stream, client.limits)
        self._reader = FrameReader(stream, client.limits.max_frame, client.limits.frame_timeout)
        self.calls: dict[int, OutgoingCall] = {}
        self._last_number = 0
        self._ended = False
        self._why = "this node's call client was stopped"
        self._idle_scope = trio.CancelScope(deadline=trio.current_time() + client.limits.idle_caller)

    def __repr__(self) -> str:
        return f"<_Link to {self._stream.peer.short}, {len(self.calls)} calls, usable={self.usable}>"

    @property
    def usable(self) -> bool:
        """Not broken, not closing, and with call ids left."""
        if self._ended or self.writer.broken or self._last_number == MAX_CALL_ID:
            return False
        return not self._idle_scope.cancel_called

    def start(self, call: OutgoingCall) -> None:
        """Queue the Open of *call*."""
        self._last_number = number = self._last_number + 1
        if not self.calls:
            self._idle_scope.deadline = float("inf")
        self.calls[number] = call
        call._link, call._number = self, number
        message = pb.Open(
            card=call._card,
            tool=call._tool,
            args=call._args,
            deadline_ms=max(1, math.ceil((call._deadline - trio.current_time()) * 1000)),
            trace_id=call._trace_id,
            idempotency_key=call._key,
            credit=self._limits.window,
        )
        call._args = b""  # queued: the frame holds them now
        call._ordinal = self.writer.send(pb.Frame(call=number, open=message).SerializeToString())

    def cancel(self, call: OutgoingCall, reason: str) -> None:
        """Forget *call* and tell the peer to stop it. Its late frames are passed over."""
        if self.calls.pop(call._number, None) is None:
            return
        self._client._calls_cancelled += 1
        self.writer.send(pb.Frame(call=call._number, cancel=pb.Cancel(reason=reason)).SerializeToString())
        self._rest()

    def _rest(self) -> None:
        if not self.calls:
            self._idle_scope.deadline = trio.current_time() + self._limits.idle_caller

    async def run(self) -> None:
        clean = False
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._write, nursery.cancel_scope)
                self._why = await self._read()
                self._ended = True
                clean = not self._why
                nursery.cancel_scope.cancel()
        finally:
            self._ended = True
            self.writer.abandon()
            for call in self.calls.values():
                call._lost(self._why)
            self.calls.clear()
            with trio.CancelScope(shield=True):
                await (self._stream.close() if clean else self._stream.reset())

    async def _write(self, scope: trio.CancelScope) -> None:
        try:
            await self.writer.run()
        except StreamClosed as error:
            self._why = str(error)
            scope.cancel()

    async def _read(self) -> str:
        """Hand frames to their calls until the stream ends. Returns why it ended; nothing when it was idle."""
        reader, calls = self._reader, self.calls
        with self._idle_scope:
            try:
                while True:
                    payload = await reader.read()
                    if payload is None:
                        return "the peer ended the stream"
                    frame = parse_frame(payload)
                    number = frame.call
                    call = calls.get(number)
                    if call is not None:
                        if call._take(frame.WhichOneof("body"), frame):
                            del calls[number]
                            self._rest()
                    elif number == 0:
                        return f"the peer refused the stream: {call_error(frame.error).message}"
                    elif number > self._last_number:
                        raise ProtocolViolation(f"a frame for call {number}, which was never opened")
            except StreamClosed as error:
                self._client._streams_lost += 1
                return str(error)
            except (FrameError, ProtocolViolation) as violation:
                self._client._streams_lost += 1
                logger.warning("call stream to %s dropped: %s", self._stream.peer, violation)
                return f"the peer broke the protocol: {violation}"
        return ""
