"""Questions of the node itself to the mesh's decision models, through the dispatcher as anybody's work."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Protocol

import trio

from atmosphere.routing.intent import Intent
from atmosphere.work.execution import Execution
from protocols.call.errors import CallError, Code


class Runs(Protocol):
    """The dispatcher."""

    def run(self, intent: Intent, args: bytes, *, deadline_s: float | None = None) -> (
        AbstractAsyncContextManager[Execution]
    ): ...


class MeshDecisions:
    """Asks whoever decides best. Fulfils :class:`atmosphere.routing.arbiter.Ask`."""

    def __init__(self, dispatcher: Runs) -> None:
        self._dispatcher = dispatcher

    def __repr__(self) -> str:
        return f"<MeshDecisions over {self._dispatcher!r}>"

    async def __call__(self, intent: Intent, args: bytes, deadline_s: float) -> bytes:
        """The body of the answer. Raises CallError, DEADLINE after *deadline_s*; the question is then called off."""
        with trio.move_on_after(deadline_s):
            async with self._dispatcher.run(intent, args, deadline_s=deadline_s) as execution:
                return await execution.result()
        raise CallError(Code.DEADLINE, f"no decision within {deadline_s * 1000:.0f} ms")
