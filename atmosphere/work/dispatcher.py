"""From an intent to running work: decide, call the best, go on to the next where that is safe."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Protocol

import trio

from atmosphere.capabilities.backend import Emit, ToolCall
from atmosphere.capabilities.card import Effects
from atmosphere.env import Env
from atmosphere.mesh.table import GradientTable
from atmosphere.routing.decision import Candidate, Decision
from atmosphere.routing.intent import Intent
from atmosphere.routing.router import Router
from atmosphere.work.effects import may_try_next, says_node_failed
from atmosphere.work.execution import Attempt, Execution, Work
from atmosphere.work.local import LocalWork
from protocols.call import CallError, Code

logger = logging.getLogger(__name__)

MAX_ATTEMPTS = 5
"""Candidates tried for one intent: beyond that the mesh is in trouble and the caller should know."""
TRACE_BYTES = 16
KEY_BYTES = 16
STALE_WAIT_S = 1.5
"""When every candidate said that it does not offer the card any more: how long to wait for the news that says what it
offers instead. A change reaches the mesh within a second."""
CLOSE_TIMEOUT = 2.0
"""Seconds that telling a remote node to stop may take when the caller has gone."""


class RemoteCalls(Protocol):
    """Runs tools on other nodes (mesh's call client behind an interface that this room owns)."""

    async def start(self, candidate: Candidate, call: ToolCall) -> Work:
        """Begin *call* on ``candidate.peer``. Raises CallError."""


LocalCalls = Callable[[bytes, ToolCall, Emit], Awaitable[bytes]]
"""Runs a tool of one of this node's own cards: (card id, call, emit) -> result. Raises CallError."""


class Dispatcher:
    """Runs intents. One per node; its nursery holds the local work."""

    def __init__(
        self,
        router: Router,
        table: GradientTable,
        local: LocalCalls,
        remote: RemoteCalls,
        env: Env,
        nursery: trio.Nursery,
        settled: trio.Event | None = None,
    ) -> None:
        """*settled*: nothing is routed before it is set (who was revoked while this node was away is known then)."""
        self._router = router
        self._table = table
        self._local = local
        self._remote = remote
        self._env = env
        self._nursery = nursery
        self._settled = settled
        self.running = 0
        """Executions that have begun and not ended."""

    def __repr__(self) -> str:
        return f"<Dispatcher {self.running} running>"

    @asynccontextmanager
    async def run(
        self, intent: Intent, args: bytes, *, deadline_s: float | None = None, trace_id: bytes = b""
    ) -> AsyncIterator[Execution]:
        """Run ``intent.tool`` with *args* (JSON) on the best node, or on the next one where that is safe.

        Entered once the first piece or the result is there. Raises CallError: NOT_FOUND when nobody can (the message
        says what is missing), else what the last candidate said. *deadline_s* bounds the time until then and is what
        the work itself gets. Holds no cancel scope of the caller's task, so it may be entered in a request's handler
        and left where the response has been sent; leaving it cancels the work.
        """
        trace_id = trace_id or self._env.token_bytes(TRACE_BYTES)
        deadline = None if deadline_s is None else self._env.monotonic() + deadline_s
        self.running += 1
        try:
            execution, work = await self._decide_and_begin(intent, args, deadline, trace_id)
            try:
                yield execution
            finally:
                await _close(work)
        finally:
            self.running -= 1

    async def _decide_and_begin(
        self, intent: Intent, args: bytes, deadline: float | None, trace_id: bytes
    ) -> tuple[Execution, Work]:
        if self._settled is not None and not self._settled.is_set():
            await self._settled.wait()
        news = trio.Event()
        self._table.listeners.add(news.set)
        try:
            return await self._begin(await self._router.decide(intent), args, deadline, trace_id)
        except CallError as error:
            if error.code is not Code.NOT_FOUND or not error.retryable:
                raise
            with trio.move_on_after(STALE_WAIT_S):
                await news.wait()
        finally:
            self._table.listeners.discard(news.set)
        return await self._begin(await self._router.decide(intent), args, deadline, trace_id)

    async def _begin(
        self, decision: Decision, args: bytes, deadline: float | None, trace_id: bytes
    ) -> tuple[Execution, Work]:
        if not decision.candidates:
            raise CallError(Code.NOT_FOUND, decision.missing)
        tool = decision.intent.tool or ""
        call = ToolCall(
            tool=tool,
            args=args,
            trace_id=trace_id,
            idempotency_key=self._env.token_bytes(KEY_BYTES),
            deadline=deadline,
        )
        attempts: list[Attempt] = []
        for candidate in decision.candidates[:MAX_ATTEMPTS]:
            work: Work | None = None
            try:
                work = await self._start(candidate, call)
                first = await self._first(work, deadline)
            except CallError as error:
                if work is not None:
                    await work.aclose()
                self._failed(candidate, error)
                attempts.append(Attempt(candidate, error))
                if not may_try_next(effects(candidate, tool), error):
                    raise
                logger.info("%s on %s: %s; trying the next", tool, candidate.node_name, error)
            except BaseException:
                if work is not None:
                    await _close(work)
                raise
            else:
                self._router.outcomes.record(candidate.peer, candidate.card_id, good=True)
                return Execution(decision, candidate, tuple(attempts), trace_id, work, first), work
        raise attempts[-1].error

    async def _start(self, candidate: Candidate, call: ToolCall) -> Work:
        if candidate.peer == self._table.me:
            return LocalWork(lambda emit: self._local(candidate.card_id, call, emit), self._nursery)
        return await self._remote.start(candidate, call)

    async def _first(self, work: Work, deadline: float | None) -> bytes | None:
        """Wait for the first piece or the result; the work's own error is raised."""
        limit = float("inf") if deadline is None else max(0.0, deadline - self._env.monotonic())
        with trio.move_on_after(limit):
            first = await work.next_piece()
            if first is None:
                await work.result()
            return first
        raise CallError(Code.DEADLINE, "no answer within the deadline; allow more time with deadline_ms")

    def _failed(self, candidate: Candidate, error: CallError) -> None:
        self._router.outcomes.record(candidate.peer, candidate.card_id, good=error.code in _NOT_THE_NODES_FAULT)
        if says_node_failed(error) and candidate.peer != self._table.me:
            self._table.doubt(candidate.peer, f"a call failed: {error.message}", self._env.monotonic())


async def _close(work: Work) -> None:
    """Stop *work* even where the caller is being cancelled, within a bound."""
    with trio.move_on_after(CLOSE_TIMEOUT) as scope:
        scope.shield = True
        await work.aclose()


_NOT_THE_NODES_FAULT = frozenset({Code.INVALID, Code.FORBIDDEN, Code.TOO_LARGE, Code.DEADLINE, Code.NOT_FOUND})


def effects(candidate: Candidate, tool: str) -> Effects:
    """The declared effects of *tool*; of a tool that the card does not describe: the strictest."""
    return next((item.effects for item in candidate.card.tools if item.name == tool), Effects.ONCE)
