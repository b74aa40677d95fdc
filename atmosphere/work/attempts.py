"""One call over the candidates of a decision: the next one where that is safe, a second one where the first is slow."""

from __future__ import annotations

import logging
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Protocol

import trio

from atmosphere.capabilities.backend import Emit, ToolCall
from atmosphere.capabilities.card import Effects
from atmosphere.env import Env
from atmosphere.mesh.table import GradientTable
from atmosphere.routing.decision import Candidate
from atmosphere.routing.intent import Intent
from atmosphere.routing.models import args_for
from atmosphere.routing.outcomes import Outcomes
from atmosphere.work.breaker import Circuit
from atmosphere.work.effects import Health, declared, health, may_try_next, says_node_failed
from atmosphere.work.execution import Work
from atmosphere.work.hedging import LEAST_NEW_S, Budget, Latencies
from atmosphere.work.local import LocalWork
from atmosphere.work.spread import Pair, Pairs
from atmosphere.work.units import Attempt
from protocols.call import CallError, Code
from transports.peer_id import PeerId

logger = logging.getLogger(__name__)

MAX_ATTEMPTS = 5
"""Candidates tried in one round: beyond that the mesh is in trouble and the caller should know."""
ATTEMPTS_KEPT = 32
"""Of one call, however often it came back: the latest."""
TOOLS_KEPT = 1000
"""Tools whose latencies are remembered."""
LOOK_S = 1.0
"""How often a call that nobody knows the usual length of looks whether somebody has told it by now."""


class RemoteCalls(Protocol):
    """Runs tools on other nodes (mesh's call client behind an interface that this room owns)."""

    async def start(self, candidate: Candidate, call: ToolCall) -> Work:
        """Begin *call* on ``candidate.peer``. Raises CallError."""


LocalCalls = Callable[[bytes, ToolCall, Emit], Awaitable[bytes]]
"""Runs a tool of one of this node's own cards: (card id, call, emit) -> result. Raises CallError."""


@dataclass(slots=True, eq=False)
class Task:
    """A call that somebody wants answered, while candidates are tried for it."""

    intent: Intent
    """As the router resolved it last."""
    call: ToolCall
    whole: bool
    """The answer is the result, and nobody sees pieces before it: until then a failure is no one's to see."""
    may_repeat: Callable[[], bool]
    """Asked when a candidate is slow and another one could be asked as well; True costs the budget."""
    tried: list[Attempt] = field(default_factory=list)
    hedged: bool = False

    def effects(self, candidate: Candidate) -> Effects:
        """What the tool does where *candidate* runs it."""
        return declared(candidate.card, self.call.tool)

    def repeatable(self, candidate: Candidate) -> bool:
        """Whether *candidate* may be asked while another one is at it."""
        effects = self.effects(candidate)
        return effects is Effects.NONE or (self.whole and effects is Effects.IDEMPOTENT)

    def failed(self, candidate: Candidate, error: CallError) -> None:
        self.tried.append(Attempt(candidate, error))
        del self.tried[:-ATTEMPTS_KEPT]


class Asked:
    """The call at one candidate. To be closed, then it is stopped if it still runs."""

    __slots__ = ("_closed", "began", "candidate", "first", "pair", "work")

    def __init__(self, candidate: Candidate, pair: Pair, now: float) -> None:
        self.candidate, self.pair, self.began = candidate, pair, now
        self.work: Work | None = None
        self.first: bytes | None = None
        """The first piece, once there is an answer; None: there is none, the result is there."""
        self._closed = False
        pair.under_way += 1
        pair.breaker.begin(now)

    async def aclose(self) -> None:
        """Stop the work. Never waits, so the caller may be being cancelled."""
        if not self._closed:
            self._closed = True
            self.pair.under_way -= 1
            if self.work is not None:
                await self.work.aclose()


