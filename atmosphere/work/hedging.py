"""When a second node is asked as well: after what is slow for this tool, within a budget of extra calls.

After Dean and Barroso, "The Tail at Scale" (2013): waiting for the 95th percentile before the second request takes
most of the tail away for a few percent of extra load. Pure.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from statistics import median_low

SAMPLES = 128
"""Latencies kept of a tool: the last minutes, not the last days."""
ENOUGH = 20
"""Fewer say nothing of a 95th percentile."""
REFRESH = 16
"""Samples between two sortings."""
QUANTILE = 0.95
LEAST_FACTOR = 1.5
"""Of the median: where all calls take alike, five of a hundred still lie above the quantile, and a second call would
come back no sooner."""
SLOW_FACTOR = 3.0
"""Three times the median is slow too: where one node of a few is slow, the quantile is that node's own."""
MIN_WAIT_S = 0.010
"""Below this the second call would come back no sooner than the first."""
RATE = 0.05
"""Extra calls per call."""
BURST = 10.0
"""Extra calls that may be saved up in quiet times."""
FIRST = 2.0
"""Extra calls of a caller that has made none: its first slow answers are what its user judges the mesh by."""
LEAST_NEW_S = 1.0
"""What others state holds no way there, and who asks for the first time may have to connect."""


class Latencies:
    """Recent latencies of one tool of one card, wherever it ran."""

    __slots__ = ("_new", "_samples", "_wait_s")

    def __init__(self) -> None:
        self._samples: deque[float] = deque(maxlen=SAMPLES)
        self._new = 0
        self._wait_s: float | None = None

    def __repr__(self) -> str:
        return f"<Latencies of {len(self._samples)} calls, slow after {self._wait_s} s>"

    def add(self, seconds: float) -> None:
        self._samples.append(seconds)
        self._new += 1

    def slow_after(self) -> float | None:
        """Seconds after which a call is slow; None: too little is known."""
        if self._new >= REFRESH or (self._wait_s is None and len(self._samples) >= ENOUGH):
            if len(self._samples) < ENOUGH:
                return None
            self._new = 0
            ordered = sorted(self._samples)
            count = len(ordered)
            median = ordered[count // 2]
            slow = min(max(ordered[int(count * QUANTILE)], LEAST_FACTOR * median), SLOW_FACTOR * median)
            self._wait_s = max(MIN_WAIT_S, slow)
        return self._wait_s

    def slow_after_by(self, stated: Iterable[float]) -> float | None:
        """The same while too little is known here, with what nodes state of themselves; None: nothing at all."""
        known = [*self._samples, *stated]
        return max(LEAST_NEW_S, SLOW_FACTOR * median_low(known)) if known else None


class Budget:
    """Extra calls in proportion to calls, so that hedging cannot feed an overload."""

    __slots__ = ("_saved", "calls", "spent")

    def __init__(self) -> None:
        self._saved = FIRST
        self.calls = 0
        self.spent = 0

    def __repr__(self) -> str:
        return f"<Budget: {self.spent} extra calls for {self.calls}>"

    def earn(self) -> None:
        """A call was made."""
        self.calls += 1
        self._saved = min(self._saved + RATE, BURST)

    def take(self) -> bool:
        """Whether an extra call may be made; it is counted."""
        if self._saved < 1.0:
            return False
        self._saved -= 1.0
        self.spent += 1
        return True
