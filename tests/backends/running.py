"""A stand-in server inside the test's own nursery, on a real loopback socket."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio

from tests.backends.http_server import Handler, Log, serve


@dataclass
class Running:
    url: str
    port: int
    log: Log
    _scope: trio.CancelScope = field(repr=False)
    _gone: trio.Event = field(repr=False)

    async def kill(self) -> None:
        """Close its socket and all its connections, in the middle of whatever it says."""
        self._scope.cancel()
        await self._gone.wait()


@asynccontextmanager
async def running(handler: Handler, port: int = 0) -> AsyncIterator[Running]:
    """The server while inside, or until it is killed."""
    log, scope, gone = Log(), trio.CancelScope(), trio.Event()

    async def live(task_status: trio.TaskStatus[int]) -> None:
        with scope:
            await serve(handler, log, port, task_status=task_status)
        gone.set()

    async with trio.open_nursery() as nursery:
        bound = await nursery.start(live)
        yield Running(f"http://127.0.0.1:{bound}", bound, log, scope, gone)
        nursery.cancel_scope.cancel()
