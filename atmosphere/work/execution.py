"""One routed execution: from a decision to a result, wherever it runs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol

from atmosphere.routing.decision import Candidate, Decision


@dataclass(frozen=True, slots=True)
class Attempt:
    """One candidate that was tried and did not give the answer."""

    candidate: Candidate
    reason: str


class Execution(Protocol):
    """A running piece of work: ``async with dispatcher.run(intent, args) as execution``.

    Leaving the block early cancels the work, here or on the remote node. ``started`` has happened before the block
    is entered: a candidate took the work and either its first piece or its result is there, or it failed with
    :class:`protocols.call.CallError` (raised from the ``async with``). Candidates are only changed before that.
    """

    decision: Decision
    candidate: Candidate
    """Who does the work."""
    attempts: tuple[Attempt, ...]
    trace_id: bytes

    def pieces(self) -> AsyncIterator[bytes]:
        """The streamed pieces in order. Ends when the result is there; raises CallError when the work breaks."""

    async def result(self) -> bytes:
        """The result (JSON bytes; empty for a streamed answer). Raises CallError."""
