"""One formula for how good a (node, card) pair is for an intent, its constants in one place.

    score = match * availability * locality * cost * speed * reliability * feedback * affinity     each in (0, 1]

- match: the card's fit (matching.py); 1 where meaning has nothing to decide: a model was named, one card is left.
- availability: the seeds halve the score above 90 % load and take 0.7 above ten waiting calls; here both are smooth,
  so that two nodes never flip at a threshold: 1 - 0.5 load, times 1 / (1 + queue / 20).
- locality: the seeds give 1.3 below 10 ms, 1.1 below 50 ms, 0.8 above 200 ms; divided by 1.3 to stay in (0, 1].
- cost: what the node says its work costs now (1000 milli is neutral) and the offer's price, together to the power of
  -3/7. The seeds' second formula weighs capability 0.7 and cost 0.3; in a product weights are exponents, so doubling
  the cost takes a quarter and halving the fit takes half: capability outweighs cost. Not below 0.25.
- speed: 1 / (1 + s / 20), s the seconds beyond the first until the pair's first answer lately: as it went here or,
  where it was not asked yet, as the node states it (its offer's pace); 1 while neither is known. The first second is
  free: what is fast enough is not told apart, so ties stay ties.
- reliability: the share of good outcomes lately (outcomes.py).
- feedback: what people said of the pair's answers: 0.8 if nothing, up to 1 for praise, down to 0.6 for blame.
- affinity: 1 for a node that has computed the request's beginning before (affinity.py) and is not overloaded, and
  for all where there is no such node; else 0.9 to 0.5, the lower the longer the request is.

Multiplication makes capability outweigh the rest: no node is near or idle enough to make up for a card that does
not fit. A request may prefer ``fast``, ``cheap`` or ``near``: then the factors of that name count three times.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from types import MappingProxyType
from typing import NamedTuple

from atmosphere.mesh.table import MAX_NODES, Node, Path, Route
from atmosphere.routing.intent import Prefer

LOAD_WEIGHT = 0.5
QUEUE_SCALE = 20.0
LOCALITY_MS: tuple[tuple[float, float], ...] = ((10.0, 1.3), (50.0, 1.1), (200.0, 1.0))
LOCALITY_FAR = 0.8
LOCALITY_UNKNOWN = 1.0
LOCALITY_BEST = 1.3
COST_NEUTRAL_MILLI = 1000
COST_EXPONENT = 3 / 7
"""The seeds' 0.3 for cost over their 0.7 for capability."""
COST_FLOOR = 0.25
PRICE_SCALE_MICROS = 10_000
"""The seeds add price * 100 to a cost of 1: a hundredth of the owner's unit per call doubles the neutral cost."""
SPEED_FREE_S = 1.0
SPEED_SCALE_S = 20.0
FEEDBACK_WEIGHT = 0.25
FEEDBACK_NONE = 1.0 / (1.0 + FEEDBACK_WEIGHT)
AFFINITY_NEAR = 0.9
"""Of the others when the request is short: enough to stay, where nothing else speaks against it."""
AFFINITY_FLOOR = 0.5
AFFINITY_TOKENS = 4000.0
"""A request this long takes the others to the floor: reading it again takes seconds."""
OVERLOADED_PERMILLE = 900
"""From here on (the seeds' threshold), or with a queue, a node's cache is not worth the wait."""
PREFERENCE_POWER = 3

PREFERRED: Mapping[Prefer, frozenset[str]] = MappingProxyType({
    Prefer.BALANCED: frozenset(),
    Prefer.FAST: frozenset({"availability", "locality", "speed"}),
    Prefer.CHEAP: frozenset({"cost"}),
    Prefer.NEAR: frozenset({"locality"}),
})
"""The factors that count more."""


FACTORS = ("match", "availability", "locality", "cost", "speed", "reliability", "feedback", "affinity")
"""In the order of the formula."""
Values = tuple[float, ...]
"""Of FACTORS, in their order."""


def factors(
    route: Route,
    match: float,
    reliability: float = 1.0,
    *,
    seconds: float = 0.0,
    opinion: float = 0.0,
    affinity: float = 1.0,
    prefer: Prefer = Prefer.BALANCED,
) -> Mapping[str, float]:
    """Every factor by name, in the order of the formula; their product is the score.

    *match*: 0..1. *reliability*, *seconds*, *opinion* (-1..1): what was learnt of the pair. *affinity*: see
    :func:`affinity`.
    """
    return named(values(route, Standing.of(route.node), match, (reliability, seconds, opinion), affinity, prefer))


