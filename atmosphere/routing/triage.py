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
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from atmosphere.capabilities.card import Card
from atmosphere.embedding import Embedder
from atmosphere.routing.triage_examples import EASY, HARD

WEIGHT = 0.3
"""What the wrong size costs at most: as much as a bad connection, less than a card that does not fit."""
SLOPE = 40.0
"""Of the probability over the cosines; the examples themselves, each left out in turn, would bear 100."""
SURE = 0.85
"""A guess is never surer than this, nor its opposite: what a decision model says may weigh more."""

_SIZE = re.compile(r"(?<![\w.])(?:(\d{1,3})x)?(\d{1,4}(?:\.\d{1,3})?)([bm])(?![a-z0-9])", re.IGNORECASE)

Vector = npt.NDArray[np.float32]


class Triage:
    """Guesses how probable it is that a request needs a large model."""

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder
        self._direction: Vector | None = None
        self._middle = 0.0

    def __repr__(self) -> str:
        return f"<Triage in {self._embedder.space.name}{'' if self.ready else ', not learnt yet'}>"

    @property
    def ready(self) -> bool:
        """Whether :meth:`learn` has run."""
        return self._direction is not None

    def learn(self) -> None:
        """Embed the examples: a quarter of a second once, so not on the way of a request's event loop."""
        easy, hard = (np.mean([self._embedder.embed([text])[0] for text in texts], axis=0) for texts in (EASY, HARD))
        direction = np.asarray(hard - easy, dtype=np.float32)
        self._middle = float((hard + easy) @ direction) / 2
        self._direction = direction

    def need(self, vector: Vector) -> float:
        """The probability for the request with the unit *vector*, shape (d,); 0.5 before anything was learnt."""
        if self._direction is None:
            return 0.5
        raw = 1 / (1 + math.exp(-SLOPE * (float(vector @ self._direction) - self._middle)))
        return min(max(raw, 1 - SURE), SURE)


def size_of(card: Card) -> float | None:
    """The weights of *card*'s model in billions, as its name or description has them; None: they do not say.

    A mixture of experts counts with all of them: ``8x7b`` is 56.
    """
    for text in (card.model, card.description[:200]):
        found = _SIZE.search(re.sub(r"[-:_/]", " ", text))
        if found:
            experts, number, unit = found.groups()
            size = float(number) * int(experts or 1) / (1000 if unit in "mM" else 1)
            return size or None
    return None


class Sizes:
    """The models that could answer one request, from the smallest to the largest."""

    def __init__(self, cards: Iterable[Card]) -> None:
        known = [size for size in map(size_of, cards) if size is not None]
        self._least = math.log(min(known)) if known else 0.0
        self._range = math.log(max(known)) - self._least if known else 0.0

    def __repr__(self) -> str:
        return f"<Sizes from {math.exp(self._least):g} B, {math.exp(self._range):.3g} times>"

    def __bool__(self) -> bool:
        """Whether there is anything to choose: two sizes, one at least twice the other."""
        return self._range >= math.log(2) - 1e-9

    def factor(self, card: Card, need: float) -> float:
        """What *card*'s size makes of its score, ``1 - WEIGHT`` to 1; *need*: the probability of the large one.

        Unknown sizes stand in the middle.
        """
        if not self:
            return 1.0
        size = size_of(card)
        place = 0.5 if size is None else (math.log(size) - self._least) / self._range
        return 1.0 - WEIGHT * abs(need - place)
