"""The extra: asked for and not installed, it says how to install it."""

from __future__ import annotations

import importlib.util

import pytest

from atmosphere.embedding import EmbedderError, SentenceTransformerEmbedder


@pytest.mark.skipif(importlib.util.find_spec("sentence_transformers") is not None, reason="the extra is installed")
def test_without_the_extra_the_error_names_it() -> None:
    with pytest.raises(EmbedderError, match=r"pip install 'atmosphere-p2p\[sentence-transformers\]'"):
        SentenceTransformerEmbedder.load()
