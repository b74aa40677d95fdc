"""What a dispatcher has done, as values."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class OpenBreaker:
    """A (node, card) pair that is left alone for now."""

    peer: str
    card: str
    """The first digits of its id."""
    state: str
    wait_s: float
    """Until one call may find out whether it is well again."""


@dataclass(frozen=True, slots=True)
class Unreliable:
    """A (node, card) pair with bad outcomes lately."""

    peer: str
    card: str
    success: float
    """Running mean, 0..1."""


@dataclass(frozen=True, slots=True)
class DispatcherStatistics:
    """Counts since the start, except *running*, *under_way* and from *pairs* on: now."""

    running: int
    under_way: int
    """Calls at candidates: of one thing that runs, none while it waits and two while it is hedged."""
    calls: int
    """Runs and units; one that came back counts again each time."""
    ok: int
    """Units that ended well; then those that failed, and those of which nobody knows."""
    failed: int
    unknown: int
    hedges: int
    """Second calls because the first was slow."""
    hedges_won: int
    """Second calls that answered first."""
    comebacks: int
    """Times that a call waited because everybody was busy or gone."""
    continued: int
    """Streams that went on at another node."""
    pairs: int
    """(Node, card) pairs of which something is remembered."""
    breakers: tuple[OpenBreaker, ...]
    unreliable: tuple[Unreliable, ...]
    """The worst few."""
