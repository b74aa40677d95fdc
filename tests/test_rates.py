"""Token buckets never give more than they say, never remember more than they say, and let the patient through."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atmosphere.rates import CALLS_BURST, FAMILY_BURST, CallRates, JoinRates, TokenBuckets

STEPS = st.lists(st.tuples(st.floats(-5, 60), st.floats(0.01, 3)), max_size=200)


@given(rate=st.floats(0.01, 1000), burst=st.floats(0.5, 1000), steps=STEPS)
def test_no_window_gets_more_than_burst_and_rate(
    rate: float, burst: float, steps: list[tuple[float, float]]
) -> None:
    buckets: TokenBuckets[str] = TokenBuckets(rate, burst, 4)
    now = latest = 0.0
    granted: list[tuple[float, float]] = []
    for step, cost in steps:
        now += step
        latest = max(latest, now)  # a clock that went back gives nothing until it has caught up
        if buckets.take("key", now, cost) == 0:
            granted.append((latest, cost))
    for start in range(len(granted)):
        taken = 0.0
        for at, cost in granted[start:]:
            taken += cost
            assert taken <= burst + rate * (at - granted[start][0]) + 1e-6 * (1 + taken)


@given(rate=st.floats(0.01, 1000), burst=st.floats(1, 1000), asked=st.integers(1, 100))
def test_who_waits_as_told_is_served(rate: float, burst: float, asked: int) -> None:
    buckets: TokenBuckets[str] = TokenBuckets(rate, burst, 4)
    now = 1000.0
    for _ in range(asked):
        seconds = buckets.take("key", now)
        if seconds:
            assert seconds == buckets.wait("key", now)
            now += seconds * (1 + 1e-9) + 1e-9
            assert buckets.take("key", now) == 0


@given(keys=st.lists(st.integers(0, 50)), capacity=st.integers(1, 8))
def test_remembers_the_latest_keys_only(keys: list[int], capacity: int) -> None:
    buckets: TokenBuckets[int] = TokenBuckets(1, 1, capacity)
    latest: list[int] = []
    for key in keys:
        refused = buckets.take(key, 0.0) > 0
        assert refused == (key in latest)
        latest = [*(other for other in latest if other != key), key][-capacity:]
        assert len(buckets) == len(latest)


def test_keys_do_not_share() -> None:
    buckets: TokenBuckets[str] = TokenBuckets(1, 2, 4)
    assert [buckets.take("a", 0), buckets.take("a", 0), buckets.take("a", 0), buckets.take("b", 0)] == [0, 0, 1, 0]


def test_more_than_the_burst_is_never_allowed_and_takes_nothing() -> None:
    buckets: TokenBuckets[str] = TokenBuckets(1, 2, 4)
    assert buckets.take("a", 0, 3) == math.inf
    assert buckets.take("a", 0, 2) == 0


@pytest.mark.parametrize("numbers", [(0, 1, 1), (1, 0, 1), (1, 1, 0), (math.nan, 1, 1)])
def test_refuses_limits_that_limit_nothing(numbers: tuple[float, float, int]) -> None:
    with pytest.raises(ValueError, match="must be positive"):
        TokenBuckets(*numbers)


def test_a_family_of_calls_cannot_take_all_of_a_peers_share() -> None:
    rates = CallRates()
    wild = sum(1 for _ in range(1000) if rates.take(b"peer", "mcp", 0.0) == 0)
    others = sum(1 for _ in range(1000) if rates.take(b"peer", "llm", 0.0) == 0)
    assert (wild, wild + others) == (FAMILY_BURST, CALLS_BURST)
    assert rates.take(b"another", "mcp", 0.0) == 0
    assert rates.take(b"peer", "mcp", 1.0) == 0


def test_joins_are_limited_by_peer_by_address_and_in_total() -> None:
    one_peer = JoinRates()
    assert sum(one_peer.take(b"peer", f"10.0.0.{n}", 0.0) == 0 for n in range(100)) == 5
    one_address = JoinRates()
    assert sum(one_address.take(b"peer %d" % n, "10.0.0.1", 0.0) == 0 for n in range(100)) == 5
    many = JoinRates()
    assert sum(many.take(b"peer %d" % n, f"10.0.0.{n}", 0.0) == 0 for n in range(100)) == 20
