"""Work on this node's own backends, in a task of its own, so that the caller reads at its own pace."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

import trio

from atmosphere.capabilities.backend import Emit
from protocols.call import CallError, Code

logger = logging.getLogger(__name__)

PIECES_WAITING = 16
"""Pieces between a backend and a slow reader; then the backend waits."""


class LocalWork:
    """One running call of a local backend. Read it from one task; :meth:`aclose` stops it."""

    def __init__(self, run: Callable[[Emit], Awaitable[bytes]], nursery: trio.Nursery) -> None:
        """Starts ``run(emit)`` in *nursery*."""
        self._run = run
        self._send, self._receive = trio.open_memory_channel[bytes](PIECES_WAITING)
        self._scope = trio.CancelScope()
        self._result = b""
        self._error: CallError | None = None
        nursery.start_soon(self._work)

    async def _work(self) -> None:
        self._error = CallError(Code.CANCELLED, "the node is stopping", retryable=True)
        with self._scope, self._send:
            try:
                self._result = await self._run(self._send.send)
                self._error = None
            except CallError as error:
                self._error = error
            except trio.BrokenResourceError:
                pass  # the reader has gone: the work ends as cancelled
            except Exception:
                logger.exception("a backend failed")
                self._error = CallError(Code.INTERNAL, "the backend failed; this node's log has the details")

    async def next_piece(self) -> bytes | None:
        """The next streamed piece; None once there are no more (the result or the error is there)."""
        try:
            return await self._receive.receive()
        except trio.EndOfChannel:
            return None

    async def result(self) -> bytes:
        """The result, once :meth:`next_piece` gave None. Raises CallError."""
        if self._error is not None:
            raise self._error
        return self._result

    async def aclose(self) -> None:
        """Stop the work if it still runs."""
        self._scope.cancel()
        self._receive.close()
