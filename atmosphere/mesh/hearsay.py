"""Which statements of others count: those that no later beacon has refuted, and so many per second. Pure."""

from __future__ import annotations

from collections.abc import MutableMapping

from atmosphere.mesh.detector_actions import Order
from transports.peer_id import PeerId

MAX_ORDERS = 10_000
STATED_PER_S = 20.0
STATED_BURST = 500.0
"""Statements taken in: a burst for a partition of a large mesh, the rate for ever. Beyond, they are ignored."""
NEVER: Order = (0, 0)


class Hearsay:
    """The last beacon of every peer, this node included, and the budget for statements."""

    def __init__(self) -> None:
        self._orders: MutableMapping[PeerId, Order] = {}
        self._left, self._counted_at = STATED_BURST, 0.0
        self.ignored = 0
        """Statements beyond the budget."""

    def __len__(self) -> int:
        """Peers of which a beacon is known, MAX_ORDERS at most: beyond, who was heard of longest ago is dropped."""
        return len(self._orders)

    def start_from(self, orders: MutableMapping[PeerId, Order]) -> None:
        """Know the last beacons by *orders* and keep them there."""
        self._orders = orders

    def order(self, peer: PeerId) -> Order:
        """The last beacon known of *peer*: a statement about an earlier one is refuted."""
        return self._orders.get(peer, NEVER)

    def renew(self, peer: PeerId, order: Order) -> Order:
        """A beacon has come; the last one known before it, which may be later."""
        known = self._orders.pop(peer, NEVER)
        self._orders[peer] = max(known, order)
        if len(self._orders) > MAX_ORDERS:
            del self._orders[next(iter(self._orders))]
        return known

    def forget(self, peer: PeerId) -> None:
        self._orders.pop(peer, None)

    def within_budget(self, own: float) -> bool:
        """Whether one more statement is taken in now; if not, it is counted."""
        earned = (own - self._counted_at) * STATED_PER_S
        self._left = min(STATED_BURST, self._left + max(0.0, earned))
        self._counted_at = own
        if self._left < 1.0:
            self.ignored += 1
            return False
        self._left -= 1.0
        return True
