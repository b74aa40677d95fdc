"""What people taught: near intents go elsewhere, all others stay as they were, and nothing grows."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atmosphere.routing.lessons import CAPACITY, HALF_LIFE_S, NEAR, PER_CARD, PRIOR, WEIGHT, Lessons
from atmosphere.routing.matching import SHARPNESS, SHORTLIST, Vector
from tests.mesh.people import OTHER, THIRD
from tests.routing.test_matching import CARDS, HEATING, LIGHTS, best, key, known, vector

CARD, SECOND = key(0), key(1)
ONE = WEIGHT / (PRIOR + 1.0)


def turned(cosine: float, dimensions: int = 16, axis: int = 1) -> Vector:
    """A unit vector with that cosine to the first axis."""
    found = np.zeros(dimensions, dtype=np.float32)
    found[0], found[axis] = cosine, math.sqrt(1 - cosine**2)
    return found


HERE = turned(1.0)


def test_one_word_moves_the_very_intent_by_more_than_makes_a_card_half_as_good() -> None:
    lessons = Lessons()
    lessons.teach(OTHER, CARD, HERE, good=False)
    assert lessons.lifts(HERE) == {CARD: pytest.approx(-ONE, abs=1e-4)}
    assert math.log(2) / SHARPNESS < ONE


@pytest.mark.parametrize("words", [(True,), (False,), (True, False), (True, True, False), (False,) * 40])
@pytest.mark.parametrize("cosine", [-1.0, 0.0, NEAR - 0.01, NEAR + 0.01, 0.8, 1.0])
def test_bounded_near_and_nothing_further_off(words: tuple[bool, ...], cosine: float) -> None:
    lessons = Lessons()
    for axis, good in enumerate(words):
        lessons.teach(OTHER, CARD, turned(0.999, 64, 1 + axis), good=good)
    lift = lessons.lifts(turned(cosine, 64, 63)).get(CARD, 0.0)
    assert abs(lift) < WEIGHT
    if cosine < NEAR:
        assert lift == 0.0
    elif len(set(words)) == 1:
        assert (lift > 0) is words[0]
    elif words == (True, False):
        assert lift == pytest.approx(0.0, abs=1e-6)


def test_the_nearer_and_the_more_the_further_it_moves() -> None:
    lessons = Lessons()
    lessons.teach(OTHER, CARD, HERE, good=True)
    single = [lessons.lifts(turned(cosine)).get(CARD, 0.0) for cosine in (0.4, 0.6, 0.8, 1.0)]
    assert single == sorted(single)
    lessons.teach(OTHER, CARD, turned(0.9, axis=2), good=True)
    assert lessons.lifts(turned(0.8))[CARD] > single[2]


def test_the_last_word_on_the_same_intent_counts() -> None:
    lessons = Lessons()
    for good in (False, True, False, True):
        lessons.teach(OTHER, CARD, HERE, good=good)
    assert len(lessons) == 1
    assert lessons.lifts(HERE)[CARD] == pytest.approx(ONE, abs=1e-4)


def test_lessons_fade() -> None:
    now = 0.0
    lessons = Lessons(lambda: now)
    lessons.teach(OTHER, CARD, HERE, good=False)
    now = HALF_LIFE_S
    assert lessons.lifts(HERE)[CARD] == pytest.approx(-WEIGHT * 0.5 / (PRIOR + 0.5), abs=1e-4)


def test_the_oldest_go_of_a_card_and_in_all_and_whoever_keeps_them_is_told() -> None:
    lessons = Lessons()
    chance = np.random.default_rng(1)
    for _ in range(PER_CARD + 5):
        lessons.teach(OTHER, CARD, chance.normal(size=8).astype(np.float32), good=False)
    assert len(lessons) == PER_CARD
    for number in range(CAPACITY + 10):
        lessons.teach(OTHER, key(100 + number), HERE, good=False)
    assert len(lessons) == CAPACITY
    assert CARD not in lessons.lifts(HERE)
    assert sum(lesson is not None for lesson in lessons.unsaved.values()) == CAPACITY
    assert sum(lesson is None for lesson in lessons.unsaved.values()) == PER_CARD + 5 + 10


def test_nothing_is_kept_of_a_peer_that_is_forgotten() -> None:
    lessons = Lessons()
    lessons.teach(OTHER, CARD, HERE, good=False)
    lessons.teach(THIRD, SECOND, HERE, good=False)
    lessons.forget(OTHER)
    assert set(lessons.lifts(HERE)) == {SECOND}
    assert repr(lessons) == "<Lessons: 1>"


@pytest.mark.parametrize("body", [b"", bytes(16), b"\x7f" * 3, b"\x7f" * 17])
def test_what_is_no_vector_of_this_space_is_like_nothing(body: bytes) -> None:
    lessons = Lessons()
    lessons.restore(OTHER, CARD, body, True, 0.0)
    lessons.teach(OTHER, SECOND, HERE, good=True)
    lessons.teach(OTHER, CARD, np.zeros(16, dtype=np.float32), good=False)
    assert set(lessons.lifts(HERE)) == {SECOND}


def test_a_mis_routed_intent_goes_elsewhere_and_what_is_unrelated_stays_to_the_bit() -> None:
    matcher = known(*CARDS)
    wrong, unrelated = "turn the lamp warmer here", ("play some jazz", "xylophone quarks", "next song please")
    before = [matcher.match(vector(text), text).fits.tolist() for text in unrelated]
    assert best(matcher, wrong) == key(0)
    matcher.lessons.teach(OTHER, key(0), vector(wrong), good=False)
    assert best(matcher, wrong) == key(1)
    assert best(matcher, f"please {wrong}") == key(1)
    assert [matcher.match(vector(text), text).fits.tolist() for text in unrelated] == before
    assert matcher.lessons.lifts(vector("play some jazz")) == {}


def test_the_right_card_is_looked_at_closely_however_far_behind_it_was() -> None:
    matcher = known(*(LIGHTS for _ in range(SHORTLIST + 3)), HEATING)
    wanted = key(SHORTLIST + 3)
    text = "turn the lamp warmer here"
    assert matcher.match(vector(text), text).order.index(wanted) == SHORTLIST + 3
    matcher.lessons.teach(OTHER, wanted, vector(text), good=True)
    assert best(matcher, text) == wanted


def test_only_eligible_cards_are_moved_and_a_lesson_of_an_unknown_card_waits_for_it() -> None:
    matcher = known(*CARDS)
    text = "turn on the lamp"
    matcher.lessons.teach(OTHER, key(9), vector(text), good=True)
    matcher.lessons.teach(OTHER, key(1), vector(text), good=True)
    assert matcher.match(vector(text), text, matcher.rows_of([key(0)])).order == [key(0)]
    matcher.keep([key(0), key(2)])
    assert set(matcher.match(vector(text), text).order) == {key(0), key(2)}


VALUES = st.lists(st.floats(-1, 1, width=32), min_size=8, max_size=8)


@given(st.lists(st.tuples(st.integers(0, 4), st.booleans(), VALUES), max_size=30), VALUES)
def test_whatever_is_taught_the_lift_is_bounded_and_only_for_what_is_near(
    taught: list[tuple[int, bool, list[float]]], asked: list[float]
) -> None:
    lessons = Lessons()
    query = _unit(asked)
    near = set()
    for number, good, values in taught:
        lessons.teach(OTHER, key(number), _unit(values), good=good)
        if float(_unit(values) @ query) > NEAR - 0.02:  # a hundredth is lost in int8
            near.add(key(number))
    lifts = lessons.lifts(query)
    assert set(lifts) <= near
    assert all(abs(lift) < WEIGHT for lift in lifts.values())


def _unit(values: list[float]) -> Vector:
    whole = np.array(values, dtype=np.float32)
    length = float(np.linalg.norm(whole))
    return whole / np.float32(length) if length > 1e-3 else np.zeros_like(whole)
