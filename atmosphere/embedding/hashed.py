"""The embedder's in-memory twin for tests and simulations: no model, microseconds, the same on every machine."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

import numpy as np

from atmosphere.embedding.embedder import Embedder, Space, Vectors

_WORD = re.compile(r"\w+")
_STEM = 4  # letters; makes "plant" and "plants" neighbours without a dictionary


class HashEmbedder(Embedder):
    """Texts that share words are close; nothing is known about meaning.

    Every word, and the first letters of every longer word, adds +1 or -1 to two dimensions chosen by its hash.
    """

    max_tokens = 256

    def __init__(self, dimensions: int = 384) -> None:
        self.space = Space.of("hashed-words", dimensions)

    def embed(self, texts: Sequence[str]) -> Vectors:
        vectors = np.zeros((len(texts), self.space.dimensions), np.float32)
        for row, text in enumerate(texts):
            for word in _words(text)[: self.max_tokens] or [""]:
                self._add(vectors[row], word, 1.0)
                if len(word) > _STEM:
                    self._add(vectors[row], word[:_STEM] + "-", 0.5)
            length = float(np.linalg.norm(vectors[row]))
            if length == 0:  # the features cancelled out
                vectors[row, 0] = length = 1.0
            vectors[row] /= length
        return vectors

    def count_tokens(self, text: str) -> int:
        return len(_words(text))

    def _add(self, vector: Vectors, feature: str, weight: float) -> None:
        digest = hashlib.blake2b(feature.encode("utf-8", "replace"), digest_size=10).digest()
        for part in (digest[:5], digest[5:]):
            vector[int.from_bytes(part[:4], "big") % len(vector)] += weight if part[4] & 1 else -weight


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())
