"""Does a request need the large model? And which of the models is that? Pure.

The founding scenario: "What's 2+2?" goes to the 7B model at hand, "Analyze the security implications of our network
topology" to the 70B model one hop away. Where no model is named and models of several sizes could answer, the need of
the request and the size of the model make one more factor of the score. It is a preference, never a filter: a large
model that is far, busy or dear still loses to a small one that is not.

The need is what a decision model says, where one was asked (``arbiter.Settled.large``). Otherwise it is read off the
request's embedding, which the router has anyway: its place between the mean of 36 easy examples and the mean of 32
hard ones (``triage_examples``). Measured with the shipped embedder on 40 requests that were written afterwards and
against it (short hard ones, long easy ones): AUROC .99, 37 of 40 right; a list of telling words had .45 there, the
length of the request .52. A small table by one author: it shows that the direction means something, not how well it
does on your requests. Twelve German requests: 11 right, with an embedder that was made for English.
"""

from __future__ import annotations

import math
import re
from bisect import bisect
from collections.abc import Mapping
from functools import lru_cache
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from atmosphere.capabilities.card import Card
from atmosphere.embedding import Embedder
from atmosphere.routing.triage_examples import EASY, HARD

WEIGHT = 0.4
"""What the wrong size costs at most: as much as the farthest connection. The matches of chat models that differ in
their names only are 10 to 15 % apart by chance; with 0.3 such a chance sometimes outweighed the size."""
SLOPE = 40.0
"""Of the probability over the cosines; the examples themselves, each left out in turn, would bear 100."""
SURE = 0.85
"""A guess is never surer than this, nor its opposite: what a decision model says may weigh more."""

_SIZE = re.compile(r"(?<![\w.])(?:(\d{1,3})x)?(\d{1,4}(?:\.\d{1,3})?)([bm])(?![a-z0-9])", re.IGNORECASE)

Vector = npt.NDArray[np.float32]


class Triage:
    """Guesses how probable it is that a request needs a large model, from its vector in one space."""

    _learnt: ClassVar[dict[str, tuple[Vector, float]]] = {}
    """Direction and middle by space: they depend on nothing else, so many nodes of one process learn them once."""

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder
        self._space = embedder.space.name

    def __repr__(self) -> str:
        return f"<Triage in {self._space}{'' if self._space in self._learnt else ', not learnt yet'}>"

    def learn(self) -> None:
        """Embed the examples: a quarter of a second once, so not on the way of a request or in the event loop."""
        if self._space not in self._learnt:
            easy, hard = (np.mean([self._embedder.embed([text])[0] for text in texts], axis=0)
                          for texts in (EASY, HARD))
            direction = np.asarray(hard - easy, dtype=np.float32)
            self._learnt[self._space] = direction, float((hard + easy) @ direction) / 2

    def need(self, vector: Vector) -> float:
        """The probability for the request with the unit *vector*, shape (d,); 0.5 before anything was learnt."""
        learnt = self._learnt.get(self._space)
        if learnt is None:
            return 0.5
        direction, middle = learnt
        raw = 1 / (1 + math.exp(-SLOPE * (float(vector @ direction) - middle)))
        return min(max(raw, 1 - SURE), SURE)


def size_of(card: Card) -> float | None:
    """The weights of *card*'s model in billions, as its name or description has them; None: they do not say.

    A mixture of experts counts with all of them: ``8x7b`` is 56.
    """
    return _parsed(card.model, card.description)


@lru_cache(maxsize=4096)
def _parsed(model: str, description: str) -> float | None:
    for text in (model, description[:200]):
        found = _SIZE.search(re.sub(r"[-:_/]", " ", text))
        if found:
            experts, number, unit = found.groups()
            size = float(number) * int(experts or 1) / (1000 if unit in "mM" else 1)
            return size or None
    return None


class Sizes:
    """The models that could answer one request by card, with their sizes in billions of weights; None: not known."""

    def __init__(self, sizes: Mapping[bytes, float | None]) -> None:
        known = {math.log(size) for size in sizes.values() if size is not None}
        self._sizes = sizes
        self._least = min(known, default=0.0)
        self._range = max(known, default=0.0) - self._least
        self._places = [(log - self._least) / self._range for log in sorted(known)] if self else []

    def __repr__(self) -> str:
        return f"<Sizes from {math.exp(self._least):g} B, {math.exp(self._range):.3g} times>"

    def __bool__(self) -> bool:
        """Whether there is anything to choose: two sizes, one at least twice the other."""
        return self._range >= math.log(2) - 1e-9

    def factors(self, need: float) -> dict[bytes, float]:
        """What its size makes of each card's score, ``1 - WEIGHT`` to 1; empty where there is nothing to choose.

        *need*: the probability that a large one is needed. 1 for the size that is nearest to it; an unknown one stands
        in the middle.
        """
        if not self:
            return {}
        above = bisect(self._places, need)
        nearest = min(abs(need - other) for other in self._places[max(above - 1, 0) : above + 1])
        return {card: min(1.0, (1.0 - WEIGHT * abs(need - self._place(size))) / (1.0 - WEIGHT * nearest))
                for card, size in self._sizes.items()}

    def _place(self, size: float | None) -> float:
        return 0.5 if size is None else (math.log(size) - self._least) / self._range
