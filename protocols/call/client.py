"""The caller of ``/atmosphere/call/1``: calls to a peer share a few long-lived streams.

A call costs no task and no stream of its own: its frames are queued for the stream's writer, and the stream's reader
hands the answers to whoever waits. So a cancelled caller touches nothing that others use.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import trio

from protocols.call.errors import CallError, Code
from protocols.call.limits import CallLimits
from protocols.call.link import Counters, Link
from protocols.call.messages import Load, open_fault
from protocols.call.outgoing import OutgoingCall
from transports.errors import TransportError
from transports.peer_id import PeerId
from transports.stream import Stream, StreamClosed

logger = logging.getLogger(__name__)

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
        self._counters = Counters()

    def __repr__(self) -> str:
        return f"<CallClient {self.statistics()}>"

    def statistics(self) -> ClientStatistics:
        links = [link for peer in self._peers.values() for link in (*peer.shared, *peer.bulk)]
        return ClientStatistics(
            peers=len(self._peers),
            streams=len(links),
            calls=sum(len(link.calls) for link in links),
            streams_opened=self._counters.streams_opened,
            calls_started=self._counters.calls_started,
            calls_cancelled=self._counters.calls_cancelled,
            streams_lost=self._counters.streams_lost,
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
        return OutgoingCall(self._start, limits, peer, card, tool, args, deadline, trace_id, idempotency_key, on_load)

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
        size = len(call.args)
        fault = open_fault(call.card, call.tool, call.trace_id, call.key)
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
            self._counters.calls_started += 1
        except BaseException:
            if call.slot is not None:
                call.slot.release()
                call.slot = None
            raise
        finally:
            peer.starting -= 1
            self._forget_if_unused(call.peer, peer)

    async def _start_slowly(self, peer: _Peer, call: OutgoingCall, bulk: bool) -> Link:
        """A link with room for *call*, opened if need be. All waiting of a start is here, within its deadline."""
        with trio.CancelScope(deadline=call.deadline):
            if bulk:
                await peer.bulk_slots.acquire()
                call.slot = peer.bulk_slots
            for _ in range(MAX_ATTEMPTS):
                link = await self._link(call.peer, peer, bulk)
                await link.writer.wait_for_room()
                if link.usable:
                    return link
            text = f"streams to {call.peer.short} break as soon as they are opened; try another node"
            raise CallError(Code.UNAVAILABLE, text, retryable=True)
        text = f"no stream to {call.peer.short} within the deadline; the call was not sent"
        raise CallError(Code.DEADLINE, text, retryable=True)

    async def _link(self, address: PeerId, peer: _Peer, bulk: bool) -> Link:
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
            link = Link(stream, self.limits, self._counters)
            links.append(link)
            self._counters.streams_opened += 1
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

    async def _run_link(self, address: PeerId, peer: _Peer, links: list[Link], link: Link) -> None:
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
        self.shared: list[Link] = []
        self.bulk: list[Link] = []
        self.bulk_slots = trio.Semaphore(limits.bulk_streams)
        self.opening = trio.Lock()
        self.starting = 0  # calls that are about to get a link
        self._limits = limits

    def ready(self) -> Link | None:
        """A shared link that takes a small call now, without waiting."""
        for link in self.shared:
            if len(link.calls) < self._limits.busy_stream and not link.writer.full and link.usable:
                return link
        return None

    def choose(self, bulk: bool) -> Link | None:
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