class Attempts:
    """Asks candidates and remembers how they did: breakers, latencies, outcomes."""

    def __init__(
        self,
        table: GradientTable,
        outcomes: Outcomes,
        local: LocalCalls,
        remote: RemoteCalls,
        env: Env,
        nursery: trio.Nursery,
        on_failed: Callable[[PeerId, str], None],
    ) -> None:
        """*on_failed*: told of a peer whose connection failed a call, and why."""
        self.pairs = Pairs()
        self.budget = Budget()
        self.hedges = 0
        self.hedges_won = 0
        self.continued = 0
        self._latencies: OrderedDict[tuple[bytes, str], Latencies] = OrderedDict()
        self._table = table
        self._outcomes = outcomes
        self._local = local
        self._remote = remote
        self._env = env
        self._nursery = nursery
        self._on_failed = on_failed

    def wait_s(self, candidate: Candidate) -> float:
        """Seconds until *candidate* may be asked, by its circuit breaker; 0: now."""
        breaker = self.pairs.of(candidate).breaker
        if breaker.state is Circuit.CLOSED:
            return 0.0
        return breaker.wait_s(self._env.monotonic(), self._news(candidate.peer))

    async def begin(self, candidates: Iterable[Candidate], task: Task) -> Asked:
        """Ask one after the other until one answers; to be closed by the caller.

        Raises CallError: what the last one said, or the earliest hint of those that are only busy. Cancelled, it
        leaves nothing running, here or there.
        """
        self.budget.earn()
        errors: list[CallError] = []
        barred: CallError | None = None
        others = deque(candidates)
        while others and len(errors) < MAX_ATTEMPTS:
            candidate = others.popleft()
            wait = self.wait_s(candidate)
            if wait > 0:
                barred = _sooner(barred, _left_alone(candidate, wait))
                continue
            try:
                return await self._ask(candidate, others, task)
            except CallError as error:
                errors.append(error)
                if not may_try_next(task.effects(candidate), error):
                    raise
                logger.info("%s on %s: %s; trying the next", task.call.tool, candidate.node_name, error)
        busy = [error for error in errors if error.code in (Code.OVERLOADED, Code.RATE_LIMITED)]
        if busy:
            raise min(busy, key=lambda error: error.retry_after_ms)
        if errors:
            raise errors[-1]
        raise barred or CallError(Code.NOT_FOUND, "there is nobody to ask")

    async def _ask(self, candidate: Candidate, others: deque[Candidate], task: Task) -> Asked:
        asked = self._asked(candidate)
        try:
            second = await self._answer_or_second(asked, others, task)
            return asked if second is None else await self._race(asked, second, task)
        except CallError as error:
            if not task.tried or task.tried[-1].error is not error:  # else the race has taken it in
                self.failed(asked, error, task)
            await asked.aclose()
            raise
        except BaseException:
            asked.pair.breaker.void(self._env.monotonic())
            await asked.aclose()
            raise

    async def _answer_or_second(self, asked: Asked, others: deque[Candidate], task: Task) -> Candidate | None:
        """Wait for the answer: None; or until somebody else should be asked as well: who."""
        second: Candidate | None = None
        asking, watching = trio.CancelScope(), trio.CancelScope()

        async def watch() -> None:
            nonlocal second
            with watching:
                second = await self._second(asked, others, task)
                asking.cancel()

        if task.call.deadline is not None:
            asking.deadline = trio.current_time() + task.call.deadline - self._env.monotonic()
        if others and task.repeatable(asked.candidate):
            self._nursery.start_soon(watch)
        try:
            with asking:
                await self._answer(asked, task)
                return None
        finally:
            watching.cancel()
        if second is None:
            text = "no answer within the deadline; allow more time with deadline_ms"
            raise CallError(Code.DEADLINE, text, retryable=asked.work is None)  # it was not even sent
        return second

    async def _second(self, asked: Asked, others: deque[Candidate], task: Task) -> Candidate:
        """Who should be asked as well, taken out of *others*; comes back once *asked* is slow and the budget allows it.

        *asked* is left alone until then: to begin anew with a node that has to be dialled first takes longer still.
        """
        since = asked.began
        while True:
            slow = self._slow_after(asked.candidate, others, task.call.tool)
            await trio.sleep(LOOK_S if slow is None else max(0.0, since + slow - self._env.monotonic()))
            if slow is None:
                continue
            second = self._best(other for other in others if task.repeatable(other) and not self.wait_s(other))
            if second is not None and task.may_repeat():
                others.remove(second)
                return second
            since = self._env.monotonic()

    def _best(self, candidates: Iterable[Candidate]) -> Candidate | None:
        """The first one; of its card, the first whose pace is known: a second try is no time to find out about one."""
        able = list(candidates)
        known = (one for one in able if one.card_id == able[0].card_id and self.seconds(one))
        return next(known, able[0]) if able else None

    def seconds(self, candidate: Candidate) -> float:
        """What a call takes there, as it went here or as the node states it; 0: not known."""
        return self.pairs.of(candidate).seconds or self._table.pace_s(candidate.peer, candidate.card_id)

    def _slow_after(self, candidate: Candidate, others: Iterable[Candidate], tool: str) -> float | None:
        """Seconds after which *candidate* is slow, as it went here or, until that says enough, as its like state it."""
        latencies = self.latencies(candidate, tool)
        known = latencies.slow_after()
        if known is not None:
            return known
        alike = [candidate, *(other for other in others if other.card_id == candidate.card_id)]
        return latencies.slow_after_by(filter(None, (self._table.pace_s(one.peer, one.card_id) for one in alike)))

    async def _answer(self, asked: Asked, task: Task) -> None:
        """Start what is not started; wait for the first piece or the result. May be cancelled and called again."""
        if asked.work is None:
            asked.work = await self._start(asked.candidate, task)
        work = asked.work
        piece = await work.next_piece()
        while task.whole and piece is not None:
            piece = await work.next_piece()
        if piece is None:
            await work.result()
        asked.first = piece
        seconds = self._env.monotonic() - asked.began
        asked.pair.took(seconds)
        asked.pair.breaker.good()
        self.latencies(asked.candidate, task.call.tool).add(seconds)
        self._outcomes.record(asked.candidate.peer, asked.candidate.card_id, good=True, seconds=seconds)

    async def _race(self, first: Asked, candidate: Candidate, task: Task) -> Asked:
        """*first* is slow: ask *candidate* too. The first answer counts, the other one is stopped."""
        task.hedged = True
        self.hedges += 1
        second = self._asked(candidate)
        winner: Asked | None = None
        error: CallError | None = None
        failed = 0

        async def follow(asked: Asked) -> None:
            nonlocal winner, error, failed
            try:
                await self._answer(asked, task)
            except CallError as problem:
                failed += 1
                if winner is None:
                    error = problem
                self.failed(asked, problem, task)
                if not may_try_next(task.effects(asked.candidate), problem):
                    nursery.cancel_scope.cancel()
            else:
                winner = winner or asked
                nursery.cancel_scope.cancel()

        try:
            async with trio.open_nursery() as nursery:
                if task.call.deadline is not None:
                    nursery.cancel_scope.deadline = trio.current_time() + task.call.deadline - self._env.monotonic()
                nursery.start_soon(follow, first)
                nursery.start_soon(follow, second)
        finally:
            if winner is not second:
                await self._lost(second)
        if winner is None:
            raise error or CallError(Code.DEADLINE, "no answer within the deadline, from two nodes; allow more time")
        if winner is second:
            self.hedges_won += 1
            await self._lost(first)
        return winner

    async def _lost(self, asked: Asked) -> None:
        """*asked* was not first, or was called off: what is known of it is that it takes longer than this."""
        asked.pair.breaker.void(self._env.monotonic())
        self._silent(asked)
        await asked.aclose()

    def _silent(self, asked: Asked) -> None:
        """Nobody waits for *asked* any longer: if that is late for it, it takes at least so long."""
        candidate, seconds = asked.candidate, self._env.monotonic() - asked.began
        if seconds > (self.seconds(candidate) or LEAST_NEW_S):
            asked.pair.took(seconds)
            self._outcomes.silent(candidate.peer, candidate.card_id, seconds)

    def latencies(self, candidate: Candidate, tool: str) -> Latencies:
        key = (candidate.card_id, tool)
        found = self._latencies.get(key)
        if found is None:
            found = self._latencies[key] = Latencies()
            if len(self._latencies) > TOOLS_KEPT:
                self._latencies.popitem(last=False)
        return found

    def _asked(self, candidate: Candidate) -> Asked:
        return Asked(candidate, self.pairs.of(candidate), self._env.monotonic())

    async def _start(self, candidate: Candidate, task: Task) -> Work:
        call = task.call
        args = args_for(candidate, task.intent, call.args)
        if args is not call.args:
            call = replace(call, args=args)
        if candidate.peer == self._table.me:
            return LocalWork(lambda emit: self._local(candidate.card_id, call, emit), self._nursery)
        return await self._remote.start(candidate, call)

    def failed(self, asked: Asked, error: CallError, task: Task) -> None:
        """Remember it for scores and the breaker; tell of a node that seems to be in trouble itself."""
        candidate, pair, now = asked.candidate, asked.pair, self._env.monotonic()
        task.failed(candidate, error)
        self._outcomes.record(candidate.peer, candidate.card_id, good=error.code in _NOT_THE_NODES_FAULT)
        if says_node_failed(error) and candidate.peer != self._table.me:
            self._on_failed(candidate.peer, f"a call failed: {error.message}")
        verdict = health(error)
        if verdict is Health.WELL:
            pair.breaker.good()
            pair.breaker.void(now)
        elif verdict is Health.UNSURE:
            pair.breaker.void(now)
        else:
            pair.breaker.bad(now, self._news(candidate.peer), certain=verdict is Health.GONE)
        if error.code is Code.DEADLINE:
            self._silent(asked)
        if error.code in (Code.OVERLOADED, Code.RATE_LIMITED):
            pair.busy_until = now + error.retry_after_ms / 1000

    def _news(self, peer: PeerId) -> object:
        """What changes when *peer* starts again or offers something else."""
        node = self._table.nodes.get(peer)
        return None if node is None or node.offer is None else node.offer.version


_NOT_THE_NODES_FAULT = frozenset({Code.INVALID, Code.FORBIDDEN, Code.TOO_LARGE, Code.DEADLINE, Code.NOT_FOUND})


def _left_alone(candidate: Candidate, wait: float) -> CallError:
    return CallError(
        Code.UNAVAILABLE,
        f"{candidate.card.type} on {candidate.node_name} failed lately and is left alone for {wait:.1f} s more; "
        "come back then",
        retryable=True,
        retry_after_ms=max(1, round(wait * 1000)),
    )


def _sooner(one: CallError | None, other: CallError) -> CallError:
    return other if one is None or other.retry_after_ms < one.retry_after_ms else one
