"""When a call is slow, and how many second calls that may cost."""

from __future__ import annotations

import pytest

from atmosphere.work.hedging import ENOUGH, LEAST_FACTOR, MIN_WAIT_S, RATE, SLOW_FACTOR, Budget, Latencies


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
    assert spent == pytest.approx(1000 * RATE, abs=1)
    for _ in range(100_000):
        budget.earn()
    burst = sum(budget.take() for _ in range(1000))
    assert burst == 10
    assert budget.spent == spent + burst
