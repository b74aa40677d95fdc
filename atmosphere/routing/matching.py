"""How well cards fit an intent: what they mean, which words they share, and what tells the best of them apart. Pure.

    fit = cosine + LEXICAL_WEIGHT * BM25 + lessons + CONTRAST_WEIGHT * contrast

- **cosine** of the intent with the card's centroid: the normalised sum of its phrases' vectors and SUBJECT_WEIGHT
  times that of its subject (phrases.py). One vector per card; it is what travels through the mesh.
- **BM25** over the words of the same texts (lexical.py).
- **lessons**: what people said of answers to intents like this one (lessons.py); nothing where nobody said anything.
- **contrast**, for the SHORTLIST best by the others: kernel ridge regression over the phrases of these cards alone.
  It asks what tells them apart, where a centroid only asks what each is like. It counts by how many phrases there are
  (n of them for n / (1 + n)): between bare descriptions it does harm. It is learnt from the cards at the
  moment of the decision (a system of at most 96 equations, 0.3 ms), so there is no model to train, ship or keep in step
  with cards that come and go.

A fit orders cards. Two probabilities are read off it (calibration.py): that any card can, and that the best one is
right. What each stage gives is measured in docs/routing.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from atmosphere.capabilities.card import Card
from atmosphere.routing.calibration import Calibration, Evidence
from atmosphere.routing.lessons import WRONG, Lessons
from atmosphere.routing.lexical import LexicalIndex
from atmosphere.routing.phrases import phrases, subject, words

Vector = npt.NDArray[np.float32]
Rows = npt.NDArray[np.intp]

LEXICAL_WEIGHT = 0.005
"""Of a BM25 score: some 10 to 30 points, so words add 0.05 to 0.15 to a cosine."""
CONTRAST_WEIGHT = 0.4
"""0.2 to 0.6 is as good; the weights are checked on a set of our own (tests/benchmarks/fit_routing.py)."""
SUBJECT_WEIGHT = 2.0
"""Of the subject against one phrase: a description is worth two examples. 3 is a little better where cards have
descriptions and worse where they have names alone."""
SHORTLIST = 8
"""Cards whose phrases are compared with each other; 16 or 24 chose no better, and cost more."""
MAX_CONTRASTED = 12
"""Phrases per card that are: the equations grow with the cube of all phrases. 8 * 12 take 0.3 ms."""
RIDGE = 0.3
"""Of the regression: a third of a phrase's own weight, because half of any phrase is chance."""
MAX_WORDS = 4096
"""Words of one card that count: a hostile card has no more."""
RANKED = 32
"""Cards that are named in order, best first."""
SHARPNESS = 4.0
"""Of the factor that a fit becomes in the score of a (node, card) pair: 0.17 behind the best fit is half as good."""
CHUNK = 512
"""Rows that are multiplied at once: few enough for one thread. A second one, on a busy machine, is waited for: a scan
of 10,000 cards takes 0.6 ms in chunks, and was seen to take 20 ms in one piece."""

_LEVELS = 127


def card_texts(card: Card) -> list[str]:
    """What is embedded of *card*: its subject, then its phrases."""
    return [*subject(card), *phrases(card)]


def centroid(vectors: Vector, subjects: int = 0) -> Vector:
    """The normalised sum of *vectors*, shape (n, d) -> (d,). The mean of the first *subjects* weighs SUBJECT_WEIGHT."""
    if 0 < subjects < len(vectors):
        total = SUBJECT_WEIGHT * _unit(vectors[:subjects].sum(axis=0)) + vectors[subjects:].sum(axis=0)
    else:
        total = vectors.sum(axis=0)
    return _unit(total)


def _unit(vector: Vector) -> Vector:
    norm = float(np.linalg.norm(vector))
    return np.asarray(vector / norm if norm else vector, dtype=np.float32)


class Fit(NamedTuple):
    """One card and how well it fits."""

    card: bytes
    fit: float


