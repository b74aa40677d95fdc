"""Matching: what each stage adds, cards that come and go, and what the probabilities say."""

from __future__ import annotations

import math

import numpy as np
import pytest

from atmosphere.capabilities.card import Card, Tool
from atmosphere.embedding import HashEmbedder
from atmosphere.routing.calibration import SHIFT_LIMIT, Calibration, Evidence
from atmosphere.routing.matching import (
    MAX_CONTRASTED,
    MAX_WORDS,
    RANKED,
    SHORTLIST,
    CardVectors,
    Vector,
    card_texts,
    centroid,
)
from atmosphere.routing.phrases import humanise, phrases, subject, words

EMBEDDER = HashEmbedder()
LIGHTS = Card("home/lights", "Lamps and light switches", topics=("home",), examples=("turn on the lamp", "dim it"))
HEATING = Card("home/heating", "Radiators and thermostats", examples=("make it warmer here", "set 21 degrees"))
MUSIC = Card("media/music", "Plays songs and albums", examples=("play some jazz", "next song please"))
CARDS = (LIGHTS, HEATING, MUSIC)


def key(number: int) -> bytes:
    return number.to_bytes(32, "big")


def vector(text: str) -> Vector:
    return np.asarray(EMBEDDER.embed([text])[0], dtype=np.float32)


def add(matcher: CardVectors, number: int, card: Card) -> bytes:
    parts = EMBEDDER.embed(card_texts(card))
    matcher.describe(key(number), card)
    matcher.put(key(number), centroid(parts, len(subject(card))), parts)
    return key(number)


def known(*cards: Card) -> CardVectors:
    matcher = CardVectors(EMBEDDER.space.name)
    for number, card in enumerate(cards):
        add(matcher, number, card)
    return matcher


def best(matcher: CardVectors, text: str) -> bytes:
    return matcher.match(vector(text), text).best[0].card


@pytest.mark.parametrize(("text", "number"), [("turn the lamp off", 0), ("make it warmer", 1), ("play a song", 2)])
def test_the_card_that_is_meant_is_first(text: str, number: int) -> None:
    assert best(known(*CARDS), text) == key(number)


def test_a_card_without_examples_or_description_is_matched_by_what_it_has() -> None:
    bare = Card("tool/weather", "")
    assert card_texts(bare) == ["tool weather"]
    assert card_texts(Card("tool/call", "", topics=("tides", "surf"))) == ["surf, tides"]
    assert best(known(*CARDS, bare), "weather") == key(3)


def test_tools_propose_phrases_and_names_of_programs_are_read_as_words() -> None:
    card = Card("tool/call", "Things", tools=(Tool("getTideTimes", "When the sea is high"), Tool("silent")))
    assert phrases(card) == ["get Tide Times: When the sea is high"]
    assert humanise("get_tide-times") == "get tide times" == humanise("getTideTimes").lower()
    assert humanise("ABCmouse2Go") == "ABCmouse2 Go"
    assert words("Booking a book") == ["booking", "a", "book", "booki-"]


def test_the_words_decide_between_cards_that_mean_the_same() -> None:
    """Equal vectors: only BM25 sees that one of them carries the code that was asked for."""
    matcher = CardVectors("space")
    same = vector("error codes")
    for number, code in enumerate(("E17", "E42", "E99")):
        matcher.describe(key(number), Card("tool/call", f"explains the error {code}"))
        matcher.put(key(number), same)
    assert best(matcher, "what is E42") == key(1)


def test_contrast_tells_cards_apart_that_share_most_of_what_they_say() -> None:
    """Two cards say the same but for one phrase each: the one whose own phrase was used gets ahead by more."""
    def unit(*values: float) -> Vector:
        whole = np.array(values, dtype=np.float32)
        return np.asarray(whole / np.linalg.norm(whole), dtype=np.float32)

    matcher = CardVectors("space")
    shared = [unit(1, 0.1 * number, 0, 0) for number in range(4)]
    for number, own in enumerate((unit(1, 0, 1, 0), unit(1, 0, 0, 1))):
        parts = np.stack([*shared, own])
        matcher.put(key(number), centroid(parts), parts)
    query = unit(1, 0, 0, 0.5)
    cosines, bare = matcher.cosines(query), matcher.match(query)
    assert bare.evidence is not None
    assert bare.evidence.margin == pytest.approx(cosines[1] - cosines[0]), "a subject alone shows no contrast"
    for number in range(2):
        matcher.describe(key(number), Card("tool/call", "", examples=("one", "two", "three", "four")))
    matches = matcher.match(query)
    assert matches.best[0].card == key(1)
    assert matches.evidence is not None
    assert matches.evidence.margin > 2 * bare.evidence.margin > 0


