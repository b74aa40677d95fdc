"""Running a Trio program in a virtual world."""

from __future__ import annotations

import logging
import random  # noqa: TID251  # the world's generators are made here, from its seed
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import trio
import trio._core._run as scheduler
from trio.testing import MockClock

from simulations.hashing import hashing_is_fixed
from simulations.virtual import stand_ins
from simulations.virtual.env import SimEnv
from simulations.virtual.stand_ins import Escape, Inside, cpu_s, wall_s
from simulations.virtual.trace import Trace

T = TypeVar("T")

MAX_ERRORS = 50
"""Logged errors that are kept as text; all are counted."""


class Virtual:
    """The world, as the program in it sees it."""

    def __init__(self, seed: int, clock: Callable[[], float]) -> None:
        self.seed = seed
        self.trace = Trace(clock)
        self.errors: list[str] = []
        """What was logged as an error: a task that failed and was contained. At most MAX_ERRORS."""
        self.error_count = 0

    def __repr__(self) -> str:
        return f"<Virtual world, seed {self.seed}, {self.trace!r}, {self.error_count} errors>"

    def env(self, name: str, *, skew_s: float = 0.0) -> SimEnv:
        """The Env of a node called *name*; the same name draws the same again."""
        return SimEnv(self.seed, name, skew_s=skew_s)

    def random(self, name: str) -> random.Random:
        """A generator of its own for *name*."""
        return random.Random(f"{self.seed}/world/{name}")

    def key(self, name: str) -> bytes:
        """32 bytes, the seed of an Ed25519 key."""
        return random.Random(f"{self.seed}/key/{name}").randbytes(32)


@dataclass(frozen=True)
class Outcome(Generic[T]):
    """A run that ended."""

    value: T
    trace_hash: str
    events: int
    """Notes in the trace."""
    virtual_s: float
    cpu_s: float
    wall_s: float
    errors: tuple[str, ...]


def run(main: Callable[[Virtual], Awaitable[T]], *, seed: int) -> Outcome[T]:
    """Run ``main(world)`` in virtual time, decided by *seed* alone.

    Raises what *main* raises; Escape when something reached for the real world, RuntimeError without
    :func:`fix_hashing`.
    """
    if not hashing_is_fixed():
        raise RuntimeError("hashes differ from process to process; call simulations.hashing.fix_hashing() first")
    clock = _VirtualClock()
    world = Virtual(seed, clock.now)
    stand_ins.install()
    inside = Inside(threading.get_ident(), clock.now, world.random("entropy"))
    began, began_cpu = wall_s(), cpu_s()

    async def start() -> T:
        with stand_ins.inside(inside), clock.asked_directly():
            return await main(world)

    with _seeded(seed), _listening(world):
        value = trio.run(start, clock=clock.trio, strict_exception_groups=True)
        world.trace.note("end", repr(random.getstate()), repr(scheduler._r.getstate()), repr(inside.entropy.getstate()))
    left = [where for where, *_ in stand_ins.originals_left()]
    if inside.escapes or left:
        raise Escape("; ".join([*inside.escapes, *(f"{where} is the system's" for where in left)]))
    return Outcome(
        value,
        world.trace.hash,
        world.trace.count,
        clock.now(),
        cpu_s() - began_cpu,
        wall_s() - began,
        tuple(world.errors),
    )


class _VirtualClock:
    """Trio's MockClock, jumping as soon as everybody waits, without the real clock and without rounding.

    MockClock is final and the scheduler insists on it, so its methods are replaced on the instance.
    """

    def __init__(self) -> None:
        self.trio = MockClock(autojump_threshold=0)
        self._at = 0.0
        replaced: dict[str, Callable[..., Any]] = {
            "current_time": self.now,
            "deadline_to_sleep_time": lambda deadline: 0.0 if deadline <= self._at else 999999999.0,
            "_autojump": self._jump,
        }
        for name, method in replaced.items():
            setattr(self.trio, name, method)

    def now(self) -> float:
        return self._at

    @contextmanager
    def asked_directly(self) -> Iterator[None]:
        """``trio.current_time()`` is this clock's, without the three calls in between: it is asked all the time."""
        before = trio.current_time
        setattr(trio, "current_time", self.now)  # noqa: B010  # for mypy it cannot be assigned
        try:
            yield
        finally:
            setattr(trio, "current_time", before)  # noqa: B010

    def _jump(self) -> None:
        deadline = scheduler.GLOBAL_RUN_CONTEXT.runner.deadlines.next_deadline()
        if self._at < deadline < float("inf"):
            self._at = deadline


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """The generators that everybody shares start from *seed*, and get their old state back afterwards."""
    shared, own, deterministic = random.getstate(), scheduler._r.getstate(), scheduler._ALLOW_DETERMINISTIC_SCHEDULING
    random.seed(seed)
    scheduler._r.seed(seed)
    scheduler._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[misc]
    try:
        yield
    finally:
        random.setstate(shared)
        scheduler._r.setstate(own)
        scheduler._ALLOW_DETERMINISTIC_SCHEDULING = deterministic  # type: ignore[misc]


@contextmanager
def _listening(world: Virtual) -> Iterator[None]:
    """Count what is logged as an error, and say nothing else: a thousand nodes have a lot to tell."""

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            world.error_count += 1
            if len(world.errors) < MAX_ERRORS:
                world.errors.append(self.format(record))

    handler = Handler()
    names = ("", "libp2p")  # libp2p cuts its logger off from the root
    before = {name: (logging.getLogger(name).handlers[:], logging.getLogger(name).level) for name in names}
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    for name in names:
        logging.getLogger(name).handlers[:] = [handler]
    try:
        yield
    finally:
        logging.disable(disabled)
        for name, (handlers, level) in before.items():
            logging.getLogger(name).handlers[:] = handlers
            logging.getLogger(name).setLevel(level)
