"""Outcomes: failures count at once and fade with time, so that nobody is ranked last for ever."""

from __future__ import annotations

import pytest

from atmosphere.routing.outcomes import (
    CAPACITY,
    FLOOR,
    HALF_LIFE_S,
    MAX_SECONDS,
    OPINION_HALF_LIFE_S,
    OPINION_STEP,
    SPEED_HALF_LIFE_S,
    Outcomes,
)
from tests.mesh.people import OTHER, THIRD

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


def test_opinions_move_in_bounded_steps_and_fade_over_weeks(clock: Clock) -> None:
    outcomes = Outcomes(clock)
    assert outcomes.opinion(OTHER, CARD) == 0.0
    assert outcomes.judge(OTHER, CARD, good=True) == OPINION_STEP
    for _ in range(100):
        outcomes.judge(OTHER, CARD, good=True)
    assert 0.99 < outcomes.opinion(OTHER, CARD) <= 1.0
    outcomes.judge(OTHER, CARD, good=False)
    assert outcomes.opinion(OTHER, CARD) == pytest.approx(0.5, abs=0.01), "one word turns no reputation over"
    clock.now += OPINION_HALF_LIFE_S
    assert outcomes.opinion(OTHER, CARD) == pytest.approx(0.25, abs=0.01)
    assert outcomes.reliability(OTHER, CARD) == 1.0, "a bad answer is no failure"


def test_speed_is_a_running_mean_of_good_outcomes_that_fades(clock: Clock) -> None:
    outcomes = Outcomes(clock)
    assert outcomes.seconds(OTHER, CARD) == 0.0
    outcomes.record(OTHER, CARD, good=True, seconds=2.0)
    assert outcomes.seconds(OTHER, CARD) == 2.0
    outcomes.record(OTHER, CARD, good=True, seconds=12.0)
    assert outcomes.seconds(OTHER, CARD) == pytest.approx(5.0)
    outcomes.record(OTHER, CARD, good=False, seconds=100.0)
    outcomes.record(OTHER, CARD, good=True)
    assert outcomes.seconds(OTHER, CARD) == pytest.approx(5.0)
    clock.now += SPEED_HALF_LIFE_S
    assert outcomes.seconds(OTHER, CARD) == pytest.approx(2.5), "who is slow today may be faster tomorrow"
    outcomes.record(OTHER, CARD, good=True, seconds=1e9)
    assert outcomes.seconds(OTHER, CARD) < MAX_SECONDS


def test_nothing_is_kept_of_who_is_forgotten(clock: Clock) -> None:
    outcomes = Outcomes(clock)
    for peer in (OTHER, THIRD):
        outcomes.judge(peer, CARD, good=False)
        outcomes.record(peer, CARD, good=False)
    outcomes.forget(OTHER)
    assert (outcomes.opinion(OTHER, CARD), outcomes.reliability(OTHER, CARD)) == (0.0, 1.0)
    assert outcomes.unsaved == {(THIRD, CARD)}
    assert outcomes.opinion(THIRD, CARD) < 0


def test_bounded_the_oldest_go_first(clock: Clock) -> None:
    outcomes = Outcomes(clock)
    for number in range(CAPACITY + 3):
        outcomes.judge(OTHER, number.to_bytes(32, "big"), good=True)
        outcomes.judge(OTHER, CARD, good=True)  # CARD is number 0: used all the time
    assert len(outcomes) == CAPACITY == len(outcomes.unsaved)
    assert outcomes.opinion(OTHER, (1).to_bytes(32, "big")) == 0.0
    assert outcomes.opinion(OTHER, CARD) > 0.9
