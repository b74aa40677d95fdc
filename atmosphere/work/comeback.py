"""When it is worth coming back with a call that nobody took, and waiting until then."""

from __future__ import annotations

import trio

from atmosphere.env import Env
from atmosphere.mesh.table import GradientTable
from atmosphere.work.attempts import Task
from protocols.call import CallError, Code

PATIENCE_S = 30.0
"""How long a call without a deadline of its own comes back."""
STALE_WAIT_S = 1.5
"""When every candidate said that it does not offer the card any more: how long to wait for the news that says what it
offers instead. A change reaches the mesh within a second."""
MIN_PAUSE_S = 0.05
FIRST_PAUSE_S = 0.1
MAX_PAUSE_S = 2.0
"""Pauses where nobody gave a hint: from the first, doubling, to the longest."""
JITTER = 0.25
"""Of a pause, added by chance: those who were refused together do not come back together."""


class Comeback:
    """The rounds of one call. It began when it was first refused."""

    def __init__(self, task: Task, table: GradientTable, env: Env) -> None:
        self._task = task
        self._table = table
        self._env = env
        deadline = task.call.deadline
        self._until = env.monotonic() + PATIENCE_S if deadline is None else deadline
        self._pause_s = FIRST_PAUSE_S
        self._stale = False

    async def worth(self, error: CallError, version: int) -> bool:
        """Wait as long as *error* suggests, then True; False at once where the call should fail with it.

        *version*: of the table, when the decision was made that led to *error*.
        """
        left = self._until - self._env.monotonic()
        if error.code is Code.NOT_FOUND:
            return await self._news(error, version, left)
        busy = error.code in (Code.OVERLOADED, Code.RATE_LIMITED)
        # A unit has all the time it was given; somebody who waits for a first word hears at once that it is down.
        if not busy and not (self._task.whole and error.code is Code.UNAVAILABLE and error.retryable):
            return False
        pause = max(MIN_PAUSE_S, error.retry_after_ms / 1000) if error.retry_after_ms else self._next_pause()
        if pause > left:
            return False
        await trio.sleep(min(left, pause * (1 + JITTER * self._env.random.random())))
        return True

    async def _news(self, error: CallError, version: int, left: float) -> bool:
        """Nobody offers it: once, the table may only be behind; and what could be done before may be again."""
        if error.retryable and not self._stale:
            self._stale, wait = True, STALE_WAIT_S
        elif self._task.whole and self._task.tried:
            wait = self._next_pause()
        else:
            return False
        if left <= 0:
            return False
        if self._table.version == version:
            news = trio.Event()
            self._table.listeners.add(news.set)
            try:
                with trio.move_on_after(min(wait, left)):
                    await news.wait()
            finally:
                self._table.listeners.discard(news.set)
        return True

    def _next_pause(self) -> float:
        pause, self._pause_s = self._pause_s, min(2 * self._pause_s, MAX_PAUSE_S)
        return pause
