"""Many units at once, bounded, their results in the order in which they end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from types import TracebackType
from typing import Self

import trio

from atmosphere.routing.intent import Intent
from atmosphere.work.units import Unit, UnitResult
from protocols.call import CallError, Code

RunUnit = Callable[[int, Unit, Callable[[], bool]], Awaitable[UnitResult]]
"""(number, unit, whether it may be given to a second node when it is slow) -> result. Does not raise CallError."""
RESULTS_WAITING = 16
"""Results that wait for the reader; then units wait to be begun."""
LOOK_S = 0.25
"""How often the mesh is asked for its room."""


class UnitResults:
    """The results of a map: an async context manager, and inside it an async iterator.

    Its work runs in the node's nursery, so it may be entered in one task and left in another. An error of the units'
    own iterator is raised to the reader after the results of the units before it. Raises CallError (cancelled) to the
    reader when the node stops: units without a result may or may not have run.
    """

    def __init__(
        self,
        units: Iterable[Unit],
        run: RunUnit,
        room: Callable[[Intent], Awaitable[int]],
        budget: Callable[[], bool],
        nursery: trio.Nursery,
        in_flight: int | None,
    ) -> None:
        """*room*: units of a kind that the mesh can have under way; *in_flight*, if given, is used instead."""
        if in_flight is not None and in_flight < 1:
            raise ValueError(f"in_flight is {in_flight}; at least 1 unit has to be under way")
        self._units = enumerate(units)
        self._run = run
        self._room = room
        self._budget = budget
        self._nursery = nursery
        self._fixed = in_flight
        self._scope = trio.CancelScope()
        self._send, self._receive = trio.open_memory_channel[UnitResult](RESULTS_WAITING)
        self._ended = trio.Event()
        self._error: Exception | None = None
        self._exhausted = False
        self._whole = False
        self._workers = 0
        self._limit = 1
        self.given = 0
        """Units that have begun."""
        self.done = 0
        """Results that have been read."""

    def __repr__(self) -> str:
        return f"<UnitResults {self.done} of {self.given} begun, {self._workers} at once, at most {self._limit}>"

    async def __aenter__(self) -> Self:
        self._nursery.start_soon(self._work)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._scope.cancel()
        self._receive.close()
        with trio.CancelScope(shield=True):  # closing calls does not wait
            await self._ended.wait()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> UnitResult:
        try:
            result = await self._receive.receive()
        except trio.EndOfChannel:
            if self._error is not None:
                raise self._error from None
            if not self._whole:
                raise CallError(Code.CANCELLED, "the node is stopping; give the units again to another one") from None
            raise StopAsyncIteration from None
        self.done += 1
        return result

    async def _work(self) -> None:
        try:
            with self._scope, self._send:
                first = self._next()
                if first is not None:
                    async with trio.open_nursery() as workers:
                        await self._look(first[1].intent)
                        self._hire(workers, first)
                        workers.start_soon(self._keep_looking, first[1].intent, workers)
                self._whole = True
        finally:
            self._ended.set()

    def _next(self) -> tuple[int, Unit] | None:
        """The next unit; None: no more."""
        if self._exhausted:
            return None
        try:
            item = next(self._units, None)
        except Exception as error:  # the caller's own code: it is his to see, not the node's to fall over
            self._error = error
            item = None
        if item is None:
            self._exhausted = True
        else:
            self.given += 1
        return item

    def _hire(self, workers: trio.Nursery, first: tuple[int, Unit] | None = None) -> None:
        while self._workers < self._limit and (item := first or self._next()) is not None:
            first = None
            self._workers += 1
            workers.start_soon(self._worker, item, workers)

    async def _worker(self, item: tuple[int, Unit] | None, workers: trio.Nursery) -> None:
        while item is not None:
            result = await self._run(*item, self._may_repeat)
            await self._send.send(result)
            item = self._next() if self._workers <= self._limit else None
        self._workers -= 1
        if not self._workers and self._exhausted:
            workers.cancel_scope.cancel()

    def _may_repeat(self) -> bool:
        """At the end the mesh has room for second tries; before, only on the budget."""
        return self._exhausted or self._budget()

    async def _look(self, intent: Intent) -> None:
        self._limit = self._fixed or await self._room(intent)

    async def _keep_looking(self, intent: Intent, workers: trio.Nursery) -> None:
        while not self._exhausted:
            await trio.sleep(LOOK_S)
            await self._look(intent)
            self._hire(workers)
        if not self._workers:
            workers.cancel_scope.cancel()
