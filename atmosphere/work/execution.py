"""One routed execution: from a decision to a result, wherever it runs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import NamedTuple, Protocol

from atmosphere.routing.decision import Candidate, Decision
from atmosphere.work.continuation import Said
from atmosphere.work.units import Attempt
from protocols.call import CallError


class Work(Protocol):
    """Running work, local or remote. Read by one task."""

    async def next_piece(self) -> bytes | None:
        """The next streamed piece; None once there are no more. Raises CallError when the way to the work broke."""

    async def result(self) -> bytes:
        """The result after the last piece. Raises CallError."""

    async def aclose(self) -> None:
        """Stop the work if it still runs, here or there. Never waits: the caller may be being cancelled."""


class Resumed(NamedTuple):
    """An answer that goes on elsewhere."""

    candidate: Candidate
    work: Work
    first: bytes | None
    mark: bytes
    """The piece that tells the reader; before *first*."""


class Resume(Protocol):
    """Goes on with an answer that broke."""

    said: Said
    """To be told of every piece."""

    async def __call__(self, error: CallError) -> Resumed:
        """Raises *error* where that cannot be."""


class Execution:
    """Work that has begun to answer: its first piece or its result is there.

    Made by :meth:`Dispatcher.run`; leaving that block cancels what still runs. From here on a failure is the caller's
    to see, unless the capability declares that it continues answers (see continuation.py): then another candidate goes
    on, and a piece in the stream says so.
    """

    def __init__(
        self,
        decision: Decision,
        candidate: Candidate,
        attempts: tuple[Attempt, ...],
        trace_id: bytes,
        work: Work,
        first: bytes | None,
        resume: Resume | None = None,
    ) -> None:
        """*resume*: of work that may be continued elsewhere."""
        self.decision = decision
        self.candidate = candidate
        """Who does the work."""
        self.attempts = attempts
        """Who was tried before."""
        self.trace_id = trace_id
        self._work = work
        self._first = first
        self._ended = first is None
        self._resume = resume

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
        if piece is None:
            try:
                piece = None if self._ended else await self._work.next_piece()
                if piece is None:
                    self._ended = True
                    await self._work.result()
            except CallError as error:
                if self._resume is None:
                    raise
                self.candidate, self._work, self._first, piece = await self._resume(error)
                self._ended = self._first is None
                return piece
        if self._resume is not None and piece is not None:
            self._resume.said.add(piece)
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
