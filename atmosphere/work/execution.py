"""One routed execution: from a decision to a result, wherever it runs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol

from atmosphere.routing.decision import Candidate, Decision
from protocols.call import CallError


class Work(Protocol):
    """Running work, local or remote. Read by one task."""

    async def next_piece(self) -> bytes | None:
        """The next streamed piece; None once there are no more. Raises CallError when the way to the work broke."""

    async def result(self) -> bytes:
        """The result after the last piece. Raises CallError."""

    async def aclose(self) -> None:
        """Stop the work if it still runs, here or there."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One candidate that was tried and did not give the answer."""

    candidate: Candidate
    error: CallError


class Execution:
    """Work that has begun to answer: its first piece or its result is there.

    Made by :meth:`Dispatcher.run`; leaving that block cancels what still runs. Once it exists, the candidate does not
    change any more: a failure from here on is the caller's to see.
    """

    def __init__(
        self,
        decision: Decision,
        candidate: Candidate,
        attempts: tuple[Attempt, ...],
        trace_id: bytes,
        work: Work,
        first: bytes | None,
    ) -> None:
        self.decision = decision
        self.candidate = candidate
        """Who does the work."""
        self.attempts = attempts
        """Who was tried before."""
        self.trace_id = trace_id
        self._work = work
        self._first = first
        self._ended = first is None

    def __repr__(self) -> str:
        return f"<Execution {self.candidate.card.type} on {self.candidate.node_name}, {len(self.attempts)} before>"

    def pieces(self) -> AsyncIterator[bytes]:
        """The streamed pieces in order. Raises CallError when the work breaks on the way.

        Not a generator: an iteration may be left at any point without anything to close.
        """
        return _Pieces(self)

    async def next_piece(self) -> bytes | None:
        """The next streamed piece; None at the end. Raises CallError when the work breaks on the way."""
        piece, self._first = self._first, None
        if piece is None and not self._ended:
            piece = await self._work.next_piece()
        if piece is None:
            self._ended = True
            await self._work.result()
        return piece

    async def result(self) -> bytes:
        """The result (JSON bytes; empty for a streamed answer); pieces that were not read are dropped."""
        while await self.next_piece() is not None:
            pass
        return await self._work.result()


class _Pieces:
    def __init__(self, execution: Execution) -> None:
        self._execution = execution

    def __aiter__(self) -> _Pieces:
        return self

    async def __anext__(self) -> bytes:
        piece = await self._execution.next_piece()
        if piece is None:
            raise StopAsyncIteration
        return piece