@dataclass(frozen=True)
class Matches:
    """What meaning says of the cards that were eligible, for one intent."""

    cards: Sequence[bytes | None] = field(repr=False)
    """By row; None where no card is now."""
    fits: Vector = field(repr=False)
    """By row, shape (rows,); minus infinity for what was not eligible or has no vector."""
    rows: dict[bytes, int] = field(repr=False)
    best: tuple[Fit, ...]
    """The RANKED best, best first."""
    somebody: float
    """Probability that any of the cards can do it; 0 without a card."""
    right: float
    """Probability that the best one is what was meant; 0 without a card."""
    evidence: Evidence | None
    """What both were read off, for what is learnt when the outcome is known; None without a card."""
    lifts: Mapping[bytes, float] = field(default_factory=dict)
    """What lessons made of the fits, by card; only those that they moved."""

    @cached_property
    def order(self) -> list[bytes]:
        """All eligible cards, best first; ties in the order in which the cards came."""
        order = np.argsort(-self.fits, kind="stable")
        return [card for row in order if self.fits[row] > -np.inf and (card := self.cards[row]) is not None]

    def found_wrong(self, card_id: bytes) -> bool:
        """Whether people said of an intent as good as this one that the card was wrong for it."""
        return self.lifts.get(card_id, 0.0) <= WRONG

    def factor(self, card_id: bytes) -> float:
        """The card's factor in the score of a (node, card) pair: 1 for the best, falling with the fit, above 0.

        A card without a vector (yet) counts as one that has nothing in common with the intent, a fit of 0.
        """
        row = self.rows.get(card_id)
        known = row is not None and row < len(self.fits) and self.fits[row] > -np.inf
        fit = max(0.0, float(self.fits[row])) if known else 0.0
        best = max(0.0, self.best[0].fit) if self.best else 0.0
        return math.exp(SHARPNESS * min(0.0, fit - best))


