"""What became of earlier work: a bounded memory of good and bad outcomes per (node, card).

Bad outcomes fade: who is ranked last is hardly ever asked, so only time can give it a second chance. A backend that
was restarted is what its owner prefers again a few minutes later, even where nobody had to try it.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Callable

from transports.peer_id import PeerId

WEIGHT = 0.3
"""Of the newest outcome in the running mean: three failures in a row leave a third."""
FLOOR = 0.1
"""A pair that always failed is still tried when nobody else is there."""
HALF_LIFE_S = 30.0
"""In which what is missing to 1 halves. The circuit breaker keeps a pair that is still broken from being hammered."""
FORGIVEN = 0.99
"""From here on it counts as 1: ties are broken by the owner's preference again."""
CAPACITY = 20_000


class Outcomes:
    """Running mean of success, 1 for a pair that was never tried."""

    def __init__(self, monotonic: Callable[[], float] = lambda: 0.0) -> None:
        """*monotonic*: Env's clock, seconds; without one nothing fades."""
        self._monotonic = monotonic
        self._means: OrderedDict[tuple[PeerId, bytes], tuple[float, float]] = OrderedDict()  # (mean, as of)

    def __repr__(self) -> str:
        return f"<Outcomes of {len(self._means)} pairs>"

    def record(self, peer: PeerId, card_id: bytes, good: bool) -> None:
        """Take in one outcome."""
        mean = self._mean(peer, card_id)
        mean += WEIGHT * ((1.0 if good else 0.0) - mean)
        self._means.pop((peer, card_id), None)
        self._means[peer, card_id] = (mean, self._monotonic())
        if len(self._means) > CAPACITY:
            self._means.popitem(last=False)

    def reliability(self, peer: PeerId, card_id: bytes) -> float:
        """FLOOR..1."""
        return max(FLOOR, self._mean(peer, card_id))

    def worst(self, count: int) -> list[tuple[PeerId, bytes, float]]:
        """At most *count* pairs whose mean is below 1, the least reliable first."""
        below = ((*pair, mean) for pair in self._means if (mean := self._mean(*pair)) < 1.0)
        return heapq.nsmallest(count, below, key=lambda item: item[2])

    def _mean(self, peer: PeerId, card_id: bytes) -> float:
        known = self._means.get((peer, card_id))
        if known is None or known[0] == 1.0:
            return 1.0
        mean, at = known
        mean = 1.0 - (1.0 - mean) * 0.5 ** ((self._monotonic() - at) / HALF_LIFE_S)
        return 1.0 if mean > FORGIVEN else mean
