"""One formula for how good a (node, card) pair is for an intent, its constants in one place.

    score = match * availability * locality * cost * reliability         every factor in (0, 1]

- match: the card's fit (matching.py); 1 where meaning has nothing to decide: a model was named, one card is left.
- availability: the seeds halve the score above 90 % load and take 0.7 above ten waiting calls; here both are smooth,
  so that two nodes never flip at a threshold: 1 - 0.5 load, times 1 / (1 + queue / 20).
- locality: the seeds give 1.3 below 10 ms, 1.1 below 50 ms, 0.8 above 200 ms; divided by 1.3 to stay in (0, 1].
- cost: 1 at the neutral cost of 1000 milli or below, then 1000 / cost, not below 0.25; a price takes a little more.
- reliability: the share of good outcomes lately (outcomes.py).

Multiplication makes capability outweigh the rest: no node is near or idle enough to make up for a card that does
not fit.
"""

from __future__ import annotations

from collections.abc import Mapping

from atmosphere.mesh.table import Node, Path, Route

LOAD_WEIGHT = 0.5
QUEUE_SCALE = 20.0
LOCALITY_MS: tuple[tuple[float, float], ...] = ((10.0, 1.3), (50.0, 1.1), (200.0, 1.0))
LOCALITY_FAR = 0.8
LOCALITY_UNKNOWN = 1.0
LOCALITY_BEST = 1.3
COST_FLOOR = 0.25
PRICE_SCALE_MICROS = 1_000_000.0


def factors(route: Route, match: float, reliability: float) -> Mapping[str, float]:
    """Every factor by name, in the order of the formula."""
    return {
        "match": match,
        "availability": availability(route.node),
        "locality": locality(route.node),
        "cost": cost(route),
        "reliability": reliability,
    }


def score(values: Mapping[str, float]) -> float:
    """The product of the factors."""
    result = 1.0
    for value in values.values():
        result *= value
    return result


def availability(node: Node) -> float:
    """Idle 1; falls with load and queue, never to 0."""
    return (1.0 - LOAD_WEIGHT * min(node.load_permille, 1000) / 1000) / (1.0 + node.queue / QUEUE_SCALE)


def locality(node: Node) -> float:
    """Here 1; then by measured round trip."""
    if node.path is Path.LOCAL:
        return 1.0
    if node.rtt_ms is None:
        return LOCALITY_UNKNOWN / LOCALITY_BEST
    near = next((value for limit, value in LOCALITY_MS if node.rtt_ms < limit), LOCALITY_FAR)
    # Two nodes of one class are still told apart: the nearer one is better by at most 1 %.
    return near / LOCALITY_BEST * (1.0 - 0.01 * min(node.rtt_ms, 1000.0) / 1000.0)


def cost(route: Route) -> float:
    """Neutral 1; falls with the node's stated cost and the offer's price."""
    stated = max(route.node.beacon.cost_milli if route.node.beacon else 1000, 1000)
    return max(COST_FLOOR, 1000 / stated) / (1.0 + route.entry.price_micros / PRICE_SCALE_MICROS)
