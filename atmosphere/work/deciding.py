"""Questions of the node itself to the mesh's decision models, through the dispatcher as anybody's work."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Protocol

import trio

from atmosphere.env import Env
from atmosphere.routing.intent import Intent
from atmosphere.routing.router import Router
from atmosphere.work.execution import Execution
from protocols.call.errors import CallError, Code
from protocols.call.messages import TRACE_BYTES


class Runs(Protocol):
    """The dispatcher."""

    def run(self, intent: Intent, args: bytes, *, deadline_s: float | None = None, trace_id: bytes = b"") -> (
        AbstractAsyncContextManager[Execution]
    ): ...


class MeshDecisions:
    """Asks whoever decides best. Fulfils :class:`atmosphere.routing.arbiter.Ask`.

    A deadline is nobody's fault where a caller sets it; here it is the node's own and long enough for a decision
    model. So who was silent until then counts as having failed, and the next question goes to another one, if there is.
    """

    def __init__(self, dispatcher: Runs, router: Router, env: Env) -> None:
        self._dispatcher = dispatcher
        self._router = router
        self._env = env

    def __repr__(self) -> str:
        return f"<MeshDecisions over {self._dispatcher!r}>"

    async def __call__(self, intent: Intent, args: bytes, deadline_s: float) -> bytes:
        """The body of the answer. Raises CallError, DEADLINE after *deadline_s*; the question is then called off."""
        trace = self._env.token_bytes(TRACE_BYTES)
        try:
            with trio.move_on_after(deadline_s):
                async with self._dispatcher.run(intent, args, deadline_s=deadline_s, trace_id=trace) as execution:
                    return await execution.result()
            raise CallError(Code.DEADLINE, f"no decision within {deadline_s * 1000:.0f} ms")
        except CallError as error:
            if error.code is Code.DEADLINE:
                self._silent(trace)
            raise

    def _silent(self, trace: bytes) -> None:
        entry = self._router.log.get(trace.hex())
        chosen = entry.decision.chosen if entry is not None else None
        if chosen is not None:
            self._router.outcomes.record(chosen.peer, chosen.card_id, good=False)
