"""Everything that is not deterministic, in one place that is injected everywhere.

The node never asks the operating system for the time, for randomness or for a thread except through an
:class:`Env`. Production uses :class:`SystemEnv`; tests and simulations pass one of their own, so that the same
seed gives the same run. A lint rule bans the modules below everywhere else.
"""

from __future__ import annotations

import random
import secrets
import time
from collections.abc import Callable
from typing import Protocol, TypeVar

T = TypeVar("T")


class Env(Protocol):
    """What a node takes from the world besides the network and its home folder."""

    random: random.Random
    """For jitter and sampling. Never for secrets."""

    def now(self) -> float:
        """Wall-clock time, Unix seconds. Only signed statements and records for people use it."""

    def monotonic(self) -> float:
        """Seconds on a clock that never goes back. Every duration and deadline uses it."""

    def token_bytes(self, size: int) -> bytes:
        """*size* unpredictable bytes: keys, invite secrets, nonces."""

    async def run_blocking(self, function: Callable[[], T]) -> T:
        """Run *function* where it may block (disk, CPU) without stalling the node; returns its result or raises.

        Not interrupted by cancellation: the call returns when *function* has.
        """

    async def run_abandonable(self, function: Callable[[], T]) -> T:
        """As :meth:`run_blocking`, for what may never return (a driver): cancelled, it leaves *function* behind."""


class SystemEnv:
    """The real world. Durations follow Trio's clock where Trio runs, so a test's clock governs them too."""

    def __init__(self) -> None:
        self.random: random.Random = random.SystemRandom()

    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        import trio  # here, not above: the pure rooms import this module and must not load Trio

        try:
            return trio.current_time()
        except RuntimeError:  # no Trio run: a command-line tool working on the files alone
            return time.monotonic()

    def token_bytes(self, size: int) -> bytes:
        return secrets.token_bytes(size)

    async def run_blocking(self, function: Callable[[], T]) -> T:
        import trio

        return await trio.to_thread.run_sync(function)

    async def run_abandonable(self, function: Callable[[], T]) -> T:
        import trio

        return await trio.to_thread.run_sync(function, abandon_on_cancel=True)


class FixedEnv:
    """A deterministic twin for tests and simulations: seeded randomness, a clock set by hand, no threads.

    ``now()`` is *start* plus the monotonic time, which follows Trio's clock inside a run (MockClock in tests) and
    :meth:`advance` outside one.
    """

    def __init__(self, seed: int = 0, start: float = 1_800_000_000.0) -> None:
        self.random: random.Random = random.Random(seed)
        self.start = start
        self._advanced = 0.0

    def advance(self, seconds: float) -> None:
        """Move both clocks on by *seconds*."""
        self._advanced += seconds

    def now(self) -> float:
        return self.start + self.monotonic()

    def monotonic(self) -> float:
        import trio

        try:
            return trio.current_time() + self._advanced
        except RuntimeError:
            return self._advanced

    def token_bytes(self, size: int) -> bytes:
        return self.random.randbytes(size)

    async def run_blocking(self, function: Callable[[], T]) -> T:
        return function()

    async def run_abandonable(self, function: Callable[[], T]) -> T:
        return function()
