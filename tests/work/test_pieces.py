"""Pieces survive any cutting of the byte stream between two nodes."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atmosphere.work.pieces import MAX_PIECE_BYTES, PieceReader, framed
from protocols.call import CallError, Code
from protocols.framing import encode_frame


async def cut(data: bytes, sizes: list[int]) -> AsyncIterator[bytes]:
    while data:
        size = sizes.pop() if sizes else len(data)
        yield data[:size]
        data = data[size:]


@given(st.lists(st.binary(max_size=300)), st.lists(st.integers(1, 50), max_size=200))
def test_pieces_arrive_whole_however_they_were_cut(pieces: list[bytes], sizes: list[int]) -> None:
    async def run() -> list[bytes]:
        sent = bytearray()

        async def emit(data: bytes) -> None:
            sent.extend(data)

        for piece in pieces:
            await framed(emit)(piece)
        reader = PieceReader(cut(bytes(sent), list(sizes)))
        received = []
        while (piece := await reader.next_piece()) is not None:
            received.append(piece)
        return received

    import trio

    assert trio.run(run) == pieces


@pytest.mark.parametrize("data", [encode_frame(b"whole")[:-1], b"\xff" * 11, b"\xff\xff\xff\xff\x0f"])
async def test_a_broken_stream_is_an_error_not_an_end(data: bytes) -> None:
    reader = PieceReader(cut(data, []))
    with pytest.raises(CallError) as raised:
        await reader.next_piece()
    assert raised.value.code is Code.INTERNAL


async def test_a_piece_over_the_limit_is_refused_where_it_is_made() -> None:
    async def emit(data: bytes) -> None:
        pytest.fail("nothing may be sent")

    with pytest.raises(CallError) as raised:
        await framed(emit)(bytes(MAX_PIECE_BYTES + 1))
    assert raised.value.code is Code.TOO_LARGE
