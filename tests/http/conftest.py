"""A fake node served on real sockets: port 0 and a control socket in a short temporary path."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import trio

from atmosphere.http.limits import Limits
from atmosphere.http.server import Bound, serve
from tests.http.fake_node import FakeNode, Work, echo

LIMITS = Limits(body_bytes=256 * 1024, bodies_bytes=1024 * 1024, requests=8, leave_s=1.0)
"""Small, so that the tests of what happens past them are quick."""
IMPATIENT = replace(LIMITS, body_idle_s=0.3, body_total_s=1.0, drain_s=0.2, keep_alive_s=0.4, write_s=0.5)
"""For clients that are slow on purpose: on a busy machine an honest one is as slow."""


@dataclass
class Served:
    node: FakeNode
    bound: Bound
    nursery: trio.Nursery
    stopped: trio.Event

    @property
    def port(self) -> int:
        return int(self.bound.url.rpartition(":")[2])

    async def raw(self, data: bytes, *, finish: bool = False) -> bytes:
        """Send *data* on a new connection and read until the server closes it (at most 5 s)."""
        with trio.fail_after(5):
            stream = await trio.open_tcp_stream("127.0.0.1", self.port)
            async with stream:
                try:
                    await stream.send_all(data)
                    if finish:
                        await stream.send_eof()
                except trio.BrokenResourceError:
                    pass  # the server answered and closed before it had everything
                return await read_all(stream)


async def read_all(stream: trio.SocketStream) -> bytes:
    """Everything until the end, also where a reset takes the place of a close."""
    received = b""
    try:
        async for part in stream:
            received += part
    except trio.BrokenResourceError:
        return received
    return received


Serving = Callable[..., AbstractAsyncContextManager[Served]]


@pytest.fixture
def serving() -> Serving:
    """``async with serving(work) as served``; leaving it stops the node gracefully. *prepare* has the node first."""

    @asynccontextmanager
    async def start(work: Work = echo, limits: Limits = LIMITS, *, public: str = "127.0.0.1:0",
                    prepare: Callable[[FakeNode], object] = lambda node: None) -> AsyncIterator[Served]:
        with tempfile.TemporaryDirectory() as folder:
            async with trio.open_nursery() as nursery:
                with closing(FakeNode(nursery, work, Path(folder))) as node:
                    prepare(node)
                    stopped = trio.Event()

                    async def run(task_status: trio.TaskStatus[Bound]) -> None:
                        await serve(node, public=public, control=Path(folder) / "control.sock", limits=limits,
                                    task_status=task_status)
                        stopped.set()

                    bound = await nursery.start(run)
                    yield Served(node, bound, nursery, stopped)
                    node.stop_requested.set()
                    with trio.fail_after(5):
                        await stopped.wait()
                    nursery.cancel_scope.cancel()

    return start
