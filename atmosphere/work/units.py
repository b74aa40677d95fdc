"""A unit of work and what became of it: the records of `Dispatcher.unit`, of `Dispatcher.map` and of plans."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from atmosphere.routing.decision import Candidate
from atmosphere.routing.intent import Intent
from protocols.call import CallError
from transports.peer_id import PeerId


class Outcome(StrEnum):
    """What is known of a unit that ended."""

    OK = "ok"
    FAILED = "failed"  # it did not run, or its failure is the answer: the same unit may be given again
    UNKNOWN = "unknown"  # a tool with effects `once` was sent and its answer never came: it may have run


@dataclass(frozen=True, slots=True)
class Unit:
    """One call that somebody wants done, wherever it runs best."""

    intent: Intent
    """Its ``tool`` is what is called."""
    args: bytes
    """JSON, as the tool takes it. Ask for no stream: of a unit only the result is kept."""
    key: bytes = b""
    """Idempotency key, the same wherever the unit is tried; empty: one is made."""
    deadline_s: float | None = None
    """Seconds from its start to its result, waiting and further candidates included; None: 30 s to find somebody who
    takes it, then as long as that takes."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One candidate that was tried and did not give the answer."""

    candidate: Candidate
    error: CallError


@dataclass(frozen=True, slots=True)
class UnitResult:
    """How one unit ended."""

    number: int
    """Its place among the units that were given, from 0."""
    outcome: Outcome
    result: bytes = b""
    """What the tool returned (JSON); empty unless *outcome* is ok."""
    error: CallError | None = None
    """Why it is not ok: cause and next step."""
    node: str = ""
    """Name of the node that gave the answer or, of a failed unit, was tried last; empty: none was."""
    peer: PeerId | None = None
    attempts: tuple[Attempt, ...] = ()
    """Who was tried in vain; the latest, if there were many."""
    began: float = 0.0
    """On the Env's monotonic clock."""
    seconds: float = 0.0
    hedged: bool = False
    """It was slow, so another node was given it as well; the first answer counted."""

    @property
    def ok(self) -> bool:
        return self.outcome is Outcome.OK
