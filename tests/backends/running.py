"""A stand-in server inside the test's own nursery, on a real loopback socket."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import trio

from tests.backends.http_server import Handler, Log, serve


@dataclass
class Running:
    url: str
    port: int
    log: Log


@asynccontextmanager
async def running(handler: Handler, port: int = 0) -> AsyncIterator[Running]:
    """The server while inside; leaving closes its socket and all its connections."""
    log = Log()
    async with trio.open_nursery() as nursery:
        bound = await nursery.start(serve, handler, log, port)
        yield Running(f"http://127.0.0.1:{bound}", bound, log)
        nursery.cancel_scope.cancel()
