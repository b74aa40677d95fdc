"""Who could do an intent: what passes the filters, kept, and renewed node by node as the table changes. Pure.

Going through all offers takes milliseconds when there are thousands, the same few questions (a chat, a tool call) are
asked all the time, and in a large mesh some node comes or goes many times a second. What a filter looks at is either in
the key here, or makes the table's log name the node when it changes, or, as the measured round trip, is never kept.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter, OrderedDict
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import replace
from itertools import chain, islice

import numpy as np

from atmosphere.mesh.table import Change, GradientTable, Route
from atmosphere.routing.filters import Asker, Sieve
from atmosphere.routing.intent import Intent
from atmosphere.routing.matching import SHORTLIST as CLOSE
from atmosphere.routing.matching import CardVectors, Fit, Rows
from transports.peer_id import PeerId

KEPT = 64
"""Different questions."""
PAIRS_KEPT = 200_000
"""Of all of them together, at 200 bytes each; the last question is kept whatever it holds."""
NEVER = -1
"""The matcher has not been asked for rows that still hold."""
BOUNDLESS = 2**63
"""Tokens that no context has; a card that does not say how many it has passes all the same."""


class Reachable:
    """The (node, card) pairs that pass the filters of one question."""

    def __init__(self, table: GradientTable, sieve: Sieve) -> None:
        self._table = table
        self._sieve = sieve
        self._nodes: dict[PeerId, tuple[list[Route], list[str]]] = {}  # pairs that pass; filters that stop the others
        self._stopped: Counter[str] = Counter()
        self._count = 0
        self._unknown: dict[bytes, set[PeerId]] = {}  # cards that nobody has described yet, and who offers them
        self._routes: list[Route] | None = None
        self._rows: Rows = np.zeros(0, dtype=np.intp)
        self._generation = NEVER  # of the matcher's rows
        self._moved: set[bytes] = set()  # cards that have come or gone since
        self._version = table.version
        self.by_card: dict[bytes, dict[PeerId, Route]] = {}
        for peer in table.nodes:
            self._put(peer)

    def __repr__(self) -> str:
        return f"<Reachable: {len(self.by_card)} cards, v{self._version}>"

    def __len__(self) -> int:
        return self._count

    def renew(self) -> bool:
        """Look again at the nodes that have changed; False: the table's log does not go back far enough."""
        news = _since(self._table, self._version)
        if news is None:
            return False
        changed: dict[PeerId, None] = {}
        for change in news:
            changed |= dict.fromkeys(self._unknown.pop(change.card, ()) if change.card else (change.peer,))
        for peer in changed:
            self._drop(peer)
            self._put(peer)
        self._version = self._table.version
        if len(self._moved) > len(self.by_card):  # to look at all is less
            self._generation = NEVER
        return True

    @property
    def routes(self) -> list[Route]:
        """The pairs."""
        if self._routes is None:
            self._routes = list(chain.from_iterable(passed for passed, _ in self._nodes.values()))
        return self._routes

    @property
    def filtered(self) -> Mapping[str, int]:
        """How many each filter took out."""
        return self._sieve.in_order(self._stopped)

    def rows(self, vectors: CardVectors) -> Rows:
        """The cards' rows in the matcher."""
        if self._generation != vectors.generation:
            self._rows, self._generation = vectors.rows_of(self.by_card), vectors.generation
        elif self._moved:
            others = np.setdiff1d(self._rows, vectors.rows_of(self._moved), assume_unique=True)
            come = vectors.rows_of(self._moved & self.by_card.keys())
            self._rows = np.sort(np.concatenate((others, come)))  # union1d takes 1.6 ms for 10,000
        self._moved.clear()
        return self._rows

    def nearest(self, best: Iterable[Fit], enough: int) -> list[Route]:
        """The pairs of the *best* cards, best first: of the CLOSE first ones all, then until there are *enough*."""
        found: list[Route] = []
        for place, fit in enumerate(best):
            if place >= CLOSE and len(found) >= enough:
                break
            found += self.by_card[fit.card].values()
        return found

    def _put(self, peer: PeerId) -> None:
        node = self._table.nodes.get(peer)
        if node is None or node.offer is None or not node.usable:
            return
        passed, stopped = [], []
        for route in self._table.routes_of(node):
            name = self._sieve.stops(route)
            if name is None:
                passed.append(route)
            else:
                stopped.append(name)
        if len(passed) + len(stopped) < len(node.offer.entries):
            for entry in node.offer.entries:
                if entry.card not in self._table.cards:
                    self._unknown.setdefault(entry.card, set()).add(peer)
        self._nodes[peer] = passed, stopped
        self._stopped.update(stopped)
        self._count += len(passed)
        for route in passed:
            holders = self.by_card.get(route.entry.card)
            if holders is None:
                holders = self.by_card[route.entry.card] = {}
                self._move(route.entry.card)
            holders[peer] = route
        self._routes = None

    def _move(self, card: bytes) -> None:
        if self._generation != NEVER:
            self._moved.add(card)

    def _drop(self, peer: PeerId) -> None:
        passed, stopped = self._nodes.pop(peer, ((), ()))
        self._stopped.subtract(stopped)
        self._count -= len(passed)
        for route in passed:
            holders = self.by_card[route.entry.card]
            del holders[peer]
            if not holders:
                del self.by_card[route.entry.card]
                self._move(route.entry.card)
        self._routes = None


