"""One direction of a connection: in order, late, of bounded width, and at times held up."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from enum import Enum
from functools import partial
from typing import Any, Protocol

import trio

from transports.libp2p.tcp import KEEPALIVE, SILENCE_TIMEOUT
from transports.libp2p.yamux import STALL_TIMEOUT
from transports.memory.links import MAX_RETRANSMISSION, Link
from transports.memory.wire import Wire

Item = Any
"""What is carried: the pipe knows only how many bytes it counts for."""


class Uplink:
    """What all connections of a host share when they send: its line to the internet, first come, first served."""

    __slots__ = ("bytes_per_s", "free_at")

    def __init__(self) -> None:
        self.bytes_per_s = math.inf
        self.free_at = 0.0


class Passage(Enum):
    """Whether what is sent arrives."""

    OPEN = "open"
    HELD = "held"
    """A process at one end stands still: the kernel has the bytes, and they are there when it goes on."""
    CUT = "cut"
    """Nothing comes through: TCP sends again and again, at growing intervals, and gives up after a while."""


_OPEN = Passage.OPEN
"""At hand: a member is looked up by a function of its class."""


class Ends(Protocol):
    """What a pipe tells the two ends of its connection."""

    def take(self, item: Item, size: int) -> None:
        """*item* has arrived."""

    def has_left(self, size: int) -> None:
        """That many bytes, which waited for room, are under way now."""

    def broken(self, reason: str) -> None:
        """The kernel has given the connection up."""


class Pipe:
    """From *sender* to *receiver*. Keeps the order, whatever the link does; what arrives at a closed end is lost.

    At most ``link.window`` bytes are under way; later ones wait, and their sender hears when they leave.
    """

    __slots__ = (
        "_cut_at",
        "_draw",
        "_free_at",
        "_last",
        "_moved_at",
        "_scheduled",
        "_stuck_since",
        "_uplink",
        "_waiting",
        "_watched",
        "_wire",
        "closed",
        "in_flight",
        "link",
        "passage",
        "receiver",
        "sender",
        "under_way",
    )

    def __init__(
        self, wire: Wire, link: Link, uplink: Uplink, draw: Callable[[], float], sender: Ends, receiver: Ends
    ) -> None:
        self._wire = wire
        self.link = link
        self._uplink = uplink
        self._draw = draw
        self.sender = sender
        self.receiver = receiver
        self.passage = Passage.OPEN
        self.closed = False
        self.in_flight = 0
        self.under_way: deque[tuple[float, int, Item]] = deque()
        self._waiting: deque[tuple[int, Item]] | None = None
        self._free_at = self._last = 0.0
        self._watched = False
        self._moved_at = -math.inf  # when one that waited left, or began to wait
        self._scheduled = False
        self._cut_at = -math.inf
        self._stuck_since: float | None = None

    def __repr__(self) -> str:
        waiting = len(self._waiting or ())
        return f"<Pipe {self.passage.value}, {self.in_flight} bytes under way, {waiting} frames wait>"

    def send(self, size: int, item: Item, extra_s: float = 0.0) -> bool:
        """Put *item*, which counts for *size* bytes, on its way; False if it has to wait for room first.

        *extra_s*: seconds that it takes longer than the link says.
        """
        if self._waiting or (self.in_flight and self.in_flight + size > self.link.window):
            if not self._waiting:
                self._waiting = deque()
                self._moved_at = trio.current_time()
                self._watch()
            self._waiting.append((size, item))
            return False
        self._launch(size, item, extra_s)
        return True

    def finish(self, item: Item) -> None:
        """Send *item* as the last one; what waits for room is dropped."""
        self._waiting = None
        self._launch(0, item, 0.0)

    def _launch(self, size: int, item: Item, extra_s: float) -> None:
        if self.closed:
            return
        now, link, uplink = trio.current_time(), self.link, self._uplink
        leaves = now
        if uplink.bytes_per_s != math.inf:
            leaves = uplink.free_at = max(now, uplink.free_at) + size / uplink.bytes_per_s
        if leaves < self._free_at:
            leaves = self._free_at
        self._free_at = leaves = leaves + size / link.bytes_per_s
        arrival = leaves + link.latency_s + extra_s
        if link.jitter_s:
            arrival += link.jitter_s * self._draw()
        if link.loss:
            arrival += link.lost_for(size, self._draw)
        if arrival < self._last:
            arrival = self._last
        self._last = arrival
        self.in_flight += size
        self.under_way.append((arrival, size, item))
        if self.passage is not _OPEN:
            self._stuck(now)
        elif not self._scheduled:
            self._schedule()

    def _schedule(self) -> None:
        if self.under_way and not self._scheduled:
            self._scheduled = True
            self._wire.at(self.under_way[0][0], self._arrive)

    def _arrive(self) -> None:
        self._scheduled = False
        limit = trio.current_time() + 1e-6
        under_way, receiver = self.under_way, self.receiver
        while under_way and under_way[0][0] <= limit and self.passage is _OPEN:
            _, size, item = under_way.popleft()
            self.in_flight -= size
            receiver.take(item, size)
            if self._waiting:
                self._fill()
        if under_way and self.passage is _OPEN:
            self._schedule()

    def _fill(self) -> None:
        while self._waiting and (not self.in_flight or self.in_flight + self._waiting[0][0] <= self.link.window):
            size, item = self._waiting.popleft()
            self._moved_at = trio.current_time()
            self._launch(size, item, 0.0)
            self.sender.has_left(size)

    def close(self) -> None:
        """Nothing more arrives."""
        self.closed = True
        self.under_way.clear()
        self._waiting = None

    # Faults -------------------------------------------------------------------------------------------------------

    def set_passage(self, passage: Passage) -> None:
        """From now on. What is under way when a link is cut is lost, and TCP sends it again once that helps."""
        if passage is self.passage or self.closed:
            return
        now, before = trio.current_time(), self.passage
        self.passage = passage
        if passage is Passage.OPEN:
            if before is Passage.CUT and self._stuck_since is not None:
                self._delay_until(self._next_retry(self._stuck_since, now) + self.link.latency_s)
            self._stuck_since = None
            self._schedule()
        elif passage is Passage.CUT:
            self._cut_at, self._stuck_since = now, None
            self._wire.at(now + KEEPALIVE + SILENCE_TIMEOUT, partial(self._give_up_idle, now))
            if self.under_way:
                self._stuck(now)

    def _stuck(self, now: float) -> None:
        if self.passage is Passage.CUT and self._stuck_since is None:
            self._stuck_since = now
            self._wire.at(now + SILENCE_TIMEOUT, partial(self._give_up, now))

    def _give_up(self, since: float) -> None:
        if self._stuck_since == since and not self.closed:
            self.sender.broken(f"TimeoutError: nothing was acknowledged for {SILENCE_TIMEOUT} s")

    def _give_up_idle(self, since: float) -> None:
        if self.passage is Passage.CUT and self._cut_at == since and not self.closed:
            self.sender.broken(f"TimeoutError: no keepalive was answered for {SILENCE_TIMEOUT} s")

    def _watch(self) -> None:
        """Look again when frames have waited for too long; once at a time."""
        if not self._watched:
            self._watched = True
            self._wire.at(self._moved_at + STALL_TIMEOUT, self._give_up_full)

    def _give_up_full(self) -> None:
        self._watched = False
        if self._waiting and not self.closed:
            if trio.current_time() - self._moved_at >= STALL_TIMEOUT:
                self.sender.broken(f"the peer took no bytes for {STALL_TIMEOUT:.0f} s")
            else:
                self._watch()

    def _next_retry(self, since: float, now: float) -> float:
        """When TCP, whose intervals double, sends again for the first time after *now*."""
        retry, wait = since, self.link.retransmission_s
        while retry < now:
            retry += wait
            wait = min(2 * wait, MAX_RETRANSMISSION)
        return retry

    def _delay_until(self, arrival: float) -> None:
        self.under_way = deque((max(arrival, due), size, item) for due, size, item in self.under_way)
        self._last = max(arrival, self._last)
