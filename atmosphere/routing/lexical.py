"""BM25 over the words of cards that come and go: names, codes and rare words, which an embedding blurs.

Own code, because cards arrive one by one for as long as the node runs and leave again: the BM25 libraries (and the
index of ``knowledge``, which is made once per folder) are built from a finished collection.

Stop words are kept: BM25 weighs them near zero anyway, and in short intents ("who are you") they are all there is.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

K1 = 1.5   # the usual constants: Robertson and Zaragoza, "The Probabilistic Relevance Framework", 2009
B = 0.75

Scores = npt.NDArray[np.float32]


class LexicalIndex:
    """Words by row. A row is a small number that the caller gives out; it may be used again after :meth:`drop`."""

    def __init__(self) -> None:
        self._rows: dict[int, Counter[str]] = {}
        self._postings: dict[str, dict[int, int]] = {}  # word -> row -> times
        self._arrays: dict[str, tuple[npt.NDArray[np.intp], Scores]] = {}  # the same for numpy, made when asked for
        self._lengths = np.zeros(0, dtype=np.float32)
        self._total = 0

    def __repr__(self) -> str:
        return f"<LexicalIndex {len(self._postings)} words of {len(self._rows)} cards>"

    def put(self, row: int, words: Iterable[str]) -> None:
        """Set the words of *row*."""
        self.drop(row)
        times = Counter(words)
        self._rows[row] = times
        if row >= len(self._lengths):
            self._lengths = np.concatenate([self._lengths, np.zeros(max(row + 1, 64), dtype=np.float32)])
        self._lengths[row] = times.total()
        self._total += times.total()
        for word, count in times.items():
            self._postings.setdefault(word, {})[row] = count
            self._arrays.pop(word, None)

    def drop(self, row: int) -> None:
        """Forget *row*, if it has words."""
        times = self._rows.pop(row, None)
        if times is None:
            return
        self._total -= times.total()
        for word in times:
            posting = self._postings[word]
            del posting[row]
            self._arrays.pop(word, None)
            if not posting:
                del self._postings[word]

    def scores(self, words: Iterable[str], rows: int) -> Scores:
        """The BM25 score of every row below *rows*: >= 0, shape (rows,)."""
        result = np.zeros(rows, dtype=np.float32)
        count = len(self._rows)
        if not self._total:
            return result
        short, mean = K1 * (1 - B), K1 * B * count / self._total
        for word in words:
            posting = self._postings.get(word)
            if posting is None:
                continue
            arrays = self._arrays.get(word)
            if arrays is None:
                arrays = self._arrays[word] = (
                    np.fromiter(posting.keys(), dtype=np.intp, count=len(posting)),
                    np.fromiter(posting.values(), dtype=np.float32, count=len(posting)),
                )
            found, times = arrays
            rarity = math.log1p((count - len(posting) + 0.5) / (len(posting) + 0.5))
            result[found] += rarity * (K1 + 1) * times / (times + short + mean * self._lengths[found])
        return result