class Reach:
    """All of it, for one table."""

    def __init__(self, table: GradientTable) -> None:
        self._table = table
        self._nodes = table.nodes
        self._contexts: list[int] = []  # that cards have, sorted
        self._version = -1
        self._found: OrderedDict[Hashable, Reachable] = OrderedDict()

    def __repr__(self) -> str:
        return f"<Reach of {len(self._found)} questions>"

    def of(self, intent: Intent, asker: Asker) -> Reachable:
        """What passes the filters that *intent* engages, now."""
        if self._nodes is not self._table.nodes:  # it knows others altogether
            self._nodes = self._table.nodes
            self._found.clear()
        if intent.constraints.max_latency_ms is not None:
            return Reachable(self._table, Sieve(intent, asker))
        asked = self._rounded(intent)
        key = (asked.tool, asked.names_model, asked.models, asked.inputs, asked.features, asked.constraints, asker)
        found = self._found.get(key)
        if found is None or not found.renew():
            found = self._found[key] = Reachable(self._table, Sieve(asked, asker))
            self._found.move_to_end(key)
            self._make_room()
        self._found.move_to_end(key)
        return found

    def _make_room(self) -> None:
        """Let the longest unused questions go, beyond the limits."""
        pairs = sum(map(len, self._found.values()))
        while len(self._found) > KEPT or (pairs > PAIRS_KEPT and len(self._found) > 1):
            _, gone = self._found.popitem(last=False)
            pairs -= len(gone)

    def now(self, routes: Iterable[Route]) -> list[Route]:
        """*routes* with their nodes as they are at this moment: load, distance and cost are not in the table's log."""
        nodes = self._table.nodes
        return [
            route if (node := nodes.get(route.node.peer, route.node)) is route.node else
            Route(node, route.entry, route.card)
            for route in routes
        ]

    def _rounded(self, intent: Intent) -> Intent:
        """*intent* with the shortest context on offer that is enough for it: lengths between two make no difference."""
        needed = max(intent.constraints.min_context_tokens, intent.tokens)
        if not needed:
            return intent
        self._renew_contexts()
        place = bisect_left(self._contexts, needed)
        enough = self._contexts[place] if place < len(self._contexts) else BOUNDLESS
        return replace(intent, tokens=0, constraints=replace(intent.constraints, min_context_tokens=enough))

    def _renew_contexts(self) -> None:
        cards, news = self._table.cards, _since(self._table, self._version)
        self._version = self._table.version
        if news is None or any(change.card and change.card not in cards for change in news):
            self._contexts = sorted({card.context_tokens for card in cards.values()})
            return
        for change in news:
            if change.card and (tokens := cards[change.card].context_tokens) not in self._contexts:
                insort(self._contexts, tokens)


def _since(table: GradientTable, version: int) -> list[Change] | None:
    """What has changed since the table had that *version*; None: its log does not go back so far."""
    missed = table.version - version
    return list(islice(reversed(table.changes), missed)) if missed <= len(table.changes) else None
