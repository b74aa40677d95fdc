"""Many units over many nodes: for each, the better of two nodes drawn at random.

"The power of two choices" (Mitzenmacher 2001): nearly as even as asking for the least busy one, and callers who do not
know of each other do not all run to the same node. How busy a node is: what this node has under way there, which is
known at once, and the load that the node reported, which others cause too; both in calls per slot, times the time that
calls take there. Pure.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence

from atmosphere.routing.decision import Candidate
from atmosphere.work.breaker import Breaker, Circuit
from transports.peer_id import PeerId

CAPACITY = 20_000
"""Pairs kept; beyond it the oldest without work under way is forgotten."""
WEIGHT = 0.3
"""Of the newest duration in the running mean of a pair."""
FIT = 0.9
"""Work is spread over cards that match at least this well compared with the best: idleness is no skill."""

FEW = 3
"""So many nodes are all looked at: a dozen units over three nodes must not leave one of them a fifth."""


class Pair:
    """What this node has seen of one (node, card) pair as a caller."""

    __slots__ = ("breaker", "busy_until", "seconds", "under_way")

    def __init__(self) -> None:
        self.breaker = Breaker()
        self.under_way = 0
        """Calls of ours that run there or wait there."""
        self.seconds = 0.0
        """Running mean of how long answers took; 0: none came yet."""
        self.busy_until = 0.0
        """It said that it is overloaded, and when to come back."""

    def __repr__(self) -> str:
        return f"<Pair: {self.under_way} under way, {self.seconds * 1000:.1f} ms, {self.breaker!r}>"

    def took(self, seconds: float) -> None:
        """An answer came after *seconds*."""
        self.seconds = seconds if not self.seconds else self.seconds + WEIGHT * (seconds - self.seconds)


class Pairs:
    """The pairs by node and card, bounded."""

    def __init__(self) -> None:
        self._pairs: OrderedDict[tuple[PeerId, bytes], Pair] = OrderedDict()

    def __repr__(self) -> str:
        return f"<Pairs: {len(self._pairs)}>"

    def __len__(self) -> int:
        return len(self._pairs)

    def of(self, candidate: Candidate) -> Pair:
        key = (candidate.peer, candidate.card_id)
        found = self._pairs.get(key)
        if found is None:
            found = self._pairs[key] = Pair()
            if len(self._pairs) > CAPACITY:
                self._forget_one()
        return found

    def open(self) -> Iterator[tuple[PeerId, bytes, Breaker]]:
        """The breakers that are not closed."""
        return (
            (peer, card, pair.breaker)
            for (peer, card), pair in self._pairs.items()
            if pair.breaker.state is not Circuit.CLOSED
        )

    def under_way(self) -> int:
        """Calls at all of them."""
        return sum(pair.under_way for pair in self._pairs.values())

    def _forget_one(self) -> None:
        for key, pair in self._pairs.items():
            if not pair.under_way:
                del self._pairs[key]
                return


def strain(pair: Pair, slots: int, load_permille: int, queue: int, seconds: float, now: float) -> float:
    """Seconds until one more call would be answered there, roughly.

    *seconds*: what a call takes where nothing is known of the pair. What the node reports holds our own calls too, so
    the larger of the two counts, not the sum.
    """
    slots = max(slots, 1)
    pending = max(pair.under_way, load_permille / 1000 * slots + queue)
    ready = max(0.0, pair.busy_until - now)
    return ready + (pair.seconds or seconds or 1.0) * (pending + 1) / slots


def spread(
    candidates: Sequence[Candidate], cost: Callable[[Candidate], float], draw: Callable[[], float]
) -> list[Candidate]:
    """*candidates* in the order in which one unit tries them: the cheapest of the drawn ones first.

    The others follow by score, as they came: they are for the case that it fails. *cost*: lower is better; *draw*: a
    random number in [0, 1).
    """
    if len(candidates) < 2:
        return list(candidates)
    enough = FIT * max(candidate.factors.get("match", 1.0) for candidate in candidates)
    fit = [candidate for candidate in candidates if candidate.factors.get("match", 1.0) >= enough]
    chosen = min(_drawn(fit, draw), key=cost)
    return [chosen, *(candidate for candidate in candidates if candidate is not chosen)]


def _drawn(fit: list[Candidate], draw: Callable[[], float]) -> list[Candidate]:
    """Two of *fit* by chance; of a few all, beginning anywhere, so that equals take turns."""
    first = int(draw() * len(fit))
    if len(fit) <= FEW:
        return fit[first:] + fit[:first]
    second = (first + 1 + int(draw() * (len(fit) - 1))) % len(fit)
    return [fit[first], fit[second]]
