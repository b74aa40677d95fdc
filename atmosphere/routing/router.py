"""From an intent to a ranking: named model or alias, hard filters, semantic match, node score.

No network is needed to decide: everything is in the gradient table. A decision names every reason.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial

from atmosphere.embedding import Embedder
from atmosphere.env import Env
from atmosphere.mesh.table import GradientTable, Route
from atmosphere.routing.affinity import Affinity
from atmosphere.routing.arbiter import Arbiter, Settled, nobody_can
from atmosphere.routing.decision import Decision, DecisionLog, Refused
from atmosphere.routing.filters import FILTERS, FREE, Asker, Policy, Sieve, of_type
from atmosphere.routing.intent import Intent
from atmosphere.routing.matching import RANKED, CardVectors, Matches, Vector
from atmosphere.routing.models import (
    BUILT_IN,
    EMBED_TOOL,
    Aliases,
    Levels,
    resolve_alias,
    resolve_level,
    same_model,
)
from atmosphere.routing.outcomes import Outcomes
from atmosphere.routing.ranking import Ranking
from atmosphere.routing.reach import Reach
from atmosphere.routing.scoring import Standings
from atmosphere.routing.shortlist import SHORTLIST
from atmosphere.routing.triage import Sizes, Triage, size_of
from transports.peer_id import PeerId

CHAT_TYPE = "llm/chat"
CANDIDATES_KEPT = 32
"""The best ones are explained and tried; the rest would only be noise."""
QUERIES_CACHED = 1024
"""Embedded intents kept: agents ask the same thing again."""
MAX_QUERY_CHARS = 4000
"""The embedding model reads 256 word pieces; more text would only cost time."""
NAMED = 10
"""Models or tools that an error lists, where another one was asked for."""


class Router:
    """Decides for one node. Not bound to a task: any number of decisions may be in flight."""

    def __init__(
        self,
        table: GradientTable,
        embedder: Embedder,
        env: Env,
        aliases: Aliases,
        *,
        levels: Levels = BUILT_IN,
        policy: Policy = FREE,
    ) -> None:
        """*levels*: capability names of this node. *policy*: what its owner allows of all that is sent from here."""
        self.table = table
        self.vectors = CardVectors(embedder.space.name, monotonic=env.monotonic)
        self.outcomes = Outcomes(env.monotonic)
        self.affinity = Affinity(env.monotonic)
        self.log = DecisionLog()
        self.triage = Triage(embedder)
        self.arbiter: Arbiter | None = None
        """The second stage, for intents that this one is not sure of; None: there is none."""
        self.aliases = aliases
        self.levels = levels
        self.policy = policy
        self._embedder = embedder
        self._env = env
        self._reach = Reach(table)
        self._standings = Standings()
        self._queries: OrderedDict[str, Vector] = OrderedDict()

    def __repr__(self) -> str:
        return f"<Router {self.table!r} {self.vectors!r}>"

    async def decide(self, intent: Intent, *, keep: int = CANDIDATES_KEPT) -> Decision:
        """Rank who can do *intent* now, the best *keep*. Embeds its text only when meaning has to decide."""
        started = self._env.monotonic()
        intent = self.resolve(intent)
        reachable = self._reach.of(intent, self._asker())
        filtered = reachable.filtered  # as it is now: others decide while this one waits
        matches: Matches | None = None  # None: meaning has nothing to decide
        considered: list[Route] | None = None  # None: all
        if intent.text and not intent.names_model and len(reachable.by_card) > 1:
            query = await self.embed(intent.text)
            matches = self.vectors.match(query, intent.text[:MAX_QUERY_CHARS], reachable.rows(self.vectors))
            if keep <= RANKED == len(matches.best) < len(reachable.by_card):  # the others are too far behind
                considered = reachable.nearest(matches.best, keep)
        passed = len(reachable)
        considered = self._reach.now(reachable.routes if considered is None else considered)
        affinity = self.affinity.weigh(intent, considered)
        sized = _sizes(intent, considered)
        fitting = sized.factors(self.triage.need(await self.embed(intent.text))) if sized else {}
        settled: Settled | None = None
        ranking = Ranking(considered, intent, matches, self.outcomes, self._standings, affinity, {"size": fitting.get})
        candidates = ranking.best(keep)
        arbiter = self.arbiter
        if matches is not None and arbiter is not None and arbiter.wanted(intent, candidates, matches.right):
            asked = [one for one in ranking.best_of_cards(SHORTLIST) if not matches.found_wrong(one.card_id)]
            stay = self._stays(reachable.routes)
            settled = await arbiter.settle(intent, asked, probability=matches.right, stay=stay, sizes=bool(sized))
            if settled.large is not None:
                ranking.more["size"] = sized.factors(settled.large).get
            if settled.chosen is not None:
                ranking.more["second"] = settled.factor
            if settled.chosen is not None or settled.large is not None:
                candidates = ranking.best(keep, settled.chosen)
        if intent.tool == EMBED_TOOL and candidates:  # vectors of two spaces must never be mixed by a failover
            space = candidates[0].card.space
            candidates = [candidate for candidate in candidates if candidate.card.space == space]
        decision = Decision(
            intent=intent,
            candidates=tuple(candidates),
            filtered=filtered,
            missing="" if candidates else self._missing(intent, filtered),
            elapsed_ms=(self._env.monotonic() - started) * 1000,
            more=passed - len(candidates),
            second="" if settled is None else settled.reason,
            right=None if matches is None else matches.right,
            somebody=None if matches is None else matches.somebody,
            meant=matches.best[0].card if matches is not None and matches.best else b"",
            evidence=None if matches is None else matches.evidence,
        )
        if settled is not None and nobody_can(settled, decision, (route.card.type for route in reachable.routes)):
            return decision.refused()
        return decision

    async def explain(self, intent: Intent, limit: int) -> tuple[Decision, tuple[Refused, ...]]:
        """Decide again, with up to *limit* candidates, and with up to *limit* pairs that were filtered out.

        Nodes that get no work at all are among the latter. For people: it looks at everything.
        """
        decision = await self.decide(intent, keep=limit)
        sieve = self._sieve(decision.intent)
        refused: list[Refused] = []
        for node in self.table.nodes.values():
            for route in self.table.routes_of(node):
                why = node.unusable or sieve.stops(route)
                if why is not None and len(refused) < limit:
                    card = route.card
                    refused.append(Refused(node.peer, node.name, route.entry.card, card.type, card.model, why))
        return decision, tuple(refused)

    def told(self, decision: Decision, card_id: bytes, good: bool) -> None:
        """Somebody says that what *card_id* made of an intent was good, or bad: the probabilities follow it.

        Nothing is learnt where another card than the best matching one did it: the pick was not meaning's.
        """
        if decision.evidence is not None and card_id == decision.meant:
            self.vectors.calibration.learn(decision.evidence, right=good)

    def forget(self, peer: PeerId) -> None:
        """*peer* is put out of the mesh: what was learnt of it goes with it."""
        self.outcomes.forget(peer)
        self.affinity.forget(peer)

    def offered_levels(self) -> dict[str, frozenset[str]]:
        """The capability names that somebody can serve now, with the types that do."""
        routes = list(self.table.routes())
        found = {}
        for name in self.levels:
            intent = self.resolve(Intent(tool=None, model=name))
            if intent.level:
                passed, _ = self._sieve(intent).sift(routes)
                if passed:
                    found[name] = frozenset(route.card.type for route in passed)
        return found

    def resolve(self, intent: Intent) -> Intent:
        """Put the models that an alias stands for; give embeddings without a model the mesh's common space.

        Every node embeds into that space, so ``auto`` means the same vectors today and tomorrow.
        """
        intent = resolve_level(resolve_alias(intent, self.aliases), self.levels, self._serves)
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

    def _serves(self, model: str) -> bool:
        """Whether some node offers a model of that very name; then the name means this model."""
        return any(same_model(model, card.model) for card in self.table.cards.values())

    def _stays(self, routes: Iterable[Route]) -> bool:
        """Whether the owner keeps work of one of these types on this node: then the words stay here too."""
        return any(of_type(kind, route.card.type) for kind in self.policy.stay for route in routes)

    def _sieve(self, intent: Intent) -> Sieve:
        return Sieve(intent, self._asker())

    def _asker(self) -> Asker:
        me = self.table.nodes.get(self.table.me)
        return Asker(self.policy, me.membership if me is not None else None)

    def _missing(self, intent: Intent, filtered: Mapping[str, int]) -> str:
        """Why nobody can: the last filter that pairs reached and did not pass is what was nearest to enough."""
        hints = {item.name: item.hint for item in FILTERS}
        last = next((item.name for item in reversed(FILTERS) if item.name in filtered), "")
        served_last = self._last_served(intent)
        if not last and not served_last:
            return "no node of the mesh offers anything that can be used now"
        if last == "tool" and not served_last:
            return self._no_tool(intent)
        if last in ("", "tool", "type", "model") and intent.names_model:
            served = sorted({r.card.model for r in self.table.routes() if r.card.model})
            listed = _listed(served) or "none"
            asked = repr(intent.model)
            if intent.equivalents:
                asked += f" (alias of {', '.join(intent.equivalents)})"
            return f"the model {asked} is not served by any node now{served_last}; served are: {listed}"
        return hints[last]

    def _no_tool(self, intent: Intent) -> str:
        wanted, cards = intent.constraints.type, [route.card for route in self.table.routes()]
        of_it = [card for card in cards if wanted and of_type(wanted, card.type)]
        if tools := sorted({tool.name for card in of_it for tool in card.tools}):
            return (f"no node of the mesh offers the tool {intent.tool!r} of {wanted} now; "
                    f"the tools of it are: {_listed(tools)}")
        offered = ", ".join(sorted({card.type for card in cards}))
        return (
            f"no node of the mesh offers {intent.tool!r} now; offered are: {offered}. "
            "A model server on any node (Ollama, llama.cpp ...) or `atmosphere-p2p backend add URL` there adds some"
        )

    def _last_served(self, intent: Intent) -> str:
        """Who served the first of the named models last, as far as this node has seen it."""
        for model in intent.models:
            last = self.table.last_server(partial(same_model, model))
            if last is not None:
                return f" (last served by {last.name}, which {last.reason})"
        return ""


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:NAMED]) + (" ..." if len(names) > NAMED else "")


def _sizes(intent: Intent, routes: Iterable[Route]) -> Sizes:
    """The sizes of the models among which the request's need may choose; none where something else was asked for."""
    if not intent.text or intent.names_model or intent.level or intent.prefer:
        return Sizes({})
    cards = {route.entry.card: route.card for route in routes if route.card.type == CHAT_TYPE}
    return Sizes({card_id: size_of(card) for card_id, card in cards.items()} if len(cards) > 1 else {})
