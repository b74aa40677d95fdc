"""Who could do an intent: what passes the filters, kept until the table changes. Pure.

Going through all offers takes milliseconds when there are thousands, and the same few questions (a chat, a tool call)
are asked all the time. What a filter looks at is either in the key here, or raises the table's version when it changes,
or, as the measured round trip, is never kept.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from atmosphere.mesh.table import GradientTable, Route
from atmosphere.routing.filters import Asker, Sieve
from atmosphere.routing.intent import Intent
from atmosphere.routing.matching import SHORTLIST as CLOSE
from atmosphere.routing.matching import CardVectors, Fit, Rows

KEPT = 64
"""Different questions; each holds a list of routes."""


@dataclass(slots=True)
class Reachable:
    """The (node, card) pairs that passed."""

    routes: list[Route]
    filtered: Mapping[str, int]
    """How many each filter took out."""
    by_card: dict[bytes, list[Route]] = field(init=False)
    _rows: Rows | None = None
    _generation: int = -1

    def __post_init__(self) -> None:
        self.by_card = {}
        for route in self.routes:
            self.by_card.setdefault(route.entry.card, []).append(route)

    def rows(self, vectors: CardVectors) -> Rows:
        """The cards' rows in the matcher."""
        if self._rows is None or self._generation != vectors.generation:
            self._rows, self._generation = vectors.rows_of(self.by_card), vectors.generation
        return self._rows


    def nearest(self, best: Iterable[Fit], enough: int) -> list[Route]:
        """The pairs of the *best* cards, best first: of the CLOSE first ones all, then until there are *enough*."""
        found: list[Route] = []
        for place, fit in enumerate(best):
            if place >= CLOSE and len(found) >= enough:
                break
            found += self.by_card[fit.card]
        return found


class Reach:
    """All of it, for one table."""

    def __init__(self, table: GradientTable) -> None:
        self._table = table
        self._stamp: Hashable = None
        self._routes: list[Route] = []
        self._contexts: list[int] = []
        self._found: OrderedDict[Hashable, Reachable] = OrderedDict()

    def __repr__(self) -> str:
        return f"<Reach of {len(self._found)} questions about {len(self._routes)} routes>"

    def of(self, intent: Intent, asker: Asker) -> Reachable:
        """What passes the filters that *intent* engages, now."""
        stamp = self._table.version, asker.membership  # one's own membership may go without a word to the table
        if self._stamp != stamp:
            self._stamp = stamp
            self._routes = list(self._table.routes())
            self._contexts = sorted({route.card.context_tokens for route in self._routes})
            self._found.clear()
        if intent.constraints.max_latency_ms is not None:
            return self._sift(intent, asker, self._table.routes())
        key = self._key(intent, asker)
        found = self._found.get(key)
        if found is None:
            found = self._found[key] = self._sift(intent, asker, self._routes)
            if len(self._found) > KEPT:
                self._found.popitem(last=False)
        else:
            self._found.move_to_end(key)
        return found

    def now(self, routes: Iterable[Route]) -> list[Route]:
        """*routes* with their nodes as they are at this moment: load, distance and cost do not raise the version."""
        nodes = self._table.nodes
        return [
            route if (node := nodes.get(route.node.peer, route.node)) is route.node else
            Route(node, route.entry, route.card)
            for route in routes
        ]

    def _sift(self, intent: Intent, asker: Asker, routes: Iterable[Route]) -> Reachable:
        return Reachable(*Sieve(intent, asker).sift(routes))

    def _key(self, intent: Intent, asker: Asker) -> Hashable:
        """All that filters look at. Of the length of a request it matters only which contexts are too short."""
        needed = max(intent.constraints.min_context_tokens, intent.tokens)
        limits = replace(intent.constraints, min_context_tokens=bisect_left(self._contexts, needed))
        asked = intent.tool, intent.names_model, intent.models, intent.inputs, intent.features, needed > 0
        return asked, limits, asker
