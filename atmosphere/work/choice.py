"""Where units go: one decision per distinct intent, spread by what is under way."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace

import trio

from atmosphere.env import Env
from atmosphere.mesh.table import GradientTable
from atmosphere.routing.decision import Candidate, Decision
from atmosphere.routing.intent import Intent
from atmosphere.routing.router import Router
from atmosphere.work.attempts import Attempts
from atmosphere.work.spread import spread, strain

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
    """Decides for units."""

    def __init__(self, router: Router, table: GradientTable, attempts: Attempts, env: Env) -> None:
        self._router = router
        self._table = table
        self._attempts = attempts
        self._env = env
        self._decisions: OrderedDict[Intent, tuple[int, float, Decision]] = OrderedDict()
        self._deciding = trio.Lock()

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
        pairs = self._attempts.pairs
        usual = min((seconds for candidate in well if (seconds := pairs.of(candidate).seconds)), default=0.0)

        def cost(candidate: Candidate) -> float:
            node = self._table.nodes.get(candidate.peer)
            load, queue = (node.load_permille, node.queue) if node is not None else (0, 0)
            return strain(pairs.of(candidate), self._slots(candidate), load, queue, usual, now)

        return spread(well, cost, self._env.random.random) if well else list(candidates)

    def _slots(self, candidate: Candidate) -> int:
        node = self._table.nodes.get(candidate.peer)
        if node is None or node.offer is None:
            return 1
        return next((entry.concurrency for entry in node.offer.entries if entry.card == candidate.card_id), 1)
