"""Who gets the next unit."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from atmosphere.capabilities.card import Effects
from atmosphere.routing.decision import Candidate
from atmosphere.work.spread import CAPACITY, Pair, Pairs, spread, strain
from tests.mesh.people import FOURTH, ME, OTHER, THIRD
from tests.work.world import CARD_ID, card
from transports.peer_id import PeerId


def candidate(peer: PeerId, match: float = 1.0, card_id: bytes = CARD_ID) -> Candidate:
    return Candidate(peer, peer.short, card_id, card(Effects.NONE), match, {"match": match}, "lan", None)


def busy(under_way: int, seconds: float = 0.0) -> Pair:
    pair = Pair()
    pair.under_way, pair.seconds = under_way, seconds
    return pair


def test_the_less_busy_of_two_is_first_and_the_rest_follow_by_score() -> None:
    four = [candidate(peer) for peer in (ME, OTHER, THIRD, FOURTH)]
    costs = {ME: 4.0, OTHER: 3.0, THIRD: 2.0, FOURTH: 1.0}
    draw = random.Random(1).random
    firsts = Counter(spread(four, lambda one: costs[one.peer], draw)[0].peer for _ in range(1200))
    assert firsts[ME] == 0  # the busiest of all is in every pair the worse one
    assert firsts[FOURTH] / 1200 == pytest.approx(1 / 2, abs=0.05)
    assert firsts[THIRD] / 1200 == pytest.approx(1 / 3, abs=0.05)
    order = spread(four, lambda one: costs[one.peer], draw)
    assert order[1:] == [one for one in four if one is not order[0]]


def test_of_three_the_least_busy_one_and_equals_take_turns() -> None:
    three = [candidate(peer) for peer in (ME, OTHER, THIRD)]
    draw = random.Random(1).random
    costs = {ME: 2.0, OTHER: 1.0, THIRD: 2.0}
    assert {spread(three, lambda one: costs[one.peer], draw)[0].peer for _ in range(50)} == {OTHER}
    firsts = Counter(spread(three, lambda one: 1.0, draw)[0].peer for _ in range(900))
    assert all(count / 900 == pytest.approx(1 / 3, abs=0.05) for count in firsts.values())
    assert len(firsts) == 3


def test_idleness_is_no_skill() -> None:
    """Work does not go to a card that fits worse because it is idle; it is there when the others fail."""
    good, poor = candidate(OTHER, 0.9), candidate(THIRD, 0.5)
    for seed in range(50):
        order = spread([good, poor], lambda one: 0.0 if one is poor else 9.0, random.Random(seed).random)
        assert order == [good, poor]


def test_strain_grows_with_what_is_under_way_and_with_how_long_it_takes() -> None:
    def of(pair: Pair, slots: int = 4, load: int = 0, queue: int = 0, seconds: float = 0.2) -> float:
        return strain(pair, slots, load, queue, seconds, 0.0)

    assert of(busy(1)) > of(busy(0))
    assert of(busy(4), slots=8) < of(busy(4), slots=4)
    assert of(busy(0), seconds=2.0) == pytest.approx(10 * of(busy(0), seconds=0.2))
    assert of(busy(0), load=1000, queue=3) == of(busy(7))  # others' work counts like ours
    assert of(busy(7), load=1000, queue=3) == of(busy(7))  # and ours is not counted twice
    waiting = busy(0)
    waiting.busy_until = 3.0
    assert of(waiting) > 3.0


def test_pairs_are_bounded_and_those_with_work_under_way_stay() -> None:
    pairs = Pairs()
    first = candidate(ME)
    pairs.of(first).under_way = 1
    for number in range(CAPACITY + 10):
        pairs.of(candidate(OTHER, card_id=number.to_bytes(32, "big")))
    assert len(pairs) <= CAPACITY
    assert pairs.of(first).under_way == 1
