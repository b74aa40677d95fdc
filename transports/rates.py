"""Token buckets: how often somebody may do something. Pure; the caller brings the time."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class TokenBuckets(Generic[K]):
    """One bucket for each key: *burst* at once, *rate* per second in the long run.

    Guarantee: in any *t* seconds a key that is remembered gets at most ``burst + rate * t``. At most *capacity* keys
    are remembered; the one that asked longest ago is forgotten first and starts with a full bucket when it returns, so
    one whose bucket is full again is forgotten too. *capacity* must exceed the keys that one attacker can have; where
    it cannot, put a limit with one key before it.
    """

    __slots__ = ("_buckets", "burst", "capacity", "rate")

    def __init__(self, rate: float, burst: float, capacity: int) -> None:
        if not (rate > 0 and burst > 0 and capacity > 0):
            raise ValueError(f"rate {rate}, burst {burst} and capacity {capacity} must be positive")
        self.rate = rate
        self.burst = burst
        self.capacity = capacity
        self._buckets: OrderedDict[K, tuple[float, float]] = OrderedDict()  # tokens at a time

    def __repr__(self) -> str:
        return f"<TokenBuckets {self.rate:g}/s, burst {self.burst:g}, {len(self)} of {self.capacity} keys>"

    def __len__(self) -> int:
        return len(self._buckets)

    def wait(self, key: K, now: float, cost: float = 1.0) -> float:
        """What :meth:`take` would answer, without taking."""
        if cost > self.burst:
            return math.inf
        missing = cost - self._tokens(key, now)
        return max(missing / self.rate, 1e-3) if missing > 0 else 0.0

    def take(self, key: K, now: float, cost: float = 1.0) -> float:
        """0 when *cost* was taken; otherwise nothing was, and it is the seconds until it is worth asking again.

        *now* is in seconds on any clock; one that goes back adds nothing. A *cost* above the burst is never allowed
        (infinity). Being refused costs nothing, so a client that waits as told is served.
        """
        seconds = self.wait(key, now, cost)
        if cost <= self.burst:
            latest = max(now, self._buckets.get(key, (0.0, now))[1])
            self._buckets[key] = (self._tokens(key, now) - (0.0 if seconds else cost), latest)
            self._buckets.move_to_end(key)
            while len(self._buckets) > self.capacity or self._oldest_is_full(now):
                self._buckets.popitem(last=False)
        return seconds

    def _oldest_is_full(self, now: float) -> bool:
        """Whether who asked longest ago has all that he may have: he need not be remembered."""
        tokens, at = next(iter(self._buckets.values()))
        return tokens + (now - at) * self.rate >= self.burst and len(self._buckets) > 1

    def _tokens(self, key: K, now: float) -> float:
        tokens, at = self._buckets.get(key, (self.burst, now))
        return min(self.burst, tokens + max(0.0, now - at) * self.rate)
