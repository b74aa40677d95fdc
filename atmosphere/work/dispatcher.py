"""From an intent to running work: decide, call the best, go on to the next where that is safe, come back when all are
busy; one call, one unit, or many units at once."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import trio

from atmosphere.capabilities.backend import ToolCall
from atmosphere.capabilities.card import short_id
from atmosphere.env import Env
from atmosphere.mesh.table import GradientTable
from atmosphere.routing.decision import Candidate, Decided, Decision
from atmosphere.routing.intent import Intent
from atmosphere.routing.router import Router
from atmosphere.work.attempts import Asked, Attempts, LocalCalls, RemoteCalls, Task
from atmosphere.work.choice import Choice
from atmosphere.work.comeback import Comeback
from atmosphere.work.continuation import continues
from atmosphere.work.effects import may_have_run
from atmosphere.work.execution import Execution
from atmosphere.work.parallel import UnitResults
from atmosphere.work.resuming import Resuming
from atmosphere.work.statistics import DispatcherStatistics, OpenBreaker, Unreliable
from atmosphere.work.units import Outcome, Unit, UnitResult
from protocols.call import CallError, Code
from protocols.call.messages import TRACE_BYTES
from transports.peer_id import PeerId

KEY_BYTES = 16
UNITS = "units"
"""In place of an outcome in the log: each of the units that went by a decision has its own."""
WORST_SHOWN = 10
"""Unreliable pairs in the statistics."""


class Dispatcher:
    """Runs intents. One per node; its nursery holds the local work and the maps."""

    def __init__(
        self,
        router: Router,
        table: GradientTable,
        local: LocalCalls,
        remote: RemoteCalls,
        env: Env,
        nursery: trio.Nursery,
        settled: trio.Event | None = None,
        on_failed: Callable[[PeerId, str], None] | None = None,
    ) -> None:
        """*settled*: nothing is routed before it is set (who was revoked while this node was away is known then).

        *on_failed*: told at once of a peer whose connection failed a call, and why; without one the table is.
        """
        self._router = router
        self._table = table
        self._env = env
        self._nursery = nursery
        self._settled = settled
        self._attempts = Attempts(table, router.outcomes, local, remote, env, nursery, on_failed or self._doubt)
        self._choice = Choice(router, table, self._attempts, env, self._decided)
        self.running = 0
        """Executions and units that have begun and not ended."""
        self._units = dict.fromkeys(Outcome, 0)
        self._comebacks = 0

    def __repr__(self) -> str:
        return f"<Dispatcher {self.running} running>"

    def statistics(self) -> DispatcherStatistics:
        now, attempts = self._env.monotonic(), self._attempts
        return DispatcherStatistics(
            running=self.running,
            under_way=attempts.pairs.under_way(),
            calls=attempts.budget.calls,
            **{str(outcome): count for outcome, count in self._units.items()},
            hedges=attempts.hedges,
            hedges_won=attempts.hedges_won,
            comebacks=self._comebacks,
            continued=attempts.continued,
            pairs=len(attempts.pairs),
            breakers=tuple(
                OpenBreaker(str(peer), short_id(card), str(breaker.state), breaker.wait_s(now, breaker.news))
                for peer, card, breaker in attempts.pairs.open()
            ),
            unreliable=tuple(
                Unreliable(str(peer), short_id(card), round(mean, 3))
                for peer, card, mean in self._router.outcomes.worst(WORST_SHOWN)
            ),
        )

    @asynccontextmanager
    async def run(
        self, intent: Intent, args: bytes, *, deadline_s: float | None = None, trace_id: bytes = b""
    ) -> AsyncIterator[Execution]:
        """Run ``intent.tool`` with *args* (JSON) on the best node, or on the next one where that is safe.

        Entered once the first piece or the result is there. When everybody is busy it comes back as they ask, within
        the deadline (30 s without one). A tool without effects that is slow is asked of a second node as well, on a
        budget of 5 % of the calls.

        Raises CallError: NOT_FOUND when nobody can (the message says what is missing), else what the last candidate
        said. *deadline_s* bounds the time until then and is what the work itself gets. Holds no cancel scope of the
        caller's task, so it may be entered in a request's handler and left where the response has been sent; leaving it
        cancels the work.
        """
        task = self._task(intent, args, deadline_s, trace_id=trace_id)
        self.running += 1
        asked: list[Asked] = []
        try:
            decision = await self._begin(intent, task, asked, self._choice.one, log=True)
            yield self._execution(decision, task, asked)
        finally:
            self.running -= 1
            if asked:
                await asked[-1].aclose()

    async def unit(self, unit: Unit) -> UnitResult:
        """Do *unit* to its end, on the less busy of two capable nodes; see :meth:`map`. Never raises CallError."""
        return await self._unit(0, unit, self._attempts.budget.take)

    def map(
        self, units: Iterable[Unit], in_flight: int | None = None
    ) -> AbstractAsyncContextManager[UnitResults]:
        """Do all *units* at once as far as the mesh allows: ``async with map(units) as results: async for ...``.

        Results come in the order in which units end; every unit gives one. *units* is read as it is needed, so it may
        be endless. *in_flight*: units at once; None: two for each slot that the mesh offers, as it changes.

        Each unit goes to the less busy of two nodes drawn by chance. It goes to another node where that is safe, and
        comes back when everybody is busy or gone, within its deadline (30 s without one). A slow unit is given to a
        second node too, with the same key, if its tool's effects are `none` or `idempotent`: on the budget of 5 %, and
        at the end, when nothing else is left to begin. One of effects `once` is sent again only if it certainly did
        not run; where that is not known its outcome is ``unknown``.

        Leaving the block cancels what still runs, here and on the other nodes.
        """
        return UnitResults(units, self._unit, self._choice.room, self._attempts.budget.take, self._nursery, in_flight)

    async def _unit(self, number: int, unit: Unit, may_repeat: Callable[[], bool]) -> UnitResult:
        task = self._task(unit.intent, unit.args, unit.deadline_s, whole=True, key=unit.key, may_repeat=may_repeat)
        began = self._env.monotonic()
        self.running += 1
        asked: list[Asked] = []
        candidate: Candidate | None = None
        result, outcome, problem = b"", Outcome.OK, None
        try:
            await self._begin(unit.intent, task, asked, self._choice.decide)
            candidate, work = asked[-1].candidate, asked[-1].work
            assert work is not None
            result = await work.result()
        except CallError as error:
            problem = error
            candidate = task.tried[-1].candidate if task.tried else None
            unknown = candidate is not None and may_have_run(task.effects(candidate), error)
            outcome = Outcome.UNKNOWN if unknown else Outcome.FAILED
        finally:
            self.running -= 1
            if asked:
                await asked[-1].aclose()
        self._units[outcome] += 1
        return UnitResult(
            number=number,
            outcome=outcome,
            result=result,
            error=problem,
            node=candidate.node_name if candidate else "",
            peer=candidate.peer if candidate else None,
            attempts=tuple(task.tried),
            began=began,
            seconds=self._env.monotonic() - began,
            hedged=task.hedged,
        )

    def _task(
        self,
        intent: Intent,
        args: bytes,
        deadline_s: float | None,
        *,
        whole: bool = False,
        key: bytes = b"",
        trace_id: bytes = b"",
        may_repeat: Callable[[], bool] | None = None,
    ) -> Task:
        call = ToolCall(
            tool=intent.tool or "",
            args=args,
            trace_id=trace_id or self._env.token_bytes(TRACE_BYTES),
            idempotency_key=key or self._env.token_bytes(KEY_BYTES),
            deadline=None if deadline_s is None else self._env.monotonic() + deadline_s,
        )
        return Task(intent, call, whole, may_repeat or self._attempts.budget.take)

    async def _begin(
        self,
        intent: Intent,
        task: Task,
        asked: list[Asked],
        decide: Callable[[Intent], Awaitable[Decision]],
        *,
        log: bool = False,
    ) -> Decision:
        """Decide and ask until there is an answer, put into *asked*; or until there is no point in it: CallError.

        *log*: the decision is one of its own, to be remembered with what became of it.
        """
        if self._settled is not None and not self._settled.is_set():
            await self._settled.wait()
        comeback: Comeback | None = None
        while True:
            version = self._table.version
            decision = await decide(intent)
            entry = self._log(task.call.trace_id, decision) if log else None
            try:
                if not decision.candidates:
                    raise CallError(Code.NOT_FOUND, decision.missing)
                task.intent = decision.intent
                asked.append(await self._attempts.begin(decision.candidates, task))
                chosen = asked[-1].candidate
                self._router.affinity.note(decision.intent.prefixes, chosen.card_id, chosen.peer)
                if entry is not None:
                    entry.ended(chosen, "ok", len(task.tried))
                return decision
            except CallError as error:
                if entry is not None:
                    entry.ended(None, str(error.code), len(task.tried))
                if comeback is None:
                    comeback = Comeback(task, self._table, self._env)
                if not await comeback.worth(error, version):
                    raise
                self._comebacks += 1

    def _log(self, trace_id: bytes, decision: Decision) -> Decided:
        return self._router.log.add(trace_id.hex(), decision, self._env.now())

    def _decided(self, decision: Decision) -> None:
        """Units go by *decision*, any number of them."""
        self._log(self._env.token_bytes(TRACE_BYTES), decision).outcome = UNITS

    def _execution(self, decision: Decision, task: Task, asked: list[Asked]) -> Execution:
        now = asked[-1]
        assert now.work is not None
        resume = None
        if now.first is not None and continues(now.candidate.card):
            resume = Resuming(decision, task, asked, self._attempts)
        return Execution(
            decision, now.candidate, tuple(task.tried), task.call.trace_id, now.work, now.first, resume
        )

    def _doubt(self, peer: PeerId, why: str) -> None:
        self._table.doubt(peer, why, self._env.monotonic())
