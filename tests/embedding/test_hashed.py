"""The twin keeps the promises of the interface and puts similar texts near each other."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from atmosphere.embedding import Embedder, HashEmbedder, Space


def test_shared_words_mean_near() -> None:
    light, lights, tax = HashEmbedder().embed(
        ["turn on the kitchen light", "turn the kitchen lights off", "annual tax report of a company"]
    )
    assert light @ lights > 0.5 > light @ tax + 0.2


def test_it_is_the_same_on_every_machine() -> None:
    assert HashEmbedder(8).embed(["one two"])[0].tolist() == [0, -0.5, -0.5, -0.5, 0, 0, -0.5, 0]


@given(st.lists(st.text(max_size=40), max_size=5))
def test_unit_vectors_independent_of_company(texts: list[str]) -> None:
    embedder: Embedder = HashEmbedder(16)
    vectors = embedder.embed(texts)
    assert vectors.shape == (len(texts), 16)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1)
    for text, row in zip(texts, vectors, strict=True):
        assert np.array_equal(embedder.embed([text])[0], row)


def test_spaces_name_model_and_dimensions() -> None:
    assert HashEmbedder(64).space == Space("hashed-words:64", "hashed-words", 64)
    assert Space.of("sentence-transformers/all-MiniLM-L6-v2", 384).name == "all-minilm-l6-v2:384"
    assert Space.of("BAAI/bge-small-en", 384).name == "baai/bge-small-en:384"
    assert repr(HashEmbedder(64)) == "<HashEmbedder hashed-words:64>"
