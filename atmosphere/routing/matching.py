"""How well a card's meaning fits an intent: the cosine of their embeddings in one space.

A card's vector is the normalised mean of the vectors of its description and of each of its examples: measured on two
public intent sets, one centroid per card beats the best single example at a fraction of the storage.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from atmosphere.capabilities.card import Card

Vector = npt.NDArray[np.float32]

NEUTRAL = 0.5
"""The match of a card whose vector is not known (yet): that of a card with nothing in common with the intent."""


def card_texts(card: Card) -> list[str]:
    """What is embedded of *card*: its description with its topics, then each example."""
    subject = f"{card.description} {', '.join(card.topics)}".strip()
    return [text for text in (subject or card.type, *card.examples) if text]


def centroid(vectors: Vector) -> Vector:
    """The normalised mean of *vectors*, shape (n, d) -> (d,)."""
    mean = vectors.mean(axis=0)
    norm = float(np.linalg.norm(mean))
    return np.asarray(mean / norm if norm else mean, dtype=np.float32)


class CardVectors:
    """Unit vectors of cards in this node's space, as one matrix, so that a match is one product."""

    def __init__(self, space: str) -> None:
        self.space = space
        self._vectors: dict[bytes, Vector] = {}
        self._matrix: Vector | None = None
        self._rows: dict[bytes, int] = {}

    def __repr__(self) -> str:
        return f"<CardVectors {len(self._vectors)} in {self.space}>"

    def __contains__(self, card_id: bytes) -> bool:
        return card_id in self._vectors

    def put(self, card_id: bytes, vector: Vector) -> None:
        """Keep the unit *vector*, shape (d,), of a card."""
        self._vectors[card_id] = vector
        self._matrix = None

    def get(self, card_id: bytes) -> Vector | None:
        """The unit vector of a card, shape (d,)."""
        return self._vectors.get(card_id)

    def keep(self, card_ids: Iterable[bytes]) -> None:
        """Drop the vectors of all cards but these."""
        kept = set(card_ids)
        if not self._vectors.keys() <= kept:
            self._vectors = {card_id: vector for card_id, vector in self._vectors.items() if card_id in kept}
            self._matrix = None

    def match(self, query: Vector) -> dict[bytes, float]:
        """Every card's match with the unit *query*, shape (d,): (1 + cosine) / 2, so 0..1."""
        if not self._vectors:
            return {}
        if self._matrix is None:
            self._rows = {card_id: row for row, card_id in enumerate(self._vectors)}
            self._matrix = np.stack(list(self._vectors.values())).astype(np.float32, copy=False)
        cosines = self._matrix @ query
        return {card_id: (1.0 + float(cosines[row])) / 2.0 for card_id, row in self._rows.items()}
