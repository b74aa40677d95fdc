"""Everything that is under way, in one heap of times, moved by one task."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable

import trio

TICKS_PER_SECOND = 1000
"""Times are rounded up to a millisecond, so that arrivals share a wake-up: ten thousand hosts are one task."""


class Wire:
    """Calls functions at times of Trio's clock, in order; those of one millisecond in the order of their asking.

    The functions are synchronous and must not raise: what they raise ends the network.
    """

    def __init__(self) -> None:
        self.events = 0
        self.wake_ups = 0
        self._due: dict[int, list[Callable[[], None]]] = {}
        self._ticks: list[int] = []  # a heap of the keys of _due
        self._scope: trio.CancelScope | None = None

    def __repr__(self) -> str:
        return f"<Wire, {len(self._ticks)} times ahead, {self.events} events in {self.wake_ups} wake-ups>"

    def at(self, when: float, call: Callable[[], None]) -> None:
        """Call *call* at *when*, or as soon as the wire's task runs if that is past. It cannot be taken back."""
        tick = math.ceil(when * TICKS_PER_SECOND - 1e-6)
        calls = self._due.get(tick)
        if calls is not None:
            calls.append(call)
            return
        self._due[tick] = [call]
        heapq.heappush(self._ticks, tick)
        deadline = tick / TICKS_PER_SECOND
        if self._scope is not None and deadline < self._scope.deadline:
            self._scope.deadline = deadline

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            deadline = self._ticks[0] / TICKS_PER_SECOND if self._ticks else math.inf
            with trio.CancelScope(deadline=deadline) as self._scope:
                await trio.sleep_forever()
            self._scope = None
            self.wake_ups += 1
            now = math.floor(trio.current_time() * TICKS_PER_SECOND + 1e-6)
            while self._ticks and self._ticks[0] <= now:
                calls = self._due.pop(heapq.heappop(self._ticks))
                self.events += len(calls)
                for call in calls:
                    call()
