"""What people taught the matcher: intents that a card was right for, or wrong. Pure.

A lesson is the vector of one intent, a card, and good or bad. It moves the fit of that card for intents near it:

    lift = WEIGHT * sum(+k or -k) / (PRIOR + sum(k))        over the lessons of the card
    k    = max(0, (cosine - NEAR) / (1 - NEAR)) * 0.5 ** (age / HALF_LIFE_S)

so that one word sends the very same intent elsewhere where anything else comes near, several that agree do so further
around, and those that contradict each other cancel out.

Guarantees: a lift is between -WEIGHT and WEIGHT; an intent that is no nearer than NEAR to any lesson of a card leaves
that card's fit as it is, to the bit. At most PER_CARD lessons of a card and CAPACITY in all are kept, the oldest go.
Of the intent only the vector is kept, in int8: no text. (Something of a text can be guessed from its vector, so it
stays on this node.) Lessons come from this node's own people and from nobody else.

A lesson of a card that is not offered now does nothing and waits: nodes come and go daily. A card that says something
else is another card, so what was learnt of the old one fades and goes.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from transports.peer_id import PeerId

NEAR = 0.5
"""Cosine from which on an intent is like another: with the shipped embedder unrelated ones are below 0.3 and those that
want the same thing mostly between 0.5 and 0.8."""
WEIGHT = 0.3
"""Of a fit: the most that any number of lessons can do. A single one moves the same intent by 0.2, somewhat more than
the 0.17 that make a card half as good."""
WRONG = -0.1
"""From this lift down (half of one word) people found the card wrong for the intent, whatever a decision model says."""
PRIOR = 0.5
"""Weight of not knowing: one lesson counts two thirds of what many do."""
SURE = 0.7
"""Praise of a card that was this probable teaches nothing: it would only push out what was learnt from mistakes."""
HALF_LIFE_S = 30 * 86400.0
"""Longer than an opinion's, because what a card is for does not change: a card that says something else is another."""
PER_CARD = 32
CAPACITY = 2000
"""4 MB in memory; comparing an intent with all of them takes 0.1 ms."""

_LEVELS = 127

Vector = npt.NDArray[np.float32]
Key = tuple[bytes, bytes]
"""A card's id, and the vector of an intent in int8."""


@dataclass(frozen=True, slots=True)
class Lesson:
    """What was said of one card and one intent."""

    peer: PeerId
    """Whose answer it was about, or who offers the card that was named instead."""
    good: bool
    at: float
    """Seconds on Env's clock."""


@dataclass(frozen=True, slots=True)
class _Rows:
    """All lessons as arrays, a row each."""

    vectors: Vector
    """Unit vectors, shape (lessons, d); zeros for one of another length, which is like nothing."""
    signs: npt.NDArray[np.float64]
    at: npt.NDArray[np.float64]
    cards: npt.NDArray[np.intp]
    """Of which of *ids*."""
    ids: list[bytes]

    @classmethod
    def of(cls, lessons: Mapping[Key, Lesson], dimensions: int) -> _Rows:
        vectors = np.zeros((len(lessons), dimensions), dtype=np.float32)
        numbers: dict[bytes, int] = {}
        for row, (card, body) in zip(vectors, lessons, strict=True):
            numbers.setdefault(card, len(numbers))
            if len(body) == dimensions:
                row[:] = np.frombuffer(body, dtype=np.int8)
                row /= np.linalg.norm(row)
        return cls(
            vectors,
            np.array([1.0 if lesson.good else -1.0 for lesson in lessons.values()]),
            np.array([lesson.at for lesson in lessons.values()]),
            np.array([numbers[card] for card, _ in lessons], dtype=np.intp),
            list(numbers),
        )


class Lessons:
    """All lessons of this node, in one vector space."""

    def __init__(self, monotonic: Callable[[], float] = lambda: 0.0) -> None:
        """*monotonic*: Env's clock, seconds; without one nothing fades."""
        self._monotonic = monotonic
        self._lessons: OrderedDict[Key, Lesson] = OrderedDict()  # the oldest first
        self._rows: _Rows | None = None  # None: to be made anew
        self.unsaved: dict[Key, Lesson | None] = {}
        """What has changed since somebody emptied this; None: gone."""

    def __repr__(self) -> str:
        return f"<Lessons: {len(self._lessons)}>"

    def __len__(self) -> int:
        return len(self._lessons)

    def teach(self, peer: PeerId, card: bytes, vector: Vector, good: bool) -> None:
        """*card* is right, or wrong, for the intent with the unit *vector*, shape (d,). The last word on it counts."""
        largest = float(np.abs(vector).max(initial=0.0))
        if largest > 0.0:
            body = np.rint(vector * (_LEVELS / largest)).astype(np.int8).tobytes()
            self._put((card, body), Lesson(peer, good, self._monotonic()))

    def restore(self, peer: PeerId, card: bytes, body: bytes, good: bool, age_s: float) -> None:
        """Take in a lesson of an earlier run, *age_s* old; what was taught since counts more. Call oldest first."""
        if (card, body) not in self._lessons and any(body):
            self._put((card, body), Lesson(peer, good, self._monotonic() - max(age_s, 0.0)))

    def forget(self, peer: PeerId) -> None:
        """*peer* is not a member any more: nothing that was learnt from it is kept."""
        for key in [key for key, lesson in self._lessons.items() if lesson.peer == peer]:
            self._drop(key)

    def lifts(self, query: Vector) -> Mapping[bytes, float]:
        """What the lessons make of the fits for the unit *query*, shape (d,), by card; only those that move."""
        if not self._lessons:
            return {}
        if self._rows is None:
            self._rows = _Rows.of(self._lessons, len(query))
        rows = self._rows
        near = rows.vectors @ query - np.float32(NEAR)
        (found,) = np.nonzero(near > 0.0)
        if not len(found):
            return {}
        age_s = np.maximum(self._monotonic() - rows.at[found], 0.0)
        weights = near[found] / (1.0 - NEAR) * 0.5 ** (age_s / HALF_LIFE_S)
        cards, places = np.unique(rows.cards[found], return_inverse=True)
        lifts = WEIGHT * np.bincount(places, weights * rows.signs[found]) / (PRIOR + np.bincount(places, weights))
        return {rows.ids[card]: lift for card, lift in zip(cards.tolist(), lifts.tolist(), strict=True)}

    def _put(self, key: Key, lesson: Lesson) -> None:
        self._lessons.pop(key, None)
        self._lessons[key] = self.unsaved[key] = lesson
        self._rows = None
        same = [other for other in self._lessons if other[0] == key[0]]
        if len(same) > PER_CARD:
            self._drop(same[0])
        if len(self._lessons) > CAPACITY:
            self._drop(next(iter(self._lessons)))

    def _drop(self, key: Key) -> None:
        del self._lessons[key]
        self.unsaved[key] = None
        self._rows = None
