"""Where calls go: a decision, spread by what is under way; for units one decision per distinct intent."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import replace
from statistics import median_low

import trio

from atmosphere.env import Env
from atmosphere.mesh.table import GradientTable
from atmosphere.routing.decision import Candidate, Decision
from atmosphere.routing.intent import Intent
from atmosphere.routing.router import Router
from atmosphere.routing.scoring import availability
from atmosphere.work.attempts import Attempts
from atmosphere.work.spread import draw_equal, spread, strain

DECISIONS_KEPT = 64
"""Distinct intents whose decisions are remembered: units of one map mostly share one."""
FRESH_S = 1.0
"""A decision serves this long; a change of the table ends it at once. Loads are looked at for every unit anyway."""
PER_SLOT = 2
"""Units on their way for each slot: one runs and one is there when it ends."""
MIN_ROOM = 4
MAX_ROOM = 256
"""Units at once: what one node takes of another (see the call protocol's limits)."""


class Choice:
    """Decides for calls and units."""

    def __init__(
        self,
        router: Router,
        table: GradientTable,
        attempts: Attempts,
        env: Env,
        on_decided: Callable[[Decision], None] = lambda decision: None,
    ) -> None:
        """*on_decided*: told of each decision for units once, however many go by it."""
        self._router = router
        self._table = table
        self._attempts = attempts
        self._env = env
        self._on_decided = on_decided
        self._decisions: OrderedDict[Intent, tuple[int, float, Decision]] = OrderedDict()
        self._deciding = trio.Lock()

    async def one(self, intent: Intent) -> Decision:
        """A decision of its own for one call, its candidates in the order in which they are tried."""
        decision = await self._router.decide(intent)
        well = [candidate for candidate in decision.candidates if not self._attempts.wait_s(candidate)]
        order = draw_equal(well, self._score_now, self._capacities(well), self._env.random.random)
        if not order or order[0] is decision.candidates[0]:
            return decision
        chosen = order[0]
        others = (candidate for candidate in decision.candidates if candidate is not chosen)
        return replace(decision, candidates=(chosen, *others))

    def _capacities(self, candidates: Sequence[Candidate]) -> Callable[[Candidate], float]:
        """Calls a second that each can do; who was not tried yet is as fast as the fastest."""
        seconds = self._seconds(candidates, min)
        return lambda one: self._slots(one) / seconds(one)

    def _seconds(
        self, candidates: Sequence[Candidate], usual: Callable[[list[float]], float]
    ) -> Callable[[Candidate], float]:
        """What a call takes at each: as it went here, or as the node states it, or as is *usual* of the others."""
        seconds = {id(one): self._attempts.seconds(one) for one in candidates}
        unknown = usual(list(filter(None, seconds.values())) or [1.0])
        return lambda one: seconds[id(one)] or unknown

    def _score_now(self, candidate: Candidate) -> float:
        """Its score, where our own calls there make it busier than it last said."""
        under_way = self._attempts.pairs.of(candidate).under_way
        node = self._table.nodes.get(candidate.peer)
        if node is None or not under_way:
            return candidate.score
        slots = self._slots(candidate)
        said = availability(node.load_permille, node.queue)
        seen = availability(under_way * 1000 // slots, max(0, under_way - slots))
        return candidate.score * min(1.0, seen / said)

    async def decide(self, intent: Intent) -> Decision:
        """The decision with its candidates in the order in which the next unit tries them."""
        decision = await self._decision(intent)
        return replace(decision, candidates=tuple(self._spread(decision.candidates)))

    async def room(self, intent: Intent) -> int:
        """How many units of this kind the mesh can have under way now."""
        slots = sum(self._slots(candidate) for candidate in (await self._decision(intent)).candidates)
        return min(max(PER_SLOT * slots, MIN_ROOM), MAX_ROOM)

    async def _decision(self, intent: Intent) -> Decision:
        found = self._known(intent)
        if found is not None:
            return found
        async with self._deciding:  # the others wait for the first one's answer
            found = self._known(intent)
            if found is None:
                version, now = self._table.version, self._env.monotonic()
                found = await self._router.decide(intent)
                self._on_decided(found)
                self._decisions[intent] = (version, now, found)
                if len(self._decisions) > DECISIONS_KEPT:
                    self._decisions.popitem(last=False)
            return found

    def _known(self, intent: Intent) -> Decision | None:
        entry = self._decisions.get(intent)
        if entry is None or entry[0] != self._table.version or self._env.monotonic() - entry[1] > FRESH_S:
            return None
        return entry[2]

    def _spread(self, candidates: tuple[Candidate, ...]) -> list[Candidate]:
        now = self._env.monotonic()
        well = [candidate for candidate in candidates if not self._attempts.wait_s(candidate)]
        pairs, seconds = self._attempts.pairs, self._seconds(well, median_low)

        def cost(candidate: Candidate) -> float:
            node = self._table.nodes.get(candidate.peer)
            load, queue = (node.load_permille, node.queue) if node is not None else (0, 0)
            return strain(pairs.of(candidate), self._slots(candidate), load, queue, seconds(candidate), now)

        return spread(well, cost, self._env.random.random) if well else list(candidates)

    def _slots(self, candidate: Candidate) -> int:
        entry = self._table.entry(candidate.peer, candidate.card_id)
        return 1 if entry is None else entry.concurrency
