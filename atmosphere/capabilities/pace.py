"""How long calls of this node's cards take lately, and what of it the others are told. Pure.

A node that nobody has called yet looks like any other, though it may be ten times slower; it knows that itself after
its first call. What it tells is rough and rare: a number that others once acted on need not follow every job.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from statistics import median_low

from atmosphere.capabilities.card import CardId
from atmosphere.capabilities.offer import MAX_PACE_MS

SAMPLES = 15
"""Calls of a card whose median counts: one long job, or a model that had to be loaded, does not make a node slow."""
STEP = 2.0
"""Told anew when it has become so many times longer or shorter: jobs themselves differ as much."""
LEAST_MS = 100
"""What is faster is told as this: the way there takes about as long, and a millisecond is soon two."""
LATE_S = 3.0
"""Of a card that has never answered: a call that is called off sooner says nothing."""
ENTRIES = 64
"""Of an offer that fits into a beacon's announcement. A larger one is told as much more seldom."""


class Paces:
    """Of every card of this node: the median of its last calls, and what was told of it.

    One telling is for all cards that have moved. The next one comes with the first call that ends after the pause, so
    an idle node tells nothing.
    """

    def __init__(self, monotonic: Callable[[], float], pause_s: Callable[[], float]) -> None:
        """*monotonic*: Env's clock, seconds. *pause_s*: the least time between two tellings of a small offer."""
        self._monotonic = monotonic
        self._pause_s = pause_s
        self._seconds: dict[CardId, deque[float]] = {}
        self._told: dict[CardId, int] = {}
        self._moved: set[CardId] = set()
        self._told_at: float | None = None

    def __repr__(self) -> str:
        return f"<Paces of {len(self._seconds)} cards, {len(self._told)} told>"

    def told_ms(self, card: CardId) -> int:
        """What the others are told, in milliseconds; 0: nothing yet."""
        return self._told.get(card, 0)

    def took(self, card: CardId, seconds: float, *, at_least: bool = False) -> bool:
        """A call worked so long until its first answer; whether there is something to tell now.

        *at_least*: it was called off before it answered, which says something only where that was late.
        """
        if at_least and seconds <= (self._pace_ms(card) / 1000 or LATE_S):
            return False
        self._seconds.setdefault(card, deque(maxlen=SAMPLES)).append(seconds)
        told, pace = self.told_ms(card), self._pace_ms(card)
        if told and told < pace * STEP and pace < told * STEP:
            self._moved.discard(card)
        else:
            self._moved.add(card)
        return bool(self._moved) and self._due()

    def tell(self) -> None:
        """The others are told what has moved."""
        if self._moved:
            self._told |= {card: self._pace_ms(card) for card in self._moved}
            self._moved.clear()
            self._told_at = self._monotonic()

    def forget(self, card: CardId) -> None:
        """It is not offered any more."""
        self._seconds.pop(card, None)
        self._told.pop(card, None)
        self._moved.discard(card)

    def _pace_ms(self, card: CardId) -> int:
        seconds = self._seconds.get(card)
        return min(max(round(median_low(seconds) * 1000), LEAST_MS), MAX_PACE_MS) if seconds else 0

    def _due(self) -> bool:
        if self._told_at is None:
            return True
        waited, pause = self._monotonic() - self._told_at, self._pause_s()
        return waited >= pause and waited >= pause * len(self._told.keys() | self._moved) / ENTRIES
