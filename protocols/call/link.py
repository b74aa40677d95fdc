"""One stream to a callee, with the calls that are open on it.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass

import trio

from protocols.call import call_pb2 as pb
from protocols.call.limits import CallLimits
from protocols.call.messages import MAX_CALL_ID, ProtocolViolation, call_error, parse_frame
from protocols.call.outgoing import OutgoingCall
from protocols.call.writer import FrameWriter
from protocols.framing import FrameError, FrameReader
from transports.stream import Stream, StreamClosed

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Counters:
    """What a client has done in its life; its links count here too."""

    streams_opened: int = 0
    streams_lost: int = 0
    calls_started: int = 0
    calls_cancelled: int = 0


class Link:
    """One stream: its reader, its writer, and the calls open on it."""

    def __init__(self, stream: Stream, limits: CallLimits, counters: Counters) -> None:
        self._counters = counters
        self._stream = stream
        self._limits = limits
        self.writer = FrameWriter(stream, limits)
        self._reader = FrameReader(stream, limits.max_frame, limits.frame_timeout)
        self.calls: dict[int, OutgoingCall] = {}
        self._last_number = 0
        self._ended = False
        self._why = "this node's call client was stopped"
        self._idle_since = trio.current_time()  # of no meaning while there are calls

    def __repr__(self) -> str:
        return f"<Link to {self._stream.peer.short}, {len(self.calls)} calls, usable={self.usable}>"

    @property
    def usable(self) -> bool:
        """Not broken, not closing, and with call ids left."""
        return not (self._ended or self.writer.broken or self._last_number == MAX_CALL_ID)

    def start(self, call: OutgoingCall) -> None:
        """Queue the Open of *call*."""
        self._last_number = number = self._last_number + 1
        self.calls[number] = call
        call.link, call.number = self, number
        message = pb.Open(
            card=call.card,
            tool=call.tool,
            args=call.args,
            deadline_ms=max(1, math.ceil((call.deadline - trio.current_time()) * 1000)),
            trace_id=call.trace_id,
            idempotency_key=call.key,
            credit=self._limits.window,
        )
        call.args = b""  # queued: the frame holds them now
        call.ordinal = self.writer.send(pb.Frame(call=number, open=message).SerializeToString())

    def cancel(self, call: OutgoingCall, reason: str) -> None:
        """Forget *call* and tell the peer to stop it. Its late frames are passed over."""
        if self.calls.pop(call.number, None) is None:
            return
        self._counters.calls_cancelled += 1
        self.writer.send(pb.Frame(call=call.number, cancel=pb.Cancel(reason=reason)).SerializeToString())
        self._rest()

    def _rest(self) -> None:
        if not self.calls:
            self._idle_since = trio.current_time()

    async def run(self) -> None:
        """Serve the calls until the stream ends, is idle, or stalls; then it is closed and its calls have failed."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._write, nursery.cancel_scope)
                nursery.start_soon(self._watch, nursery.cancel_scope)
                self._end(await self._read(), nursery.cancel_scope)
        finally:
            self._ended = True
            self.writer.abandon()
            for call in self.calls.values():
                call.lost(self._why)
            self.calls.clear()
            with trio.CancelScope(shield=True):
                await (self._stream.reset() if self._why else self._stream.close())

    def _end(self, why: str, scope: trio.CancelScope) -> None:
        """Take no more calls, and have :meth:`run` end. *why* is for the calls still open; empty: it was idle."""
        self._why = why
        self._ended = True
        scope.cancel()

    async def _write(self, scope: trio.CancelScope) -> None:
        try:
            await self.writer.run()
        except StreamClosed as error:
            self._end(str(error), scope)

    async def _watch(self, scope: trio.CancelScope) -> None:
        limits = self._limits
        while True:
            await trio.sleep(limits.watch)
            if self.writer.stalled:
                self._end(f"the peer has read nothing for {limits.write_timeout:g} s", scope)
            elif not self.calls and trio.current_time() - self._idle_since >= limits.idle_caller:
                self._end("", scope)

    async def _read(self) -> str:
        """Hand frames to their calls until the stream ends. Returns why it ended."""
        reader, calls = self._reader, self.calls
        try:
            while True:
                payload = await reader.read()
                if payload is None:
                    return "the peer ended the stream"
                frame = parse_frame(payload)
                number = frame.call
                call = calls.get(number)
                if call is not None:
                    if call.take(frame.WhichOneof("body"), frame):
                        del calls[number]
                        self._rest()
                elif number == 0:
                    return f"the peer refused the stream: {call_error(frame.error).message}"
                elif number > self._last_number:
                    raise ProtocolViolation(f"a frame for call {number}, which was never opened")
        except StreamClosed as error:
            self._counters.streams_lost += 1
            return str(error)
        except (FrameError, ProtocolViolation) as violation:
            self._counters.streams_lost += 1
            logger.warning("call stream to %s dropped: %s", self._stream.peer, violation)
            return f"the peer broke the protocol: {violation}"
