"""Who may run now: slots per source, one bounded queue per card. Pure bookkeeping, no waiting in here.

A *source* is one backend that offers the card; two backends of one node may offer the same card, and then share its
queue. A freed slot goes to the call that has waited longest.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

S = TypeVar("S")

_SMOOTHING = 0.2             # weight of the newest call in the mean duration: a change shows after about five calls
_FIRST_GUESS_S = 1.0         # before any call has finished
RETRY_AFTER_MIN_MS = 100     # less and refused callers come back in step
RETRY_AFTER_MAX_MS = 30_000  # more and a client believes the node dead


@dataclass(slots=True, eq=False)
class Slots(Generic[S]):
    """The slots of one source."""

    source: S
    size: int
    running: int = 0
    removed: bool = False


@dataclass(slots=True, eq=False)
class Waiting(Generic[S]):
    """A queued call. ``wake`` is called once, when ``granted`` or ``refused`` has been decided."""

    wake: Callable[[], None]
    granted: Slots[S] | None = None
    refused: bool = False


@dataclass(slots=True)
class Admission(Generic[S]):
    """The slots and the queue of one card."""

    queue_limit: int
    slots: list[Slots[S]] = field(default_factory=list)
    queue: deque[Waiting[S]] = field(default_factory=deque)
    mean_s: float = _FIRST_GUESS_S
    """Smoothed duration of the calls that finished."""
    measured: bool = False
    """Whether any has finished; before that *mean_s* is a guess, on which nobody is refused."""

    @property
    def running(self) -> int:
        return sum(slots.running for slots in self.slots)

    @property
    def size(self) -> int:
        return sum(slots.size for slots in self.slots)

    def add(self, source: S, size: int) -> Slots[S]:
        """A source appears, or changes its size; waiting calls get its free slots."""
        known = self.find(source)
        if known is None:
            known = Slots(source, size)
            self.slots.append(known)
        known.size = size
        self._grant()
        return known

    def remove(self, source: S) -> None:
        """A source is gone. Its running calls end as they do; with the last source all waiting calls are refused."""
        for slots in [slots for slots in self.slots if slots.source is source]:
            slots.removed = True
            self.slots.remove(slots)
        if not self.slots:
            while self.queue:
                waiting = self.queue.popleft()
                waiting.refused = True
                waiting.wake()

    def find(self, source: S) -> Slots[S] | None:
        return next((slots for slots in self.slots if slots.source is source), None)

    def take(self) -> Slots[S] | None:
        """A slot at the source with the smallest share in use, or None when all are busy or others wait already."""
        return None if self.queue else self._take()

    def full(self) -> bool:
        """Whether the queue takes no more."""
        return len(self.queue) >= self.queue_limit

    def wait(self, wake: Callable[[], None]) -> Waiting[S]:
        """Queue a call; only when not :meth:`full`."""
        waiting: Waiting[S] = Waiting(wake)
        self.queue.append(waiting)
        return waiting

    def leave(self, waiting: Waiting[S]) -> None:
        """A waiting call gives up. A slot that it was just granted goes to the next."""
        if waiting.granted is not None:
            self.release(waiting.granted, None)
        elif not waiting.refused:
            self.queue.remove(waiting)

    def release(self, slots: Slots[S], duration_s: float | None) -> None:
        """A call has ended; *duration_s* None: it says nothing about how long calls take."""
        slots.running -= 1
        if duration_s is not None:
            self.mean_s += (_SMOOTHING if self.measured else 1.0) * (duration_s - self.mean_s)
            self.measured = True
        self._grant()

    def wait_s(self) -> float:
        """How long a call that queues now is likely to wait: all slots together free one each mean / size seconds."""
        return self.mean_s * (len(self.queue) + 1) / max(self.size, 1)

    def hopeless(self, left_s: float) -> bool:
        """Whether a call that queues now would likely still wait when its deadline, *left_s* seconds off, passes.

        Only while all slots are busy, so that a mean that is too high corrects itself with the calls that run.
        """
        return self.measured and self.wait_s() > left_s

    def retry_after_ms(self) -> int:
        """When a slot is likely free for a call that is refused now."""
        return round(min(max(self.wait_s() * 1000, RETRY_AFTER_MIN_MS), RETRY_AFTER_MAX_MS))

    def _take(self) -> Slots[S] | None:
        free = [slots for slots in self.slots if slots.running < slots.size]
        if not free:
            return None
        best = free[0] if len(free) == 1 else min(free, key=lambda slots: slots.running / slots.size)
        best.running += 1
        return best

    def _grant(self) -> None:
        while self.queue and (slots := self._take()) is not None:
            waiting = self.queue.popleft()
            waiting.granted = slots
            waiting.wake()