def score(values: Mapping[str, float]) -> float:
    """The product of the factors."""
    return prod(values.values())


class Standing(NamedTuple):
    """What of the score depends on the node alone, as it is at one moment."""

    node: Node
    availability: float
    locality: float
    cost: float
    """Of an offer without a price."""

    @classmethod
    def of(cls, node: Node) -> Standing:
        return cls(node, availability(node.load_permille, node.queue), locality(node), cost(node))


class Standings:
    """The standing of every node, kept until the node changes: a node in the table is a value, never altered."""

    def __init__(self) -> None:
        self._kept: dict[bytes, Standing] = {}

    def __repr__(self) -> str:
        return f"<Standings of {len(self._kept)} nodes>"

    def of(self, node: Node) -> Standing:
        kept = self._kept.get(node.peer.raw)
        if kept is None or kept.node is not node:
            if kept is None and len(self._kept) >= MAX_NODES:  # of nodes that have gone, mostly
                self._kept.clear()
            kept = self._kept[node.peer.raw] = Standing.of(node)
        return kept


def values(
    route: Route,
    standing: Standing,
    match: float,
    learnt: tuple[float, float, float],
    affinity: float,
    prefer: Prefer = Prefer.BALANCED,
) -> Values:
    """The FACTORS of *route*, whose product is its score, without their names: there may be thousands of routes.

    *learnt*: reliability, seconds and opinion.
    """
    reliability, seconds, opinion = learnt
    price = route.entry.price_micros
    seconds = seconds or route.entry.pace_ms / 1000
    found = (
        match,
        standing.availability,
        standing.locality,
        cost(route.node, price) if price else standing.cost,
        speed(seconds) if seconds else 1.0,
        reliability,
        feedback(opinion) if opinion else FEEDBACK_NONE,
        affinity,
    )
    if prefer is Prefer.BALANCED:
        return found
    more = PREFERRED[prefer]
    return tuple(
        value**PREFERENCE_POWER if name in more else value for name, value in zip(FACTORS, found, strict=True)
    )


def named(values: Values) -> dict[str, float]:
    """*values* by the names of their factors."""
    return dict(zip(FACTORS, values, strict=True))


def availability(load_permille: int, queue: int) -> float:
    """Idle 1; falls with load and queue, never to 0."""
    return (1.0 - LOAD_WEIGHT * min(load_permille, 1000) / 1000) / (1.0 + queue / QUEUE_SCALE)


def locality(node: Node) -> float:
    """Here 1; then by measured round trip."""
    if node.path is Path.LOCAL:
        return 1.0
    if node.rtt_ms is None:
        return LOCALITY_UNKNOWN / LOCALITY_BEST
    near = next((value for limit, value in LOCALITY_MS if node.rtt_ms < limit), LOCALITY_FAR)
    # Two nodes of one class are still told apart: the nearer one is better by at most 1 %.
    return near / LOCALITY_BEST * (1.0 - 0.01 * min(node.rtt_ms, 1000.0) / 1000.0)


def cost(node: Node, price_micros: int = 0) -> float:
    """Neutral 1; falls with the node's stated cost and the offer's price."""
    stated = max(node.beacon.cost_milli if node.beacon else COST_NEUTRAL_MILLI, COST_NEUTRAL_MILLI)
    times = stated / COST_NEUTRAL_MILLI + price_micros / PRICE_SCALE_MICROS
    return 1.0 if times == 1.0 else float(max(COST_FLOOR, times**-COST_EXPONENT))


def speed(seconds: float) -> float:
    """1 for an answer within a second, or where nothing is known (0)."""
    return 1.0 / (1.0 + max(seconds - SPEED_FREE_S, 0.0) / SPEED_SCALE_S)


def feedback(opinion: float) -> float:
    """*opinion*: -1 (only blame) to 1 (only praise), 0: none."""
    return (1.0 + FEEDBACK_WEIGHT * min(1.0, max(-1.0, opinion))) / (1.0 + FEEDBACK_WEIGHT)


def overloaded(node: Node) -> bool:
    """Whether work that could go elsewhere should."""
    return node.load_permille >= OVERLOADED_PERMILLE or node.queue > 0


def elsewhere(tokens: int) -> float:
    """The affinity of nodes that would have to read a request of *tokens* from its beginning."""
    return max(AFFINITY_FLOOR, AFFINITY_NEAR - (AFFINITY_NEAR - AFFINITY_FLOOR) * tokens / AFFINITY_TOKENS)
