"""Where one of many calls goes: to the better of two nodes drawn at random.

"The power of two choices" (Mitzenmacher 2001): nearly as even as asking for the least busy one, and callers who do not
know of each other do not all run to the same node. How busy a node is: what this node has under way there, which is
known at once, and the load that the node reported, which others cause too; both in calls per slot, times the time that
calls take there. Pure.

Units of a map go where they are done soonest (:func:`spread`). A single call goes where the score is best, but not
always to the very best: fifty nodes that heard the same beacon a second ago would all choose the same one. So it is
drawn, too (:func:`draw_equal`): two, with chances in proportion to what they can do, which fall steeply with what the
score would be if all were idle; the better one wins, and one's own calls under way make the reported load younger. A
fit that is worse, another model, or a node that would have to read the conversation again is never drawn in place of
the best.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence

from atmosphere.mesh.table import Path
from atmosphere.routing.decision import Candidate
from atmosphere.work.breaker import Breaker, Circuit
from transports.peer_id import PeerId

CAPACITY = 20_000
"""Pairs kept; beyond it the oldest without work under way is forgotten."""
WEIGHT = 0.3
"""Of the newest duration in the running mean of a pair."""
FIT = 0.9
"""Work is spread over cards that match at least this well compared with the best: idleness is no skill."""
SHARPNESS = 8
"""Of the chances of a single call: to the power of this they follow the score. Nine tenths of the best score are drawn
0.43 times as often, half of it 0.004 times; and what is drawn has yet to win against another."""

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

    *seconds*: what a call takes there. What the node reports holds our own calls too, so the larger of the two counts,
    not the sum.
    """
    slots = max(slots, 1)
    pending = max(pair.under_way, load_permille / 1000 * slots + queue)
    ready = max(0.0, pair.busy_until - now)
    return ready + seconds * (pending + 1) / slots


def spread(
    candidates: Sequence[Candidate], cost: Callable[[Candidate], float], draw: Callable[[], float]
) -> list[Candidate]:
    """*candidates* in the order in which one unit tries them: the cheapest of the drawn ones first.

    The others follow by score, as they came: they are for the case that it fails. *cost*: lower is better; *draw*: a
    random number in [0, 1).
    """
    if len(candidates) < 2:
        return list(candidates)
    enough = FIT * max(map(_skill, candidates))
    fit = [candidate for candidate in candidates if _skill(candidate) >= enough]
    chosen = min(_drawn(fit, draw), key=cost)
    return [chosen, *(candidate for candidate in candidates if candidate is not chosen)]


def _skill(candidate: Candidate) -> float:
    """How well it can do the work, whoever is idle: its card's fit, its model's size, what the second stage said."""
    factors = candidate.factors
    return factors.get("match", 1.0) * factors.get("size", 1.0) * factors.get("second", 1.0)


def _drawn(fit: list[Candidate], draw: Callable[[], float]) -> list[Candidate]:
    """Two of *fit* by chance; of a few all, beginning anywhere, so that equals take turns."""
    first = int(draw() * len(fit))
    if len(fit) <= FEW:
        return fit[first:] + fit[:first]
    second = (first + 1 + int(draw() * (len(fit) - 1))) % len(fit)
    return [fit[first], fit[second]]


def draw_equal(
    candidates: Sequence[Candidate],
    now: Callable[[Candidate], float],
    capacity: Callable[[Candidate], float],
    draw: Callable[[], float],
) -> list[Candidate]:
    """*candidates* in the order in which one call tries them: the better of two drawn first, the others by score.

    *now*: a candidate's score with what is known of its load at this moment. *capacity*: calls that it can do in a
    given time, in any unit; the chances are in proportion to it. *draw*: a random number in [0, 1). The chances leave
    the load out: it is what everybody sees alike and nobody sees in time. The comparison takes it in, so the busiest
    of all is never first while anybody else is there.
    """
    if len(candidates) < 2:
        return list(candidates)
    best = candidates[0]
    equal = [one for one in candidates if _equal(one, best)]
    scores = [now(one) for one in equal]
    if best.path == Path.LOCAL and best.score > 0 and scores[0] >= best.score:
        return list(candidates)  # there is room here, and nowhere is better
    if len(equal) < 2:
        return list(candidates)
    weights = [capacity(one) * (one.score / one.factors.get("availability", 1.0)) ** SHARPNESS for one in equal]
    first = _weighted(weights, draw())
    weights[first] = 0.0
    second = _weighted(weights, draw())
    chosen = equal[first if scores[first] >= scores[second] else second]
    return [chosen, *(one for one in candidates if one is not chosen)]


def _equal(one: Candidate, best: Candidate) -> bool:
    """Whether *one* does the same as *best*, and is not known to begin with more work."""
    return (
        one.card.model == best.card.model
        and _skill(one) >= _skill(best)
        and one.factors.get("affinity", 1.0) >= best.factors.get("affinity", 1.0)
    )


def _weighted(weights: Sequence[float], point: float) -> int:
    """An index, each with the chance of its weight; *point* in [0, 1)."""
    left = point * sum(weights)
    for index, weight in enumerate(weights):
        left -= weight
        if left < 0:
            return index
    return len(weights) - 1