def test_cards_come_and_go_one_by_one_and_leave_nothing() -> None:
    matcher = known(*CARDS)
    before = matcher.match(vector("play a song"), "play a song")
    for round_ in range(3):
        for number in range(200):
            add(matcher, 1000 * (round_ + 1) + number, Card("tool/call", f"thing number {number}"))
        matcher.keep([key(0), key(1), key(2)])
    after = matcher.match(vector("play a song"), "play a song")
    assert after.order == before.order == [key(2), *after.order[1:]]
    assert [one.fit for one in after.best] == pytest.approx([one.fit for one in before.best], abs=1e-6)
    assert repr(matcher) == f"<CardVectors 3 of 3 cards in {EMBEDDER.space.name}>"
    assert len(matcher.rows) == 3
    assert max(matcher.rows.values()) == 2


def test_words_alone_make_no_match_and_a_vector_without_words_does() -> None:
    """What another node sent is used before the card's own texts are embedded."""
    matcher = CardVectors("space")
    matcher.describe(key(1), MUSIC)
    assert key(1) not in matcher
    assert matcher.get(key(1)) is None
    assert matcher.match(vector("play a song"), "play a song").best == ()
    matcher.put(key(2), vector("lamps"))
    assert [one.card for one in matcher.match(vector("play a song"), "play a song").best] == [key(2)]
    assert matcher.get(key(2)) == pytest.approx(vector("lamps"))


def test_only_eligible_cards_count_not_even_as_rivals() -> None:
    matcher = known(*CARDS)
    rows = matcher.rows_of([key(0), key(1), key(77)])
    matches = matcher.match(vector("play a song"), "play a song", rows)
    assert key(2) not in matches.order
    assert len(matches.best) == 2
    generation = matcher.generation
    matcher.keep([key(0)])
    assert matcher.generation > generation, "who keeps rows must hear that they are not good any more"
    assert list(matcher.rows_of([key(0), key(1)])) == [0]


def test_the_factor_is_1_for_the_best_and_falls_with_the_fit() -> None:
    matches = known(*CARDS).match(vector("play a song"), "play a song")
    factors = [matches.factor(card) for card in matches.order]
    assert factors[0] == 1.0
    assert factors == sorted(factors, reverse=True)
    assert 0 < min(factors) < 0.5, "no node is idle enough to make up for a card that does not fit"
    assert 0 < matches.factor(key(99)) <= factors[1], "a card that is not known is not preferred"


