"""The router's answer: a ranking, and the reasons for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from atmosphere.capabilities.card import Card
from atmosphere.routing.intent import Intent
from transports.peer_id import PeerId


@dataclass(frozen=True, slots=True)
class Candidate:
    """One (card, node) pair that can do the work."""

    peer: PeerId
    node_name: str
    card_id: bytes
    card: Card
    score: float
    """0..1, higher is better; only the order means anything."""
    factors: Mapping[str, float]
    """Every factor of the score by name, as multiplied or added (see scoring.py)."""
    path: str
    """``local``, ``lan``, ``direct``, ``relay`` or ``unknown`` (it would have to be dialled)."""
    rtt_ms: float | None


@dataclass(frozen=True, slots=True)
class Decision:
    """Ranked candidates for one intent. Empty: nobody can, and *missing* says what would be needed."""

    intent: Intent
    candidates: tuple[Candidate, ...]
    filtered: Mapping[str, int] = field(default_factory=dict)
    """How many (card, node) pairs each filter took out, by the filter's name, in the order of the filters."""
    missing: str = ""
    """For people: why there is no candidate and what would change that."""
    elapsed_ms: float = 0.0

    @property
    def chosen(self) -> Candidate | None:
        return self.candidates[0] if self.candidates else None
