"""What a node takes from a virtual world."""

from __future__ import annotations

import random  # noqa: TID251  # the world's generators are made here, from its seed
from collections.abc import Callable
from typing import TypeVar

import trio

from simulations.virtual.stand_ins import EPOCH

T = TypeVar("T")


class SimEnv:
    """An :class:`~atmosphere.env.Env` in virtual time.

    *name* and *seed* decide everything it draws, whatever other nodes draw. *skew_s*: how far the node's wall clock is
    ahead of the world's. Nothing runs in a thread: what blocks takes no virtual time.
    """

    def __init__(self, seed: int, name: str, *, skew_s: float = 0.0) -> None:
        self.random = random.Random(f"{seed}/{name}/random")
        self._secrets = random.Random(f"{seed}/{name}/secrets")
        self.skew_s = skew_s
        self.name = name

    def __repr__(self) -> str:
        return f"<SimEnv of {self.name}>"

    def now(self) -> float:
        return EPOCH + trio.current_time() + self.skew_s

    def monotonic(self) -> float:
        return trio.current_time()

    def token_bytes(self, size: int) -> bytes:
        """Unpredictable only to who does not know the seed."""
        return self._secrets.randbytes(size)

    async def run_blocking(self, function: Callable[[], T]) -> T:
        """At once, after one trip through the scheduler, as a thread would cost at least."""
        await trio.lowlevel.checkpoint()
        return function()

    async def run_abandonable(self, function: Callable[[], T]) -> T:
        return await self.run_blocking(function)
