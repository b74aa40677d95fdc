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
WEIGHED_KEPT = 2**19
"""Postings whose share of a score is kept until a card comes, changes or goes: 16 bytes each."""

Scores = npt.NDArray[np.float32]


class LexicalIndex:
    """Words by row. A row is a small number that the caller gives out; it may be used again after :meth:`drop`."""

    def __init__(self) -> None:
        self._rows: dict[int, tuple[str, ...]] = {}  # the different words of a row
        self._postings: dict[str, tuple[array[int], array[int]]] = {}  # word -> rows, times
        self._lengths = np.zeros(0, dtype=np.float32)
        self._total = 0.0
        self._weighed: dict[str, tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]] = {}  # word -> rows, shares
        self._kept = 0

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
        self._forget_shares()
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
        found = [self._shares(word) for word in words if word in self._postings]
        if not found:
            return np.zeros(rows, dtype=np.float32)
        holders = np.concatenate([each for each, _ in found])
        shares = np.concatenate([share for _, share in found])
        return np.bincount(holders, shares, rows)[:rows].astype(np.float32)

    def _shares(self, word: str) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        """The rows that have *word*, and what it adds to the score of each."""
        known = self._weighed.get(word)
        if known is not None:
            return known
        posting = self._postings[word]
        holders, times = np.array(posting[0], np.int64), np.array(posting[1], np.float64)
        length = 1 - B + B * len(self._rows) / self._total * self._lengths[holders]
        found = holders, self._rarity(len(holders)) * (K1 + 1) * times / (times + K1 * length)
        if self._kept + len(holders) > WEIGHED_KEPT:
            self._forget_shares()
        self._kept += len(holders)
        self._weighed[word] = found
        return found

    def _forget_shares(self) -> None:
        """They hang on how many rows there are, and how long."""
        self._weighed.clear()
        self._kept = 0
