"""When a call is slow, and how many second calls that may cost."""

from __future__ import annotations

import pytest

from atmosphere.work.hedging import (
    ENOUGH,
    FIRST,
    LEAST_FACTOR,
    LEAST_NEW_S,
    MIN_WAIT_S,
    RATE,
    SLOW_FACTOR,
    Budget,
    Latencies,
)


def test_too_few_latencies_say_nothing() -> None:
    latencies = Latencies()
    for _ in range(ENOUGH - 1):
        latencies.add(0.2)
    assert latencies.slow_after() is None
    latencies.add(0.2)
    assert latencies.slow_after() is not None


def test_where_all_take_alike_nothing_is_slow_until_it_is() -> None:
    latencies = Latencies()
    for number in range(100):
        latencies.add(0.2 + number / 10_000)
    assert latencies.slow_after() == pytest.approx(LEAST_FACTOR * 0.205)


def test_slow_is_beyond_the_95th_percentile() -> None:
    latencies = Latencies()
    for number in range(100):
        latencies.add(0.1 + number / 250)
    assert latencies.slow_after() == pytest.approx(0.48)


def test_a_slow_node_among_few_does_not_make_slowness_the_rule() -> None:
    latencies = Latencies()
    for number in range(99):
        latencies.add(2.0 if number % 5 == 0 else 0.2)
    assert latencies.slow_after() == pytest.approx(SLOW_FACTOR * 0.2)


@pytest.mark.parametrize(("own", "stated", "slow_s"), [
    ((), (), None),
    ((), (2.0,), 6.0),
    ((), (2.0, 2.2, 20.0), 6.6),
    ((), (2.0, 20.0), 6.0),  # of two the faster one
    ((), (0.1, 0.1), LEAST_NEW_S),
    ((2.0,), (), 6.0),
    ((20.0,), (2.0, 2.0), 6.0),  # it has been at a slow one
    ((2.0,) * 9, (0.001,) * 8, 6.0),  # liars
], ids=repr)
def test_a_new_caller_goes_by_what_the_nodes_state(
    own: tuple[float, ...], stated: tuple[float, ...], slow_s: float | None
) -> None:
    latencies = Latencies()
    for seconds in own:
        latencies.add(seconds)
    assert latencies.slow_after() is None
    assert latencies.slow_after_by(stated) == (None if slow_s is None else pytest.approx(slow_s))


def test_the_first_slow_answers_are_hedged_and_no_more() -> None:
    budget = Budget()
    assert sum(budget.take() for _ in range(10)) == FIRST


def test_old_latencies_are_forgotten() -> None:
    latencies = Latencies()
    for _ in range(500):
        latencies.add(5.0)
    for _ in range(128):
        latencies.add(0.1)
    assert latencies.slow_after() == pytest.approx(LEAST_FACTOR * 0.1)


def test_what_is_quick_anyway_is_not_hedged_below_the_least_wait() -> None:
    latencies = Latencies()
    for _ in range(ENOUGH):
        latencies.add(0.0005)
    assert latencies.slow_after() == MIN_WAIT_S


def test_the_budget_is_a_share_of_the_calls_and_saves_up_little() -> None:
    budget = Budget()
    spent = 0
    for _ in range(1000):
        budget.earn()
        spent += budget.take()
    assert spent == pytest.approx(FIRST + 1000 * RATE, abs=1)
    for _ in range(100_000):
        budget.earn()
    burst = sum(budget.take() for _ in range(1000))
    assert burst == 10
    assert budget.spent == spent + burst
