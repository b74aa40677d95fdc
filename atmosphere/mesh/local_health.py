"""Whether this node itself is in a state to judge others: its own clock, and Lifeguard's local health."""

from __future__ import annotations

from math import inf

MAX_FAULTS = 4
"""Timeouts grow to 1 + MAX_FAULTS / 2 = 3 times their length."""
LATE_TICKS = 2
"""The clock advances by so many ticks per tick at most."""


class LocalHealth:
    """The time that this node was awake, and how much its judgement is to be trusted.

    A machine that slept or a process that was stopped has seen nothing meanwhile: that time does not pass here.
    Faults (late ticks, vias that do not answer either, refutations of this node's own) make it wait longer.
    """

    def __init__(self, tick_s: float, recover_s: float) -> None:
        self._cap = LATE_TICKS * tick_s
        self._recover_s = recover_s
        self._wall: float | None = None
        self._own = 0.0
        self._before = (0.0, 0.0)
        self._stall_ended = -inf
        self._changed = 0.0
        self.faults = 0

    def __repr__(self) -> str:
        return f"<LocalHealth {self.faults} faults, awake for {self._own:.1f} s>"

    @property
    def scale(self) -> float:
        """What timeouts are multiplied with: 1 while healthy."""
        return 1.0 + self.faults / 2

    @property
    def own(self) -> float:
        """The own time of the last tick."""
        return self._own

    def tick(self, wall: float) -> float:
        """The next tick has come; the own time."""
        if self._wall is None:
            self._wall = wall
        gap = wall - self._wall
        self._before = (self._wall, self._own)
        self._wall = wall
        if gap > self._cap:
            self._own += self._cap
            self._stall_ended = self._own
            self.fault(self._own)
        else:
            self._own += gap
            if self.faults and self._own - self._changed >= self._recover_s:
                self.faults -= 1
                self._changed = self._own
        return self._own

    def at(self, wall: float) -> float:
        """The own time of an event now."""
        if self._wall is None:
            self._wall = wall
        gap = wall - self._wall
        return self._own + (gap if gap < self._cap else self._cap)

    def seen(self, wall: float) -> float:
        """The own time of bytes that came since the tick before the last one, or earlier (then a lower bound)."""
        then, own = self._before
        gap = wall - then
        return own + (gap if gap < self._cap else self._cap)

    def stalled_since(self, own: float, wall: float) -> bool:
        """Whether this node was stopped at some time between *own* and now."""
        return own < self._stall_ended or (self._wall is not None and wall - self._wall > self._cap)

    def fault(self, own: float) -> None:
        """A sign that the trouble is here."""
        self.faults = min(MAX_FAULTS, self.faults + 1)
        self._changed = own