class CardVectors:
    """All cards that this node knows, ready to be matched. Cards come, change and go at any time, one by one.

    Memory per card at 384 dimensions: 1.5 kB for the centroid, 0.4 kB per phrase (int8, at most MAX_CONTRASTED), and
    some 0.1 kB per different word.
    """

    def __init__(
        self, space: str, calibration: Calibration | None = None, monotonic: Callable[[], float] = lambda: 0.0
    ) -> None:
        """*monotonic*: Env's clock, seconds, by which lessons fade."""
        self.space = space
        self.calibration = calibration or Calibration()
        self.lessons = Lessons(monotonic)
        self.generation = 0
        """Raised whenever a card gets its first vector or loses it."""
        self._rows: dict[bytes, int] = {}
        self._cards: list[bytes | None] = []
        self._free: list[int] = []
        self._matrix: Vector = np.zeros((0, 0), dtype=np.float32)
        self._known = np.zeros(0, dtype=np.bool_)  # rows with a vector
        self._phrases: dict[int, tuple[npt.NDArray[np.int8], np.float32]] = {}  # and their scale
        self._said: dict[int, int] = {}  # how many phrases
        self._words = LexicalIndex()

    def __repr__(self) -> str:
        return f"<CardVectors {int(self._known.sum())} of {len(self._rows)} cards in {self.space}>"

    def __contains__(self, card_id: bytes) -> bool:
        row = self._rows.get(card_id)
        return row is not None and row < len(self._known) and bool(self._known[row])

    def describe(self, card_id: bytes, card: Card) -> None:
        """What the card says, for its words; its vector may come later."""
        row = self._row(card_id)
        self._said[row] = len(phrases(card))
        self._words.put(row, words(" ".join(card_texts(card)))[:MAX_WORDS])

    def put(self, card_id: bytes, vector: Vector, parts: Vector | None = None) -> None:
        """Keep the unit *vector*, shape (d,), of a card, and the unit vectors of its texts, shape (n, d), if known.

        Without *parts* the vector stands for them: what another node sent is one vector per card.
        """
        row = self._row(card_id)
        if row >= len(self._matrix):
            grown = np.zeros((max(64, row + row // 2), len(vector)), dtype=np.float32)
            known = np.zeros(len(grown), dtype=np.bool_)
            if len(self._matrix):
                grown[: len(self._matrix)], known[: len(self._known)] = self._matrix, self._known
            self._matrix, self._known = grown, known
        self._matrix[row] = vector
        if not self._known[row]:
            self._known[row] = True
            self.generation += 1
        kept = vector[None, :] if parts is None else parts[:MAX_CONTRASTED]
        scale = np.float32(max(float(np.abs(kept).max()), 1e-6) / _LEVELS)
        self._phrases[row] = np.rint(kept / scale).astype(np.int8), scale

    def get(self, card_id: bytes) -> Vector | None:
        """The unit vector of a card, shape (d,)."""
        return self._matrix[self._rows[card_id]].copy() if card_id in self else None

    def keep(self, card_ids: Iterable[bytes]) -> None:
        """Forget all cards but these."""
        kept = set(card_ids)
        for card_id in [card_id for card_id in self._rows if card_id not in kept]:
            row = self._rows.pop(card_id)
            self._cards[row] = None
            self._words.drop(row)
            self._phrases.pop(row, None)
            self._said.pop(row, None)
            if row < len(self._known):
                self._known[row] = False
                self._matrix[row] = 0.0
            self._free.append(row)
            self.generation += 1

    def rows_of(self, cards: Iterable[bytes]) -> Rows:
        """The rows of those of *cards* that have a vector, in order; good until :attr:`generation` changes."""
        found = np.array(sorted({row for card in cards if (row := self._rows.get(card)) is not None}), dtype=np.intp)
        found = found[: np.searchsorted(found, len(self._known))]
        return found[self._known[found]]

    def match(self, query: Vector, text: str = "", eligible: Rows | None = None) -> Matches:
        """How well each card fits the unit *query*, shape (d,), which is the embedding of *text*.

        *eligible*: the rows that count (:meth:`rows_of`); None: all. The best of these are compared with each other
        alone.
        """
        count = min(len(self._cards), len(self._matrix))
        asked = words(text)
        lifts = self.lessons.lifts(query)
        fits = np.full(count, -np.inf, dtype=np.float32)
        rows = np.flatnonzero(self._known[:count]) if eligible is None else eligible
        if len(rows):
            fits[rows] = (self.cosines(query) + np.float32(LEXICAL_WEIGHT) * self.lexical(asked))[rows]
            for card, lift in lifts.items():
                if (row := self._rows.get(card, count)) < count:
                    fits[row] += np.float32(lift)  # minus infinity stays what it is
        best = _top(fits, min(RANKED, len(rows)))
        close = best[:SHORTLIST]
        weight = CONTRAST_WEIGHT * self._experience(close)
        if len(close) > 1 and weight:
            lifted = fits[close] + np.float32(weight) * self._contrast(query, close)
            if len(best) > SHORTLIST:  # what was not looked at closely stays behind what was
                behind = float(lifted.min()) - float(fits[best[SHORTLIST]])
                fits += np.float32(min(0.0, behind))
            fits[close] = lifted
            best[:SHORTLIST] = close[np.argsort(-lifted, kind="stable")]
        found = zip(best.tolist(), fits[best].tolist(), strict=True)
        ranked = tuple(Fit(card, fit) for row, fit in found if (card := self._cards[row]) is not None)
        if not ranked:
            return Matches(self._cards, fits, self._rows, (), 0.0, 0.0, None)
        row = int(best[0])
        seen = Evidence(
            fit=ranked[0].fit,
            margin=ranked[0].fit - ranked[1].fit if len(ranked) > 1 else ranked[0].fit,
            shared=self._words.shared(asked, row),
            phrases=self._said.get(row, 0),
        )
        somebody, right = self.calibration.somebody(seen), self.calibration.right(seen)
        return Matches(self._cards, fits, self._rows, ranked, somebody, right, seen, lifts)

    @property
    def rows(self) -> Mapping[bytes, int]:
        """Which row of what this class returns is which card's."""
        return self._rows

    def cosines(self, query: Vector) -> Vector:
        """Of the unit *query* with every centroid, by row."""
        count = min(len(self._cards), len(self._matrix))
        parts = [self._matrix[start : min(start + CHUNK, count)] @ query for start in range(0, count, CHUNK)]
        return np.concatenate(parts) if parts else np.zeros(0, dtype=np.float32)

    def lexical(self, asked: Iterable[str]) -> Vector:
        """BM25 of the words *asked* with every card, by row."""
        return self._words.scores(asked, min(len(self._cards), len(self._matrix)))

    def _row(self, card_id: bytes) -> int:
        row = self._rows.get(card_id)
        if row is None:
            if self._free:
                row = self._free.pop()
                self._cards[row] = card_id
            else:
                row = len(self._cards)
                self._cards.append(card_id)
            self._rows[card_id] = row
        return row

    def _experience(self, best: Rows) -> float:
        """The mean of n / (1 + n) over the cards, n their phrases: 0..1. A subject alone shows no contrast."""
        counts = [self._said.get(row, 0) for row in best.tolist()]
        return sum(count / (1 + count) for count in counts) / len(counts) if counts else 0.0

    def _contrast(self, query: Vector, best: Rows) -> Vector:
        """Of each of *best*: how much of the intent its phrases explain and the others' do not; shape (len(best),)."""
        parts = [self._phrases[row] for row in best.tolist()]
        counts = [len(levels) for levels, _ in parts]
        levels = np.concatenate([levels for levels, _ in parts]).astype(np.float32)
        scale = np.repeat(np.array([scale for _, scale in parts]), counts)
        kernel = levels @ levels.T  # of whole numbers below 2^24: exact
        kernel *= scale
        kernel *= scale[:, None]
        kernel.flat[:: len(kernel) + 1] += np.float32(RIDGE)
        weights = np.linalg.solve(kernel, (levels @ query) * scale)
        owner = np.repeat(np.arange(len(counts)), counts)
        return np.bincount(owner, weights, len(counts)).astype(np.float32)


def _top(values: Vector, count: int) -> Rows:
    """The indices of the *count* largest, the largest first; ties in order."""
    if count < len(values):
        found = np.argpartition(-values, count)[:count] if count else np.zeros(0, dtype=np.intp)
        found = np.sort(found)
    else:
        found = np.arange(len(values))
    return found[np.argsort(-values[found], kind="stable")][:count]
