"""Gets every card its vectors: computed for this node's own cards, fetched for others', and checked in either case.

A fetched vector is used at once, so that a joiner can route by meaning within a second, but it is only what a member
said: this node computes each one itself when it has nothing better to do, and its own result replaces the other's.
Only then are the vectors of the card's single texts known, which tell similar cards apart: they never travel. What was
computed once is kept across restarts (kept.py).
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
from atmosphere.routing.kept import Digest, Kept, KeptVectors, digest_of
from atmosphere.routing.matching import CardVectors, card_texts, centroid
from atmosphere.routing.phrases import subject

logger = logging.getLogger(__name__)

FETCH_GRACE_S = 2.0
"""A vector that has not come by then is computed."""
CHECK_PAUSE_S = 0.5
"""Between two checks of fetched vectors: about 2 % of a core while there are any."""
SAVED_AT_ONCE = 64
"""Vectors: a crash costs less than a second of computing, and the disk is not asked for every one."""
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
        kept: KeptVectors | None = None,
    ) -> None:
        """*want*: ask the mesh for a card's vector; *give*: let the mesh have one. *kept*: those of earlier runs."""
        self._vectors = vectors
        self._embedder = embedder
        self._env = env
        self._want = want
        self._give = give
        self._kept = kept
        self._new: dict[bytes, tuple[Card, bool]] = {}  # not looked for among the kept ones yet; whether it is our own
        self._missing: OrderedDict[bytes, tuple[Card, float]] = OrderedDict()  # card, when it may be computed: in order
        self._unchecked: OrderedDict[bytes, tuple[Card, float]] = OrderedDict()  # of these a member sent a vector
        self._unsaved: dict[Digest, Kept] = {}
        self._more = trio.Event()
        self.disagreements = 0
        """Fetched vectors that were not what the card says."""

    def __repr__(self) -> str:
        return f"<Vectorizer {len(self)} to do, {self.disagreements} disagreements>"

    def __len__(self) -> int:
        return len(self._new) + len(self._missing) + len(self._unchecked)

    def own_card(self, card_id: bytes, card: Card) -> None:
        """A card of this node: compute its vector now."""
        self._add(card_id, card, own=True)

    def card(self, card_id: bytes, card: Card) -> None:
        """A card of another node: fetch its vector, compute it later."""
        self._add(card_id, card, own=False)

    def fetched(self, vector: CardVector) -> None:
        """A vector that a member sent."""
        if vector.space == self._vectors.space and vector.card not in self._vectors:
            floats = vector.floats()
            if len(floats) == self._embedder.space.dimensions:
                self._vectors.put(vector.card, centroid(floats[None, :]))
                if vector.card in self._missing:
                    self._unchecked[vector.card] = self._missing.pop(vector.card)

    def _add(self, card_id: bytes, card: Card, *, own: bool) -> None:
        if card_id in self._new or card_id in self._missing or card_id in self._unchecked or len(self) >= CAPACITY:
            return
        self._vectors.describe(card_id, card)
        if self._kept is None:
            self._plan(card_id, card, own=own)
        else:
            self._new[card_id] = card, own
        self._more.set()

    def _plan(self, card_id: bytes, card: Card, *, own: bool) -> None:
        due = self._env.monotonic() + FETCH_GRACE_S
        if own:
            self._missing[card_id] = card, 0.0
            self._missing.move_to_end(card_id, last=False)
        elif card_id in self._vectors:
            self._unchecked[card_id] = card, due
        else:
            self._want(card_id)
            self._missing[card_id] = card, due

    async def run(self) -> None:
        """Compute until cancelled: what is missing first, then what was only fetched."""
        try:
            while True:
                self._more = trio.Event()
                await self._recall()
                cards = self._missing or self._unchecked
                if not cards:
                    await self._save()
                    await self._more.wait()
                    continue
                card_id, (card, due) = next(iter(cards.items()))
                if (wait := due - self._env.monotonic()) > 0:
                    with trio.move_on_after(wait):
                        await self._more.wait()
                    continue
                await self._compute(card_id, card)
                if cards is self._unchecked:
                    await trio.sleep(CHECK_PAUSE_S)
        finally:
            with trio.CancelScope(shield=True):
                await self._save()

    async def _recall(self) -> None:
        """Take the vectors of new cards from an earlier run; plan the others."""
        if self._kept is None or not self._new:
            return
        new, self._new = self._new, {}
        digests = {card_id: digest_of(card) for card_id, (card, _) in new.items()}
        found = await self._kept.find(list(digests.values()))
        for card_id, (card, own) in new.items():
            kept = found.get(digests[card_id])
            if kept is None:
                self._plan(card_id, card, own=own)
            else:
                self._take(card_id, kept)

    async def _compute(self, card_id: bytes, card: Card) -> None:
        texts = card_texts(card)
        parts = await self._env.run_blocking(lambda: self._embedder.embed(texts))
        kept = Kept(centroid(parts, len(subject(card))), parts)
        known = self._vectors.get(card_id)
        if known is not None and float(known @ kept.centroid) < MIN_AGREEMENT:
            self.disagreements += 1
            logger.warning("the vector that was sent of card %s is not what it says; using ours", card_id.hex()[:8])
        self._missing.pop(card_id, None)
        self._unchecked.pop(card_id, None)
        self._take(card_id, kept)
        if self._kept is not None:
            self._unsaved[digest_of(card)] = kept
            if len(self._unsaved) >= SAVED_AT_ONCE:
                await self._save()

    def _take(self, card_id: bytes, kept: Kept) -> None:
        self._vectors.put(card_id, kept.centroid, kept.parts)
        self._give(CardVector.from_floats(card_id, self._vectors.space, kept.centroid))

    async def _save(self) -> None:
        if self._kept is not None and self._unsaved:
            unsaved, self._unsaved = self._unsaved, {}
            await self._kept.save(unsaved)
