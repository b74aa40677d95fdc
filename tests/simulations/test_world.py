"""A small world of real nodes: it is whole, even and the same every time."""

from __future__ import annotations

import random

from simulations.metrics import Spread, quantile
from simulations.world import topology


def test_a_topology_is_even_and_whole() -> None:
    graph = topology(100, 8, random.Random(1))
    assert all(6 <= len(neighbours) <= 8 for neighbours in graph)
    assert all(number in graph[other] for number, neighbours in enumerate(graph) for other in neighbours)
    reached, fringe = {0}, {0}
    while fringe:
        fringe = {other for number in fringe for other in graph[number]} - reached
        reached |= fringe
    assert len(reached) == 100


def test_two_nodes_have_one_link() -> None:
    assert topology(2, 8, random.Random(1)) == [{1}, {0}]


def test_a_quantile_is_a_value_that_was_there() -> None:
    assert [quantile(100, share) for share in (0.5, 0.99, 1.0)] == [49, 98, 99]
    assert quantile(1, 0.5) == 0
    assert Spread.of([0.3, 0.1, 0.2]) == Spread(200.0, 300.0, 300.0)
    assert Spread.of([]) is None
