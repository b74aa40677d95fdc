"""Outcomes: failures count at once and fade with time, so that nobody is ranked last for ever."""

from __future__ import annotations

import pytest

from atmosphere.routing.outcomes import FLOOR, HALF_LIFE_S, Outcomes
from tests.mesh.people import OTHER

CARD = bytes(32)


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_failures_sink_and_successes_raise(clock: Clock) -> None:
    outcomes = Outcomes(clock)
    assert outcomes.reliability(OTHER, CARD) == 1.0
    outcomes.record(OTHER, CARD, good=False)
    assert outcomes.reliability(OTHER, CARD) == pytest.approx(0.7)
    outcomes.record(OTHER, CARD, good=True)
    assert outcomes.reliability(OTHER, CARD) == pytest.approx(0.79)
    for _ in range(50):
        outcomes.record(OTHER, CARD, good=False)
    assert outcomes.reliability(OTHER, CARD) == FLOOR


def test_what_is_not_asked_is_forgiven(clock: Clock) -> None:
    outcomes = Outcomes(clock)
    outcomes.record(OTHER, CARD, good=False)
    clock.now += HALF_LIFE_S
    assert outcomes.reliability(OTHER, CARD) == pytest.approx(0.85)
    clock.now += 10 * HALF_LIFE_S
    assert outcomes.reliability(OTHER, CARD) == 1.0, "exactly: the owner's preference decides ties again"
