"""A thousand detectors for 1,000 node-hours, beside a naive heartbeat in the same worlds: who is wrong how often."""

from __future__ import annotations

import dataclasses

import pytest

from simulations.detector import Conditions, Result, World, naive_heartbeat, upper_bound
from simulations.detector.report import quantile

GOAL = 20.0
WORLD = Conditions()
"""1,000 nodes for 20 minutes: three of them are 1,000 node-hours."""
LOSSES = (0.0, 0.05, 0.10)
QUIET = dataclasses.replace(WORLD, loss=0.05, stalls_per_minute=0.0, deaths_per_hour=0.0, duration_s=60.0)


def both(conditions: Conditions) -> tuple[Result, Result]:
    world = World(conditions)
    ours = world.run()
    return ours, naive_heartbeat(conditions, world.settings.dead_min_s)


@pytest.fixture(scope="module")
def figures() -> dict[float, tuple[Result, Result]]:
    return {}


@pytest.mark.parametrize("loss", LOSSES)
def test_deaths_are_found_in_ten_seconds_and_the_living_left_alone(
    loss: float, figures: dict[float, tuple[Result, Result]]
) -> None:
    ours, naive = figures[loss] = both(dataclasses.replace(WORLD, loss=loss))
    print(f"\n{loss:.0%} loss, {ours.node_hours:.0f} node-hours: false deaths {ours.false_deaths} (95 %: "
          f"<= {ours.bound_per_node_hour:.2g} per node-hour), elsewhere {ours.false_elsewhere}, naive "
          f"{naive.false_deaths}; {ours.deaths} deaths, first neighbour p50 {quantile(ours.first, 0.5):.2f} "
          f"p99 {quantile(ours.first, 0.99):.2f} s, 99 % of nodes p50 {quantile(ours.everywhere, 0.5):.2f} "
          f"p99 {quantile(ours.everywhere, 0.99):.2f} s; naive first p50 {quantile(naive.first, 0.5):.1f} s; "
          f"messages {ours.per_node_second(ours.probes):.1f} + {ours.per_node_second(ours.gossip):.1f} gossip")
    assert ours.missed == 0
    assert quantile(ours.first, 0.99) <= 10.0
    assert quantile(ours.everywhere, 0.99) <= 10.0
    assert quantile(ours.first_refused, 0.5) <= 1.0
    assert quantile(ours.everywhere_refused, 0.5) <= 1.0
    assert ours.bound_per_node_hour <= 0.05


def test_twenty_times_fewer_false_deaths_than_a_naive_heartbeat(figures: dict[float, tuple[Result, Result]]) -> None:
    """Over the three losses, by the 95 % upper bound of ours."""
    if len(figures) < len(LOSSES):
        pytest.skip("needs the worlds above")
    ours = sum(ours.false_deaths for ours, _ in figures.values())
    naive = sum(naive.false_deaths for _, naive in figures.values())
    print(f"\nfalse deaths: {ours} against {naive}, {naive / upper_bound(ours):.0f} times fewer at least")
    assert naive >= GOAL * upper_bound(ours)


def test_the_messages_of_a_node_do_not_grow_with_the_mesh() -> None:
    per_second = {}
    for nodes in (100, 300, 1000):
        result = World(dataclasses.replace(QUIET, nodes=nodes)).run()
        per_second[nodes] = result.per_node_second(result.probes + result.gossip)
        assert result.false_deaths == 0
    print(f"\nmessages per node and second: {per_second}")
    assert per_second[1000] <= 1.1 * per_second[100]


def test_the_same_seed_is_the_same_world() -> None:
    conditions = dataclasses.replace(WORLD, nodes=60, duration_s=120.0, loss=0.1, deaths_per_hour=20.0)
    first, again = World(conditions).run(), World(conditions).run()
    assert first == again
    assert naive_heartbeat(conditions, 5.0) == naive_heartbeat(conditions, 5.0)
    assert first != World(dataclasses.replace(conditions, seed=2)).run()


@pytest.mark.parametrize(("events", "bound"), [(0, 2.996), (1, 4.744), (2, 6.296), (10, 16.962), (100, 118.1)])
def test_the_upper_bound_is_that_of_the_tables(events: int, bound: float) -> None:
    assert upper_bound(events) == pytest.approx(bound, rel=1e-3)
