"""BM25 over rows that come and go gives what BM25 over the finished collection gives."""

from __future__ import annotations

import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atmosphere.routing.lexical import K1, B, LexicalIndex

TEXTS = st.lists(st.sampled_from(["a", "b", "c", "d", "lamp", "the"]), max_size=12)


def textbook(collection: dict[int, list[str]], query: list[str], row: int) -> float:
    """The formula as the book has it."""
    mean = sum(map(len, collection.values())) / len(collection)
    times, length, total = Counter(collection[row]), len(collection[row]), 0.0
    for word in query:
        holding = sum(word in text for text in collection.values())
        if times[word]:
            rarity = math.log(1 + (len(collection) - holding + 0.5) / (holding + 0.5))
            total += rarity * times[word] * (K1 + 1) / (times[word] + K1 * (1 - B + B * length / mean))
    return total


@given(st.lists(st.tuples(st.integers(0, 5), st.none() | TEXTS), max_size=20), TEXTS)
def test_after_any_coming_and_going_it_is_the_formula(
    steps: list[tuple[int, list[str] | None]], query: list[str]
) -> None:
    index, collection = LexicalIndex(), dict[int, list[str]]()
    for row, text in steps:
        if text is None:
            index.drop(row)
            collection.pop(row, None)
        else:
            index.put(row, text)
            collection[row] = text
    scores = index.scores(query, 6)
    assert scores.shape == (6,)
    for row in range(6):
        expected = textbook(collection, query, row) if row in collection and any(collection.values()) else 0.0
        assert scores[row] == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_what_was_dropped_leaves_nothing_behind() -> None:
    index = LexicalIndex()
    for row in range(100):
        index.put(row, [f"word{row}", "the"])
    for row in range(100):
        index.drop(row)
    assert repr(index) == "<LexicalIndex 0 words of 0 cards>"
    assert not index.scores(["the"], 100).any()
    index.drop(7)  # twice is once
    index.put(0, ["the"])
    assert index.scores(["the"], 1)[0] > 0


def test_shared_is_the_weighed_share_of_the_words_that_a_row_has() -> None:
    index = LexicalIndex()
    index.put(0, ["the", "lamp"])
    index.put(1, ["the", "sea"])
    assert index.shared(["the", "lamp", "lamp"], 0) == 1.0
    assert index.shared(["unheard"], 0) == index.shared([], 0) == index.shared(["the"], 5) == 0.0
    assert index.shared(["the", "lamp"], 1) < 0.3, "what all have says little"
    assert index.shared(["the", "unheard"], 0) < index.shared(["the", "sea"], 0) < 0.5
