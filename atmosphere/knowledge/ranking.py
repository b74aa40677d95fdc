"""Finding passages: an exact scan by cosine, with a small share for the words themselves.

Pure and immutable: a search works on the snapshot that it began with, whatever is indexed meanwhile.
"""

from __future__ import annotations

import math
import re
from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from atmosphere.embedding import Vectors

BM25_SHARE = 0.15  # enough for names and error codes, which an embedding blurs, to win among equals
K1 = 1.2           # the usual constants: Robertson and Zaragoza, "The Probabilistic Relevance Framework", 2009
B = 0.75

_WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class Entry:
    """A passage as it is found and quoted."""

    folder: str
    """The indexed folder's name, never its path: that is nobody else's business and differs between nodes."""
    source: str
    """The document: folder name and path inside it, with ``/``."""
    locator: str
    text: str


@dataclass(frozen=True, slots=True)
class Hit:
    """A found passage. *score*: cosine plus BM25_SHARE times the share of the query's word weight; higher is better."""

    entry: Entry
    score: float


class PassageIndex:
    """Passages with their vectors: exact search, O(passages). 20,000 passages take about 3 ms."""

    def __init__(self, entries: Sequence[Entry], vectors: Vectors) -> None:
        """*vectors*: unit rows, one per entry, float32 (float16 would be ten times slower to scan)."""
        if len(entries) != len(vectors):
            raise ValueError(f"{len(entries)} entries, but {len(vectors)} vectors")
        self.entries = tuple(entries)
        self._vectors = np.ascontiguousarray(vectors, dtype=np.float32)
        self._words = WordIndex(f"{entry.source} {entry.locator} {entry.text}" for entry in entries)

    def __len__(self) -> int:
        return len(self.entries)

    def __repr__(self) -> str:
        return f"<PassageIndex {len(self)} passages>"

    def search(self, query: str, vector: NDArray[np.float32], k: int) -> list[Hit]:
        """The *k* best passages for *query*, whose embedding is *vector*, best first. Ties: in index order."""
        if not self.entries:
            return []
        scores = self._vectors @ vector + np.float32(BM25_SHARE) * self._words.scores(query)
        best = np.argsort(-scores, kind="stable")[:k]
        return [Hit(self.entries[i], float(scores[i])) for i in best]


class WordIndex:
    """BM25 over short texts, stop words kept (their weight is near zero anyway).

    Scores are divided by the highest that the query could reach, so they lie in 0..1 and do not depend on how good
    the best text is: an unrelated question scores low everywhere.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        self._postings: dict[str, array[int]] = {}  # word -> text, count, text, count, ...: 8 bytes per posting
        sizes: list[int] = []
        for number, text in enumerate(texts):
            words = _WORD.findall(text.lower())
            sizes.append(len(words))
            for word, count in Counter(words).items():
                self._postings.setdefault(word, array("i")).extend((number, count))
        lengths = np.array(sizes, np.float32)
        mean = float(lengths.mean()) if sizes else 0.0
        self._norms = (K1 * (1 - B + B * lengths / (mean or 1.0))).astype(np.float32)

    def scores(self, query: str) -> NDArray[np.float32]:
        """One score in 0..1 per text."""
        scores = np.zeros(len(self._norms), np.float32)
        highest = 0.0
        for word in sorted(set(_WORD.findall(query.lower()))):  # sorted: the order of a sum shows in its last bits
            found = np.frombuffer(self._postings.get(word, b""), np.int32).reshape(-1, 2)
            frequency = len(found)
            weight = math.log(1 + (len(scores) - frequency + 0.5) / (frequency + 0.5))
            highest += weight * (K1 + 1)
            counts = found[:, 1].astype(np.float32)
            scores[found[:, 0]] += weight * counts * (K1 + 1) / (counts + self._norms[found[:, 0]])
        return scores / np.float32(highest) if highest else scores