def test_of_thousands_only_the_best_are_named_and_looked_at_closely() -> None:
    numbers = np.random.default_rng(3)
    matcher = CardVectors("space")
    vectors = numbers.standard_normal((2000, 32)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    for number, one in enumerate(vectors):
        matcher.put(key(number), one)
    query = vectors[1234]
    matches = matcher.match(query)
    assert matches.best[0].card == key(1234)
    assert len(matches.best) == RANKED
    fits = [one.fit for one in matches.best]
    assert fits == sorted(fits, reverse=True)
    assert {one.card for one in matches.best[:SHORTLIST]} == {
        key(int(row)) for row in np.argsort(-(vectors @ query))[:SHORTLIST]
    }
    assert matches.order[:RANKED] == [one.card for one in matches.best]
    assert len(matches.order) == 2000


def test_nothing_known_and_nothing_said() -> None:
    empty = CardVectors("space").match(vector("anything"), "anything")
    assert (empty.best, empty.order, empty.somebody, empty.right, empty.evidence) == ((), [], 0.0, 0.0, None)
    assert empty.factor(key(1)) == 1.0
    single = known(MUSIC).match(vector(""), "")
    assert len(single.best) == 1
    assert 0 < single.right < 1


@pytest.mark.parametrize("text", ["", " ", "\u0000", "🦑" * 50, "ß" * 5000, "\ud800"])
def test_any_text_can_be_matched(text: str) -> None:
    matches = known(*CARDS).match(vector(text), text)
    assert len(matches.order) == 3
    assert all(math.isfinite(one.fit) for one in matches.best)


def test_a_card_with_many_phrases_costs_no_more_than_the_bound() -> None:
    wordy = Card("tool/call", "Does it all", examples=tuple(f"please do thing number {n}" for n in range(64)))
    matcher = known(wordy, *CARDS)
    kept, _ = matcher._phrases[matcher.rows[key(0)]]
    assert kept.shape[0] == MAX_CONTRASTED
    assert kept.dtype == np.int8


def test_a_card_with_very_many_words_has_no_more_than_the_bound() -> None:
    flood = tuple(" ".join(f"w{n}x{m}" for m in range(70)) for n in range(64))
    matcher = CardVectors("space")
    matcher.describe(key(0), Card("tool/call", "", examples=flood))
    assert len(matcher._words._rows[0]) <= MAX_WORDS


def test_a_subject_weighs_more_than_one_phrase_and_less_than_three() -> None:
    said, used = np.eye(2, dtype=np.float32)
    assert centroid(np.stack([said, used]), 1) @ said > centroid(np.stack([said, used]), 1) @ used
    thrice = centroid(np.stack([said, used, used, used]), 1)
    assert thrice @ said < thrice @ used
    assert centroid(np.zeros((2, 2), np.float32)) == pytest.approx([0, 0])


def test_probabilities_rise_with_the_fit_and_an_equal_rival_takes_only_from_one_of_them() -> None:
    calibration = Calibration()
    for judge in (calibration.somebody, calibration.right):
        values = [judge(Evidence(fit / 10, 0.1)) for fit in range(15)]
        assert values == sorted(values)
    alone, rivalled = Evidence(0.9, 0.4), Evidence(0.9, 0.0)
    assert calibration.somebody(alone) == calibration.somebody(rivalled)
    assert calibration.right(alone) > calibration.right(rivalled)


def test_who_has_said_much_and_never_these_words_is_probably_not_meant() -> None:
    calibration = Calibration()
    for judge in (calibration.somebody, calibration.right):
        silent, same, other = (
            judge(Evidence(0.7, 0.1, shared, phrases)) for shared, phrases in ((0, 0), (0.9, 10), (0.1, 10))
        )
        assert silent > same > other


def test_nobody_can_is_improbable_only_for_what_is_far_from_every_card() -> None:
    matcher = known(*CARDS)
    near = matcher.match(vector("turn on the lamp"), "turn on the lamp")
    far = matcher.match(vector("quarterly tax filing rules"), "quarterly tax filing rules")
    assert near.somebody > 0.7 > 0.3 > far.somebody
    assert near.right > far.right
    assert near.evidence is not None
    assert near.evidence.shared == 1.0
    assert near.evidence.phrases == 2


def test_outcomes_move_the_probabilities_within_bounds_and_fade() -> None:
    calibration, seen = Calibration(), Evidence(0.8, 0.1)
    before = calibration.right(seen)
    for _ in range(10):
        calibration.learn(seen, right=False)
    assert 0.03 < before - calibration.right(seen) < 0.3
    for _ in range(2000):
        calibration.learn(Evidence(3.0, 1.0), right=False, somebody=False)
    low = calibration.right_shift
    assert low >= -SHIFT_LIMIT
    assert calibration.somebody_shift >= -SHIFT_LIMIT
    for _ in range(300):
        calibration.learn(Evidence(0.5, 0.1), right=True)
    assert calibration.right_shift > low + 0.5
    assert Calibration(float("nan")).right_shift == 0.0
    assert Calibration(99.0).right_shift == SHIFT_LIMIT


def test_a_wrong_pick_says_nothing_about_whether_anybody_could() -> None:
    calibration = Calibration()
    calibration.learn(Evidence(0.8, 0.1), right=False)
    assert calibration.somebody_shift == 0.0
    assert calibration.right_shift < 0.0
