"""From an intent to a ranking: named model or alias, hard filters, semantic match, node score.

No network is needed to decide: everything is in the gradient table. A decision names every reason.
"""

from __future__ import annotations

import heapq
from collections import Counter, OrderedDict
from collections.abc import Mapping
from dataclasses import replace

from atmosphere.embedding import Embedder
from atmosphere.env import Env
from atmosphere.mesh.table import GradientTable, Route
from atmosphere.routing.decision import Candidate, Decision
from atmosphere.routing.filters import FILTERS
from atmosphere.routing.intent import Intent
from atmosphere.routing.matching import NEUTRAL, CardVectors, Vector
from atmosphere.routing.models import EMBED_TOOL, Aliases, preference, resolve_alias
from atmosphere.routing.outcomes import Outcomes
from atmosphere.routing.scoring import factors, score

CANDIDATES_KEPT = 32
"""The best ones are explained and tried; the rest would only be noise."""
QUERIES_CACHED = 1024
"""Embedded intents kept: agents ask the same thing again."""
MAX_QUERY_CHARS = 4000
"""The embedding model reads 256 word pieces; more text would only cost time."""


class Router:
    """Decides for one node. Not bound to a task: any number of decisions may be in flight."""

    def __init__(self, table: GradientTable, embedder: Embedder, env: Env, aliases: Aliases) -> None:
        self.table = table
        self.vectors = CardVectors(embedder.space.name)
        self.outcomes = Outcomes(env.monotonic)
        self.aliases = aliases
        self._embedder = embedder
        self._env = env
        self._queries: OrderedDict[str, Vector] = OrderedDict()

    def __repr__(self) -> str:
        return f"<Router {self.table!r} {self.vectors!r}>"

    async def decide(self, intent: Intent) -> Decision:
        """Rank who can do *intent* now. Embeds the intent's text only when meaning has to decide."""
        started = self._env.monotonic()
        intent = self.resolve(intent)
        passed, filtered = self._filter(intent)
        matches: Mapping[bytes, float] | None = None  # None: meaning has nothing to decide
        if intent.text and not intent.names_model and len({route.entry.card for route in passed}) > 1:
            matches = self.vectors.match(await self.embed(intent.text))
        candidates = heapq.nlargest(
            CANDIDATES_KEPT,
            (self._candidate(route, matches) for route in passed),
            key=lambda candidate: _rank(candidate, intent),
        )
        if intent.tool == EMBED_TOOL and candidates:  # vectors of two spaces must never be mixed by a failover
            space = candidates[0].card.space
            candidates = [candidate for candidate in candidates if candidate.card.space == space]
        return Decision(
            intent=intent,
            candidates=tuple(candidates),
            filtered=filtered,
            missing="" if candidates else self._missing(intent, filtered),
            elapsed_ms=(self._env.monotonic() - started) * 1000,
        )

    def resolve(self, intent: Intent) -> Intent:
        """Put the models that an alias stands for; give embeddings without a model the mesh's common space.

        Every node embeds into that space, so ``auto`` means the same vectors today and tomorrow.
        """
        intent = resolve_alias(intent, self.aliases)
        if intent.tool == EMBED_TOOL and not intent.names_model and intent.constraints.space is None:
            intent = replace(intent, constraints=replace(intent.constraints, space=self._embedder.space.name))
        return intent

    async def embed(self, text: str) -> Vector:
        """The unit vector of *text*, shape (d,), cached."""
        text = text[:MAX_QUERY_CHARS]
        found = self._queries.get(text)
        if found is None:
            found = (await self._env.run_blocking(lambda: self._embedder.embed([text])))[0]
            self._queries[text] = found
            if len(self._queries) > QUERIES_CACHED:
                self._queries.popitem(last=False)
        else:
            self._queries.move_to_end(text)
        return found

    def _filter(self, intent: Intent) -> tuple[list[Route], dict[str, int]]:
        passed: list[Route] = []
        filtered: Counter[str] = Counter()
        for route in self.table.routes():
            for name, passes, _ in FILTERS:
                if not passes(intent, route):
                    filtered[name] += 1
                    break
            else:
                passed.append(route)
        return passed, {item.name: filtered[item.name] for item in FILTERS if filtered[item.name]}

    def _candidate(self, route: Route, matches: Mapping[bytes, float] | None) -> Candidate:
        node, card_id = route.node, route.entry.card
        match = 1.0 if matches is None else matches.get(card_id, NEUTRAL)
        values = factors(route, match, self.outcomes.reliability(node.peer, card_id))
        return Candidate(
            peer=node.peer,
            node_name=node.name,
            card_id=card_id,
            card=route.card,
            score=score(values),
            factors=values,
            path=str(node.path),
            rtt_ms=node.rtt_ms,
        )

    def _missing(self, intent: Intent, filtered: Mapping[str, int]) -> str:
        """Why nobody can: the last filter that pairs reached and did not pass is what was nearest to enough."""
        if not filtered:
            return "no node of the mesh offers anything that can be used now"
        hints = {item.name: item.hint for item in FILTERS}
        last = next(item.name for item in reversed(FILTERS) if item.name in filtered)
        if last == "tool":
            offered = ", ".join(sorted({route.card.type for route in self.table.routes()}))
            return (
                f"no node of the mesh offers {intent.tool!r} now; offered are: {offered}. "
                "A model server on any node (Ollama, llama.cpp ...) or `atmosphere-p2p backend add URL` there adds some"
            )
        if last == "model":
            served = sorted({r.card.model for r in self.table.routes() if r.card.model})
            listed = ", ".join(served[:10]) or "none"
            asked = repr(intent.model)
            if intent.equivalents:
                asked += f" (alias of {', '.join(intent.equivalents)})"
            return f"the model {asked} is not served by any node now; served are: {listed}"
        return hints[last]


def _rank(candidate: Candidate, intent: Intent) -> tuple[float, int, bytes]:
    """By score; ties by the owner's preference, then by peer id, so that the same table gives the same order."""
    return (candidate.score, -preference(intent.equivalents, candidate.card.model), candidate.peer.raw)
