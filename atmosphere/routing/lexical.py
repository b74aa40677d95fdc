"""BM25 over the words of cards that come and go: names, codes and rare words, which an embedding blurs.

Own code, because cards arrive one by one for as long as the node runs and leave again: the BM25 libraries (and the
index of ``knowledge``, which is made once per folder) are built from a finished collection.

Stop words are kept: BM25 weighs them near zero anyway, and in short intents ("who are you") they are all there is.
"""

from __future__ import annotations

import math
import sys
from array import array
from collections import Counter
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

K1 = 1.5   # the usual constants: Robertson and Zaragoza, "The Probabilistic Relevance Framework", 2009
B = 0.75
MAX_TIMES = 2**16 - 1

Scores = npt.NDArray[np.float32]


class LexicalIndex:
    """Words by row. A row is a small number that the caller gives out; it may be used again after :meth:`drop`."""

    def __init__(self) -> None:
        self._rows: dict[int, tuple[str, ...]] = {}  # the different words of a row
        self._postings: dict[str, tuple[array[int], array[int]]] = {}  # word -> rows, times
        self._lengths = np.zeros(0, dtype=np.float32)
        self._total = 0.0

    def __repr__(self) -> str:
        return f"<LexicalIndex {len(self._postings)} words of {len(self._rows)} cards>"

    def put(self, row: int, words: Iterable[str]) -> None:
        """Set the words of *row*."""
        self.drop(row)
        times = Counter(words)
        self._rows[row] = tuple(map(sys.intern, times))
        if row >= len(self._lengths):
            self._lengths = np.concatenate([self._lengths, np.zeros(max(row + 1, 64), dtype=np.float32)])
        self._lengths[row] = times.total()
        self._total += times.total()
        for word, count in times.items():
            posting = self._postings.get(word)
            if posting is None:
                posting = self._postings[sys.intern(word)] = array("q"), array("H")
            posting[0].append(row)
            posting[1].append(min(count, MAX_TIMES))

    def drop(self, row: int) -> None:
        """Forget *row*, if it has words."""
        for word in self._rows.pop(row, ()):
            rows, times = self._postings[word]
            place = rows.index(row)
            del rows[place], times[place]
            if not rows:
                del self._postings[word]
        if row < len(self._lengths):
            self._total -= float(self._lengths[row])
            self._lengths[row] = 0.0

    def shared(self, words: Iterable[str], row: int) -> float:
        """The share of different *words* that *row* has too, weighed by rarity: 0..1; 0 without words."""
        known = set(self._rows.get(row, ()))
        total = held = 0.0
        for word in set(words):
            posting = self._postings.get(word)
            weight = self._rarity(len(posting[0]) if posting is not None else 0)
            total += weight
            if word in known:
                held += weight
        return held / total if total else 0.0

    def _rarity(self, holding: int) -> float:
        return math.log1p((len(self._rows) - holding + 0.5) / (holding + 0.5))

    def scores(self, words: Iterable[str], rows: int) -> Scores:
        """The BM25 score of every row below *rows*: >= 0, shape (rows,)."""
        count = len(self._rows)
        result = np.zeros(max(rows, len(self._lengths)), dtype=np.float32)
        if not self._total:
            return result[:rows]
        length = np.float32(K1 * (1 - B)) + np.float32(K1 * B * count / self._total) * self._lengths
        for word in words:
            posting = self._postings.get(word)
            if posting is None:
                continue
            found = np.frombuffer(posting[0], np.int64)  # numpy's own type of an index: others are copied, at each use
            seen = np.frombuffer(posting[1], np.uint16).astype(np.float32)
            result[found] += np.float32(self._rarity(len(found)) * (K1 + 1)) * seen / (seen + length[found])
        return result[:rows]
