"""Pieces of a streamed answer on the call protocol's byte stream: each behind its length.

``/atmosphere/call/1`` keeps order and content but may cut data frames anywhere; a piece (one JSON object of an OpenAI
stream) has to arrive whole.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator

from atmosphere.capabilities.backend import Emit
from protocols.call import CallError, Code
from protocols.framing import FrameDecoder, FrameError, encode_frame

MAX_PIECE_BYTES = 4 * 1024 * 1024
"""A piece is one delta of a stream; an image in a stream is the largest that is known."""


def framed(emit: Emit) -> Emit:
    """An ``emit`` that puts each piece behind its length before it is sent by *emit*."""

    async def emit_piece(piece: bytes) -> None:
        if len(piece) > MAX_PIECE_BYTES:
            raise CallError(Code.TOO_LARGE, f"a piece of {len(piece)} bytes; {MAX_PIECE_BYTES} is the maximum")
        await emit(encode_frame(piece))

    return emit_piece


class PieceReader:
    """Whole pieces from a byte stream."""

    def __init__(self, data: AsyncIterator[bytes]) -> None:
        self._data = data
        self._decoder = FrameDecoder(MAX_PIECE_BYTES)
        self._ready: deque[bytes] = deque()

    async def next_piece(self) -> bytes | None:
        """The next piece, None at the end. Raises CallError for what is not a stream of pieces."""
        while not self._ready:
            chunk = await anext(self._data, None)
            try:
                if chunk is None:
                    self._decoder.end()
                    return None
                self._ready.extend(self._decoder.feed(chunk))
            except FrameError as error:
                raise CallError(Code.INTERNAL, f"the node sent a broken stream: {error}") from error
        return self._ready.popleft()
