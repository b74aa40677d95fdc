"""Affinity: who has computed the beginning of a request before, and so need not read it again. Pure.

Model servers keep what they computed of a prompt. The same system prompt and tools, or the next turn of the same
conversation, on the same node begins where that ends; anywhere else it begins at the first word.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence

from atmosphere.mesh.table import Route
from atmosphere.routing.intent import Intent
from atmosphere.routing.scoring import elsewhere, overloaded
from transports.peer_id import PeerId

CAPACITY = 4096
"""Beginnings remembered; agents use some tens of system prompts, and a conversation has one each."""
PEERS_KEPT = 4
"""Nodes that hold the same beginning: more than one when the first was overloaded."""
LIFETIME_S = 600.0
"""Servers drop what nobody used for some minutes (Ollama unloads the whole model after five)."""

Key = tuple[bytes, bytes]
"""(beginning, card): what one model computed is of no use to another."""


class Affinity:
    """A bounded memory: (beginning, card) -> nodes that had it lately."""

    def __init__(self, monotonic: Callable[[], float] = lambda: 0.0) -> None:
        """*monotonic*: Env's clock, seconds."""
        self._monotonic = monotonic
        self._holders: OrderedDict[Key, dict[PeerId, float]] = OrderedDict()

    def __repr__(self) -> str:
        return f"<Affinity of {len(self._holders)} beginnings>"

    def __len__(self) -> int:
        return len(self._holders)

    def note(self, prefixes: Sequence[bytes], card: bytes, peer: PeerId) -> None:
        """*peer* has answered a request that begins with *prefixes*, with *card*."""
        now = self._monotonic()
        for prefix in prefixes:
            holders = self._holders.setdefault((prefix, card), {})
            self._holders.move_to_end((prefix, card))
            holders.pop(peer, None)
            holders[peer] = now
            if len(holders) > PEERS_KEPT:
                del holders[next(iter(holders))]
        while len(self._holders) > CAPACITY:
            self._holders.popitem(last=False)

    def holders(self, prefixes: Sequence[bytes], card: bytes) -> frozenset[PeerId]:
        """Who holds the most specific of *prefixes* that anybody holds."""
        oldest = self._monotonic() - LIFETIME_S
        for prefix in prefixes:
            found = self._holders.get((prefix, card))
            if found:
                fresh = frozenset(peer for peer, at in found.items() if at >= oldest)
                if fresh:
                    return fresh
        return frozenset()

    def forget(self, peer: PeerId) -> None:
        """*peer* is not a member any more."""
        for key in [key for key, holders in self._holders.items() if holders.pop(peer, None) is not None]:
            if not self._holders[key]:
                del self._holders[key]

    def weigh(self, intent: Intent, routes: Sequence[Route]) -> Callable[[Route], float]:
        """The factor ``affinity`` of each of *routes*: 1 for holders, less for the others while a holder has room."""
        if not intent.prefixes:
            return lambda route: 1.0
        holders: dict[bytes, frozenset[PeerId]] = {}
        held: set[bytes] = set()
        for route in routes:
            card = route.entry.card
            if card not in holders:
                holders[card] = self.holders(intent.prefixes, card)
            if route.node.peer in holders[card] and not overloaded(route.node):
                held.add(card)
        if not held:
            return lambda route: 1.0
        other = elsewhere(intent.tokens)

        def factor(route: Route) -> float:
            holds = route.entry.card in held and route.node.peer in holders[route.entry.card]
            return 1.0 if holds and not overloaded(route.node) else other

        return factor
