"""The formula by table: orderings and monotonicities that both founding papers agree on, and its bounds."""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

import pytest

from atmosphere.capabilities.card import Card
from atmosphere.capabilities.offer import OfferEntry
from atmosphere.mesh.table import Node, Path, Route
from atmosphere.routing.intent import Prefer
from atmosphere.routing.scoring import COST_FLOOR, FEEDBACK_WEIGHT, elsewhere, factors, score
from protocols.beacons import Beacon
from tests.mesh.people import ME, OTHER

CARD = Card("llm/chat", "chats", model="m")


class At(NamedTuple):
    """A candidate; what is not given is neutral: an idle node at 5 ms, of cost 1, of which nothing is known."""

    match: float = 1.0
    load: int = 0
    queue: int = 0
    rtt_ms: float | None = 5.0
    local: bool = False
    cost: int = 1000
    price: int = 0
    reliability: float = 1.0
    seconds: float = 0.0
    opinion: float = 0.0
    affinity: float = 1.0
    pace_ms: int = 0


def route(at: At) -> Route:
    beacon = Beacon(bytes(32), 1, 1, 15_000, bytes(32), 0, at.load, at.queue, at.cost)
    node = Node(ME if at.local else OTHER, 0.0, path=Path.LOCAL if at.local else Path.LAN, beacon=beacon,
                load_permille=at.load, queue=at.queue, rtt_ms=None if at.local else at.rtt_ms)
    return Route(node, OfferEntry(bytes(32), 1, at.price, pace_ms=at.pace_ms), CARD)


def of(at: At, prefer: Prefer = Prefer.BALANCED) -> float:
    values = factors(route(at), at.match, at.reliability, seconds=at.seconds, opinion=at.opinion,
                     affinity=at.affinity, prefer=prefer)
    assert all(0 < value <= 1 for value in values.values()), values
    return score(values)


BETTER = {
    # route_work of ARCHITECTURE.md
    "a better fit wins": (At(match=0.9), At(match=0.8)),
    "idle beats busy": (At(load=0), At(load=950)),
    "half busy beats full": (At(load=500), At(load=1000)),
    "a short queue beats a long one": (At(load=1000, queue=1), At(load=1000, queue=11)),
    "near beats far": (At(rtt_ms=5.0), At(rtt_ms=250.0)),
    "the same site beats far": (At(rtt_ms=30.0), At(rtt_ms=250.0)),
    "near beats the same site": (At(rtt_ms=5.0), At(rtt_ms=30.0)),
    "here beats near": (At(local=True), At(rtt_ms=5.0)),
    "measured near beats not measured": (At(rtt_ms=5.0), At(rtt_ms=None)),
    "not measured beats far": (At(rtt_ms=None), At(rtt_ms=250.0)),
    "idle far beats full with a queue near": (At(rtt_ms=250.0), At(load=1000, queue=10)),
    "a good fit that is busy beats a poor one that is idle": (At(match=0.9, load=950), At(match=0.4)),
    "a good fit far away beats a poor one near": (At(match=0.9, rtt_ms=250.0), At(match=0.5)),
    # the dynamic cost model of ROADMAP_TO_PRODUCTION.md
    "mains beats battery": (At(cost=1000), At(cost=2000)),
    "battery beats a battery that is low": (At(cost=2000), At(cost=10_000)),
    "unmetered beats metered": (At(cost=1000), At(cost=3000)),
    "free beats a price": (At(price=0), At(price=30_000)),
    "cheap beats dear": (At(price=15_000), At(price=30_000)),
    "capability outweighs cost: twice the fit beats half the cost": (At(match=0.9, cost=2000), At(match=0.45)),
    "capability outweighs cost: a clear fit on battery": (At(match=0.9, cost=2000), At(match=0.6)),
    "capability outweighs cost: even metered and on battery": (At(match=0.95, cost=6000), At(match=0.4)),
    "equal fit: cost decides": (At(match=0.8), At(match=0.8, cost=2000)),
    # what was learnt
    "reliable beats failing": (At(), At(reliability=0.7)),
    "fast beats slow": (At(seconds=2.0), At(seconds=12.0)),
    "stated to be fast beats stated to be slow": (At(pace_ms=2000), At(pace_ms=12_000)),
    "found fast beats stated to be slow, of others": (At(seconds=2.0), At(pace_ms=12_000)),
    "found slow, whatever it states": (At(seconds=2.0), At(seconds=12.0, pace_ms=1)),
    "found fast, whatever it states": (At(seconds=2.0, pace_ms=60_000), At(seconds=12.0)),
    "praise beats silence": (At(opinion=0.5), At()),
    "silence beats blame": (At(), At(opinion=-0.5)),
    "what has read the beginning beats what has not": (At(rtt_ms=8.0), At(affinity=elsewhere(0))),
    "a fit outweighs praise": (At(match=0.9, opinion=-1.0), At(match=0.5, opinion=1.0)),
}


