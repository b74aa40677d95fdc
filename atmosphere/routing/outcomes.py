"""What became of earlier work: a bounded memory of good and bad outcomes per (node, card)."""

from __future__ import annotations

from collections import OrderedDict

from transports.peer_id import PeerId

WEIGHT = 0.3
"""Of the newest outcome in the running mean: three failures in a row leave a third."""
FLOOR = 0.1
"""A pair that always failed is still tried when nobody else is there."""
CAPACITY = 20_000


class Outcomes:
    """Running mean of success, 1 for a pair that was never tried."""

    def __init__(self) -> None:
        self._means: OrderedDict[tuple[PeerId, bytes], float] = OrderedDict()

    def __repr__(self) -> str:
        return f"<Outcomes of {len(self._means)} pairs>"

    def record(self, peer: PeerId, card_id: bytes, good: bool) -> None:
        """Take in one outcome."""
        mean = self._means.pop((peer, card_id), 1.0)
        self._means[peer, card_id] = mean + WEIGHT * ((1.0 if good else 0.0) - mean)
        if len(self._means) > CAPACITY:
            self._means.popitem(last=False)

    def reliability(self, peer: PeerId, card_id: bytes) -> float:
        """FLOOR..1."""
        return max(FLOOR, self._means.get((peer, card_id), 1.0))
