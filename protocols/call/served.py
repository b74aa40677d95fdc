"""One stream as the callee serves it: takes frames in, runs a task for every call, and holds each to its bounds."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeAlias

import trio

from protocols.call import call_pb2 as pb
from protocols.call.errors import CallError, Code
from protocols.call.limits import CallLimits
from protocols.call.messages import (
    IncomingCall,
    IncomingSubscription,
    Load,
    ProtocolViolation,
    error_frame,
    load_message,
    open_fault,
    parse_frame,
)
from protocols.call.writer import FrameWriter
from protocols.framing import FrameError, FrameReader
from transports.stream import Stream, StreamClosed

logger = logging.getLogger(__name__)

Emit: TypeAlias = Callable[[bytes], Awaitable[None]]
"""Sends bytes of a streamed answer, in order, waiting for the caller's credit. It is a byte stream: large pieces, and
pieces sent while the caller lags, arrive cut differently."""

EmitEvent: TypeAlias = Callable[[bytes, int], Awaitable[None]]
"""Sends one event (JSON payload, Unix milliseconds), whole, waiting until the credit covers it."""

Handler: TypeAlias = Callable[[IncomingCall, Emit], Awaitable[bytes]]
SubscribeHandler: TypeAlias = Callable[[IncomingSubscription, EmitEvent], Awaitable[None]]


@dataclass(slots=True)
class Service:
    """What the streams of one server share."""

    handler: Handler
    limits: CallLimits
    load: Callable[[], Load] | None
    subscribe: SubscribeHandler | None
    calls: int = 0
    served: int = 0
    refused: int = 0
    violations: int = 0
    stopping: bool = False
    idle: trio.Event = field(default_factory=trio.Event)

    def load_now(self) -> pb.Load | None:
        return load_message(self.load()) if self.load is not None else None


@dataclass(slots=True)
class PeerUse:
    """What one peer has taken on all its streams."""

    streams: int = 0
    calls: int = 0
    args_bytes: int = 0


class _Running:
    """One open call or subscription."""

    __slots__ = ("accepted", "args_bytes", "cancelled", "credit", "credit_given", "number", "scope", "waited")

    def __init__(self, number: int, deadline: float, credit: int, args_bytes: int) -> None:
        self.number = number
        self.scope = trio.CancelScope(deadline=deadline)
        self.credit = credit
        self.credit_given = trio.Event()
        self.args_bytes = args_bytes
        self.accepted = False
        self.waited = False
        self.cancelled = False

    def give(self, credit: int) -> None:
        self.credit += credit
        self.credit_given.set()


class ServedStream:
    """One stream: its reader (this task), its writer, and a task for every call."""

    def __init__(self, service: Service, stream: Stream, use: PeerUse) -> None:
        self._service = service
        self._limits = service.limits
        self._stream = stream
        self._use = use
        self._writer = FrameWriter(stream, service.limits)
        self._reader = FrameReader(stream, service.limits.max_frame, service.limits.frame_timeout)
        self._open: dict[int, _Running] = {}
        self._unaccepted = trio.Event()
        self._idle_since = trio.current_time()  # of no meaning while calls are open
        self._idle_limit = service.limits.first_frame
        self._clean = False
        self._nursery: trio.Nursery

    async def run(self) -> None:
        try:
            async with trio.open_nursery() as self._nursery:
                self._nursery.start_soon(self._write)
                self._nursery.start_soon(self._watch)
                self._nursery.start_soon(self._send_accepted)
                reason: str | None
                if self._use.streams > self._limits.streams_per_peer:
                    reason = f"more than {self._limits.streams_per_peer} call streams of one peer; share them"
                else:
                    reason = await self._read()
                for running in self._open.values():
                    running.scope.cancel()
                if reason is not None:
                    await self._say_goodbye(reason)
                self._clean = reason is None
                self._nursery.cancel_scope.cancel()
        finally:
            self._writer.abandon()
            with trio.CancelScope(shield=True):
                await (self._stream.close() if self._clean else self._stream.reset())

    async def _write(self) -> None:
        try:
            await self._writer.run()
        except StreamClosed:
            self._nursery.cancel_scope.cancel()

    async def _watch(self) -> None:
        """End the stream when it is idle, or when its peer does not read."""
        while True:
            await trio.sleep(self._limits.watch)
            idle = not self._open and not self._reader.begun  # a large frame under way has a time limit of its own
            idle = idle and trio.current_time() - self._idle_since >= self._idle_limit
            if idle or self._writer.stalled:
                self._clean = idle
                self._nursery.cancel_scope.cancel()

    async def _read(self) -> str | None:
        """Take frames in until the stream ends. Returns what the peer did wrong, or None."""
        reader, writer, take = self._reader, self._writer, self._take
        try:
            while True:
                payload = await reader.read()
                if payload is None:
                    return None
                take(payload)
                if writer.full:  # a caller that does not read its answers may not ask on
                    await writer.wait_for_room()
        except (FrameError, ProtocolViolation) as violation:
            return str(violation)
        except StreamClosed:
            self._nursery.cancel_scope.cancel()
            return None

    def _take(self, payload: bytes) -> None:
        frame = parse_frame(payload)
        number = frame.call
        body = frame.WhichOneof("body")
        if body == "open":
            self._take_open(number, frame.open)
        elif body == "credit":
            if (running := self._open.get(number)) is not None:
                running.give(frame.credit.bytes)
        elif body == "cancel":
            if (running := self._open.get(number)) is not None:
                running.cancelled = True
                running.scope.cancel()
        elif body == "subscribe":
            self._take_subscribe(number, frame.subscribe)
        elif body is None:  # a later version's frame: inside a call it is not for us, as a first one we cannot serve it
            if number not in self._open:
                self._refuse(number, CallError(Code.INVALID, "a kind of frame that is not known here"))
        else:
            raise ProtocolViolation(f"a frame '{body}' from the caller; only the callee sends those")

    def _take_open(self, number: int, message: pb.Open) -> None:
        self._check_number(number)
        limits, use = self._limits, self._use
        card, tool, args = message.card, message.tool, message.args
        trace_id, key = message.trace_id, message.idempotency_key
        size = len(args)
        fault = open_fault(card, tool, trace_id, key)
        if fault is not None:
            return self._refuse(number, CallError(Code.INVALID, fault))
        if size > limits.max_args:
            text = f"the arguments have {size} bytes, {limits.max_args} are taken; send less"
            return self._refuse(number, CallError(Code.TOO_LARGE, text))
        if use.args_bytes + size > limits.args_per_peer:
            return self._overloaded(number, f"{limits.args_per_peer} bytes of arguments of your open calls")
        if not self._has_room(number):
            return None
        deadline_ms = message.deadline_ms
        seconds = min(deadline_ms / 1000, limits.max_call) if deadline_ms else limits.max_call
        running = _Running(number, trio.current_time() + seconds, message.credit, size)
        call = IncomingCall(self._stream.peer, card, tool, args, seconds if deadline_ms else None, trace_id, key)
        self._admit(running)
        self._nursery.start_soon(self._run_call, running, call)
        return None

    def _take_subscribe(self, number: int, message: pb.Subscribe) -> None:
        self._check_number(number)
        fault = open_fault(message.card, message.trigger, message.trace_id)
        if fault is not None:
            return self._refuse(number, CallError(Code.INVALID, fault))
        handler = self._service.subscribe
        if handler is None:
            return self._refuse(number, CallError(Code.NOT_FOUND, "no such trigger: this node has none"))
        if not self._has_room(number):
            return None
        running = _Running(number, trio.current_time() + self._limits.max_call, message.credit, len(message.filter))
        subscription = IncomingSubscription(
            self._stream.peer, message.card, message.trigger, message.filter, message.trace_id
        )
        self._admit(running)
        self._nursery.start_soon(self._run_subscription, running, subscription, handler)
        return None

    def _check_number(self, number: int) -> None:
        if number in self._open:
            raise ProtocolViolation(f"call id {number} is open already; use a new one")

    def _has_room(self, number: int) -> bool:
        limits = self._limits
        if self._service.stopping:
            text = "this node is stopping; ask another one"
            self._refuse(number, CallError(Code.UNAVAILABLE, text, retryable=True))
        elif len(self._open) >= limits.calls_per_stream:
            self._overloaded(number, f"{limits.calls_per_stream} open calls on a stream")
        elif self._use.calls >= limits.calls_per_peer:
            self._overloaded(number, f"{limits.calls_per_peer} open calls of one peer")
        else:
            return True
        return False

    def _overloaded(self, number: int, bound: str) -> None:
        text = f"the bound of {bound} is reached; come back later or ask another node"
        self._refuse(number, CallError(Code.OVERLOADED, text, True, self._limits.retry_after_ms))

    def _refuse(self, number: int, error: CallError) -> None:
        self._service.refused += 1
        self._writer.send(error_frame(number, error, self._service.load_now()))

    def _admit(self, running: _Running) -> None:
        self._idle_limit = self._limits.idle_callee
        self._open[running.number] = running
        self._use.calls += 1
        self._use.args_bytes += running.args_bytes
        self._service.calls += 1
        self._unaccepted.set()

    def _finish(self, running: _Running) -> None:
        service = self._service
        del self._open[running.number]
        self._use.calls -= 1
        self._use.args_bytes -= running.args_bytes
        service.calls -= 1
        service.served += 1
        if not self._open:
            self._idle_since = trio.current_time()
        if not service.calls:
            service.idle.set()
            service.idle = trio.Event()

    async def _run_call(self, running: _Running, call: IncomingCall) -> None:
        async def emit(data: bytes) -> None:
            await self._emit(running, data)

        payload = b""
        error: CallError | None = None
        try:
            try:
                with running.scope:
                    payload = await self._service.handler(call, emit)
                if running.scope.cancelled_caught:
                    error = self._why_stopped(running)
                elif len(payload) > self._limits.max_args:
                    text = f"the result has {len(payload)} bytes, {self._limits.max_args} can be sent; ask for less"
                    error = CallError(Code.TOO_LARGE, text)
            except CallError as raised:
                error = raised
            except Exception:
                logger.exception("the handler of tool %r failed for %s", call.tool, call.peer)
                error = CallError(Code.INTERNAL, f"the tool {call.tool!r} failed; that node's log says why")
            if self._writer.full:
                await self._writer.wait_for_room()
        finally:
            self._finish(running)
        self._answer(running.number, payload, error)

    async def _run_subscription(
        self, running: _Running, subscription: IncomingSubscription, handler: SubscribeHandler
    ) -> None:
        sequence = 0

        async def emit(payload: bytes, at_ms: int) -> None:
            nonlocal sequence
            if len(payload) > self._limits.max_data:
                raise ValueError(f"an event has at most {self._limits.max_data} bytes, this one {len(payload)}")
            await self._wait_for_credit(running, len(payload))
            running.credit -= len(payload)
            sequence += 1
            event = pb.Event(payload=payload, sequence=sequence, at_ms=at_ms)
            self._writer.send(pb.Frame(call=running.number, event=event).SerializeToString())

        error: CallError | None = None
        try:
            try:
                with running.scope:
                    await handler(subscription, emit)
                if running.scope.cancelled_caught:
                    error = self._why_stopped(running)
            except CallError as raised:
                error = raised
            except Exception:
                logger.exception("the subscription to %r failed for %s", subscription.trigger, subscription.peer)
                error = CallError(Code.INTERNAL, "the trigger failed; that node's log says why")
        finally:
            self._finish(running)
        self._answer(running.number, b"", error)

    def _why_stopped(self, running: _Running) -> CallError:
        if running.cancelled:
            return CallError(Code.CANCELLED, "the caller called it off")
        return CallError(Code.DEADLINE, "the deadline passed before the tool was done; give it more time")

    def _answer(self, number: int, payload: bytes, error: CallError | None) -> None:
        load = self._service.load_now()
        if error is not None:
            self._writer.send(error_frame(number, error, load))
        else:
            self._writer.send(pb.Frame(call=number, result=pb.Result(payload=payload, load=load)).SerializeToString())

    async def _emit(self, running: _Running, data: bytes) -> None:
        start, size = 0, len(data)
        await trio.lowlevel.checkpoint_if_cancelled()
        while start < size:
            await self._wait_for_credit(running, 1)
            length = min(size - start, running.credit, self._limits.piece)
            running.credit -= length
            piece = data if length == size else data[start : start + length]
            self._writer.send(pb.Frame(call=running.number, data=pb.Data(payload=piece)).SerializeToString())
            start += length

    async def _wait_for_credit(self, running: _Running, size: int) -> None:
        """Until the call has *size* bytes of credit and the writer has room; both, at the same moment."""
        while running.credit < size or self._writer.full:
            if running.credit < size:
                running.credit_given = trio.Event()
                await running.credit_given.wait()
            else:
                await self._writer.wait_for_room()
            await trio.lowlevel.checkpoint_if_cancelled()

    async def _send_accepted(self) -> None:
        """Confirm the calls that take longer than *accept_after*: one timer for all of a stream's calls."""
        while True:
            await self._unaccepted.wait()
            await trio.sleep(self._limits.accept_after)
            self._unaccepted = trio.Event()
            for running in self._open.values():
                if running.accepted:
                    continue
                if not running.waited:  # it may have come a moment ago
                    running.waited = True
                    self._unaccepted.set()
                    continue
                running.accepted = True
                accepted = pb.Accepted(load=self._service.load_now())
                self._writer.send(pb.Frame(call=running.number, accepted=accepted).SerializeToString())

    async def _say_goodbye(self, reason: str) -> None:
        """Tell the peer why, in an Error on call 0, and give it a moment to read that before the reset."""
        self._service.violations += 1
        logger.warning("call stream of %s ended: %s", self._stream.peer, reason)
        self._writer.send(error_frame(0, CallError(Code.INVALID, reason)))
        with trio.move_on_after(self._limits.goodbye):
            await self._writer.finish()
            await self._stream.close()
            try:
                while await self._stream.read(65536):
                    continue
            except StreamClosed:
                return