@pytest.mark.parametrize("name", BETTER)
def test_orderings(name: str) -> None:
    better, worse = BETTER[name]
    assert of(better) > of(worse)


FALLING: dict[str, list[Any]] = {
    "match": [1.0, 0.9, 0.5, 0.1, 0.01],
    "load": [0, 250, 500, 900, 1000],
    "queue": [0, 1, 5, 10, 100],
    "rtt_ms": [0.1, 1.0, 9.9, 10.0, 49.0, 50.0, 199.0, 200.0, 999.0],
    "cost": [1000, 1001, 1500, 2000, 10_000, 20_000],
    "price": [0, 1, 10_000, 100_000],
    "reliability": [1.0, 0.7, 0.49, 0.1],
    "seconds": [1.0, 1.5, 5.0, 60.0, 600.0],
    "opinion": [1.0, 0.25, 0.0, -0.25, -1.0],
    "affinity": [1.0, 0.9, 0.5],
}


@pytest.mark.parametrize("name", FALLING)
@pytest.mark.parametrize("prefer", Prefer)
def test_monotonicity(name: str, prefer: Prefer) -> None:
    """Whatever else holds, and whatever is preferred, a worse figure gives a lower score."""
    for other in (At(), At(match=0.6, load=700, queue=2, cost=3000, reliability=0.5)):
        scores = [of(other._replace(**{name: value}), prefer) for value in FALLING[name]]
        assert all(before > after for before, after in itertools.pairwise(scores)), scores


NOTHING = {
    "cheaper than neutral is neutral": (At(cost=500), At(cost=1000)),
    "a first answer within a second is at once": (At(seconds=0.9), At(seconds=0.0)),
    "opinions are bounded": (At(opinion=5.0), At(opinion=1.0)),
    "overload is full": (At(load=5000), At(load=1000)),
    "beyond the floor cost does not count": (At(cost=100_000), At(cost=1_000_000)),
}


@pytest.mark.parametrize("name", NOTHING)
def test_what_makes_no_difference(name: str) -> None:
    one, other = NOTHING[name]
    assert of(one) == of(other)


def test_the_constants_that_the_seeds_give() -> None:
    assert of(At(local=True, load=1000)) == pytest.approx(0.8 * 0.5), "half above 90 % load; 0.8: nobody has praised it"
    assert of(At(rtt_ms=250.0)) / of(At(rtt_ms=5.0)) == pytest.approx(0.8 / 1.3, rel=0.01)
    assert of(At(rtt_ms=30.0)) / of(At(rtt_ms=5.0)) == pytest.approx(1.1 / 1.3, rel=0.01)
    assert of(At(cost=1_000_000)) / of(At()) == COST_FLOOR
    assert of(At(opinion=1.0)) / of(At()) == pytest.approx(1 + FEEDBACK_WEIGHT)


def test_doubling_the_cost_takes_less_than_halving_the_fit() -> None:
    """0.7 capability to 0.3 cost: at any cost and any fit."""
    for match, cost in itertools.product((0.2, 0.5, 1.0), (1000, 2000, 8000)):
        base = of(At(match=match, cost=cost))
        assert of(At(match=match, cost=2 * cost)) > of(At(match=match / 2, cost=cost))
        assert of(At(match=match / 2, cost=cost)) == pytest.approx(base / 2)


PREFERENCES = {
    Prefer.FAST: (At(load=0, cost=3000), At(load=700)),
    Prefer.CHEAP: (At(load=900), At(cost=1700)),
    Prefer.NEAR: (At(rtt_ms=5.0, load=700), At(rtt_ms=30.0, load=400)),
}


@pytest.mark.parametrize("prefer", PREFERENCES)
def test_a_preference_turns_what_is_close_and_never_what_is_not(prefer: Prefer) -> None:
    wanted, usual = PREFERENCES[prefer]
    assert of(wanted) < of(usual)
    assert of(wanted, prefer) > of(usual, prefer)
    assert of(At(match=0.9), prefer) > of(At(match=0.8), prefer)


def test_elsewhere_falls_with_the_length_of_the_request() -> None:
    assert [elsewhere(tokens) for tokens in (0, 2000, 4000, 10**6)] == pytest.approx([0.9, 0.7, 0.5, 0.5])
