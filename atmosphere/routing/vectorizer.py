"""Gets every card its vectors: computed for this node's own cards, fetched for others', and checked in either case.

A fetched vector is used at once, so that a joiner can route by meaning within a second, but it is only what a member
said: this node computes each one itself when it has nothing better to do, and its own result replaces the other's.
Only then are the vectors of the card's single texts known, which tell similar cards apart: they never travel.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable

import trio

from atmosphere.capabilities.card import Card
from atmosphere.capabilities.vector import CardVector
from atmosphere.embedding import Embedder
from atmosphere.env import Env
from atmosphere.routing.matching import CardVectors, card_texts, centroid
from atmosphere.routing.phrases import subject

logger = logging.getLogger(__name__)

FETCH_GRACE_S = 2.0
"""A vector that has not come by then is computed."""
CHECK_PAUSE_S = 0.5
"""Between two checks of fetched vectors: about 2 % of a core while there are any."""
CAPACITY = 20_000
MIN_AGREEMENT = 0.95
"""Cosine of a fetched vector and ours. int8 models and int8 quantisation together stay above .98."""


class Vectorizer:
    """Keeps :class:`CardVectors` complete. :meth:`run` owns its one task."""

    def __init__(
        self,
        vectors: CardVectors,
        embedder: Embedder,
        env: Env,
        want: Callable[[bytes], None],
        give: Callable[[CardVector], None],
    ) -> None:
        """*want*: ask the mesh for a card's vector; *give*: let the mesh have one."""
        self._vectors = vectors
        self._embedder = embedder
        self._env = env
        self._want = want
        self._give = give
        self._todo: OrderedDict[bytes, tuple[Card, float]] = OrderedDict()  # card, when it may be computed
        self._more = trio.Event()
        self.disagreements = 0
        """Fetched vectors that were not what the card says."""

    def __repr__(self) -> str:
        return f"<Vectorizer {len(self._todo)} to do, {self.disagreements} disagreements>"

    def own_card(self, card_id: bytes, card: Card) -> None:
        """A card of this node: compute its vector now."""
        self._add(card_id, card, 0.0)

    def card(self, card_id: bytes, card: Card) -> None:
        """A card of another node: fetch its vector, compute it later."""
        if card_id not in self._vectors:
            self._want(card_id)
        self._add(card_id, card, FETCH_GRACE_S)

    def fetched(self, vector: CardVector) -> None:
        """A vector that a member sent."""
        if vector.space == self._vectors.space and vector.card not in self._vectors:
            floats = vector.floats()
            if len(floats) == self._embedder.space.dimensions:
                self._vectors.put(vector.card, centroid(floats[None, :]))

    def _add(self, card_id: bytes, card: Card, delay: float) -> None:
        if card_id not in self._todo and len(self._todo) < CAPACITY:
            self._vectors.describe(card_id, card)
            self._todo[card_id] = (card, self._env.monotonic() + delay)
            self._more.set()

    async def run(self) -> None:
        """Compute until cancelled: what is missing first, then what was only fetched."""
        while True:
            if not self._todo:
                self._more = trio.Event()
                await self._more.wait()
            card_id, (card, due) = min(
                self._todo.items(), key=lambda item: (item[0] in self._vectors, item[1][1])
            )
            if (wait := due - self._env.monotonic()) > 0:
                self._more = trio.Event()
                with trio.move_on_after(wait):
                    await self._more.wait()
                continue
            checking = card_id in self._vectors
            await self._compute(card_id, card)
            self._todo.pop(card_id, None)
            if checking:
                await trio.sleep(CHECK_PAUSE_S)

    async def _compute(self, card_id: bytes, card: Card) -> None:
        texts = card_texts(card)
        parts = await self._env.run_blocking(lambda: self._embedder.embed(texts))
        vector = centroid(parts, len(subject(card)))
        known = self._vectors.get(card_id)
        if known is not None and float(known @ vector) < MIN_AGREEMENT:
            self.disagreements += 1
            logger.warning("the vector that was sent of card %s is not what it says; using ours", card_id.hex()[:8])
        self._vectors.put(card_id, vector, parts)
        self._give(CardVector.from_floats(card_id, self._vectors.space, vector))
