"""One decision's pairs in order: all are scored, and only the best get the record that explains their score. Pure."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod

from atmosphere.mesh.table import Route
from atmosphere.routing.decision import Candidate
from atmosphere.routing.intent import Intent
from atmosphere.routing.matching import Matches
from atmosphere.routing.models import preference
from atmosphere.routing.outcomes import Outcomes
from atmosphere.routing.scoring import Standings, Values, named, values

Ranked = tuple[bool, float, int, bytes, int, Values, Mapping[str, float]]
"""What pairs are ordered by: of the card that goes first; score; the owner's preference; peer id, so that the same
table gives the same order; place among the pairs, negative, which decides at the latest. What follows are the factors:
those of every score, and further ones by name."""


@dataclass(slots=True)
class Ranking:
    """The pairs *routes* of one decision."""

    routes: Sequence[Route]
    intent: Intent
    matches: Matches | None
    """None: meaning has nothing to decide."""
    outcomes: Outcomes
    standings: Standings
    affinity: Callable[[Route], float]
    more: dict[str, Callable[[bytes], float | None]] = field(default_factory=dict)
    """Further factors by name, of cards; None: it is not one of this card's score."""

    def best(self, count: int, first: bytes | None = None) -> list[Candidate]:
        """The best *count*, those of the card *first* before all others."""
        return list(map(self._candidate, _largest(count, self._ranked(first))))

    def best_of_cards(self, count: int) -> list[Candidate]:
        """The best pair of each of the best *count* cards."""
        best: dict[bytes, Ranked] = {}
        for ranked in self._ranked():
            card = self.routes[-ranked[4]].entry.card
            if card not in best or ranked > best[card]:
                best[card] = ranked
        return list(map(self._candidate, _largest(count, best.values())))

    def _ranked(self, first: bytes | None = None) -> Iterator[Ranked]:
        intent, matches, learnt, standing, affinity = (
            self.intent, self.matches, self.outcomes.learnt, self.standings.of, self.affinity
        )
        cards: dict[bytes, tuple[float, int, Mapping[str, float]]] = {}
        for place, route in enumerate(self.routes):
            card, peer = route.entry.card, route.node.peer
            said = cards.get(card)
            if said is None:
                match = 1.0 if matches is None else matches.factor(card)
                said = cards[card] = match, -preference(intent.equivalents, route.card.model), self._further(card)
            match, preferred, further = said
            found = values(route, standing(route.node), match, learnt(peer, card), affinity(route), intent.prefer)
            total = prod(further.values(), start=prod(found))
            yield card == first, total, preferred, peer.raw, -place, found, further

    def _further(self, card: bytes) -> Mapping[str, float]:
        found = {name: factor(card) for name, factor in self.more.items()}
        return {name: value for name, value in found.items() if value is not None}

    def _candidate(self, ranked: Ranked) -> Candidate:
        _, total, _, _, place, found, further = ranked
        route = self.routes[-place]
        node, factors = route.node, named(found)
        factors.update(further)
        return Candidate(
            node.peer, node.name, route.entry.card, route.card, total, factors, str(node.path), node.rtt_ms
        )


def _largest(count: int, found: Iterable[Ranked]) -> list[Ranked]:
    """The largest *count*, the largest first."""
    ranked = list(found)
    return heapq.nlargest(count, ranked) if count < len(ranked) else sorted(ranked, reverse=True)
