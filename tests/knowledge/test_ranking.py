"""Search is exact, ordered, and words decide between equals."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atmosphere.embedding import HashEmbedder
from atmosphere.knowledge.ranking import BM25_SHARE, Entry, PassageIndex, WordIndex


def entry(text: str) -> Entry:
    return Entry("f", "f/a.md", "a.md", text)


def test_the_closest_comes_first() -> None:
    texts = ["the heating is in the cellar", "roses are pruned in winter", "the moon is far"]
    embedder = HashEmbedder()
    index = PassageIndex([entry(text) for text in texts], embedder.embed(texts))
    hits = index.search("when to prune roses", embedder.embed(["when to prune roses"])[0], 2)
    assert hits[0].entry.text == texts[1]
    assert len(hits) == 2
    assert hits[0].score > hits[1].score


def test_words_decide_between_equal_vectors() -> None:
    vector = np.array([[1.0, 0.0]] * 3, np.float32)
    index = PassageIndex([entry("error E16"), entry("error E17"), entry("error E18")], vector)
    best = index.search("E17", vector[0], 3)
    assert best[0].entry.text == "error E17"
    assert best[0].score <= 1 + BM25_SHARE
    assert [hit.entry.text for hit in best[1:]] == ["error E16", "error E18"]  # a tie keeps the order


def test_an_empty_index_finds_nothing() -> None:
    index = PassageIndex([], np.empty((0, 2), np.float32))
    assert index.search("x", np.array([1, 0], np.float32), 3) == []


def test_entries_and_vectors_must_match() -> None:
    with pytest.raises(ValueError, match="1 entries, but 0 vectors"):
        PassageIndex([entry("x")], np.empty((0, 2), np.float32))


def test_rare_words_weigh_more_and_unknown_ones_lower_all() -> None:
    words = WordIndex(["the cat", "the dog", "the zebra the"])
    cat, _, zebra = words.scores("the zebra")
    assert zebra > 5 * cat > 0
    assert words.scores("zebra unicorn")[2] < words.scores("zebra")[2]
    assert words.scores("...").tolist() == [0, 0, 0]


@given(st.lists(st.text("abc ", max_size=20), max_size=8), st.text("abcd ", max_size=20))
def test_word_scores_stay_between_0_and_1(texts: list[str], query: str) -> None:
    scores = WordIndex(texts).scores(query)
    assert scores.shape == (len(texts),)
    assert ((scores >= 0) & (scores <= 1.000001)).all()
