"""The muxer under an encrypted connection: any bytes of an authenticated but hostile peer."""

from __future__ import annotations

import struct

from tests.fuzz.runner import fuzz, instrumented

with instrumented():
    import trio
    from libp2p.peer.id import ID
    from trio.testing import MockClock

    from transports.libp2p.yamux import OUTBOX_LIMIT, Yamux

HEADER = struct.Struct("!BBHII")
STREAMS = 8


class Wire:
    """A secured connection that gives *data* in two pieces and then ends; what is written is dropped."""

    is_initiator = False

    def __init__(self, data: bytes) -> None:
        middle = len(data) // 2
        self._pieces = [data[:middle], data[middle:]]

    async def read(self, n: int | None = None) -> bytes:
        await trio.lowlevel.checkpoint()
        while self._pieces:
            piece = self._pieces.pop(0)
            if piece:
                return piece
        raise ConnectionError("the peer has gone")

    async def write(self, data: bytes) -> None:
        await trio.lowlevel.checkpoint()

    async def close(self) -> None:
        await trio.lowlevel.checkpoint()


async def meet(data: bytes) -> None:
    muxer = Yamux(Wire(data), ID(b"peer"))  # type: ignore[arg-type]
    muxer.inbound_limit = lambda: STREAMS
    muxer.open_stream_nowait()
    await muxer.start()
    assert muxer.close_reason
    assert muxer.inbound_count <= STREAMS
    assert muxer.outbox_size <= OUTBOX_LIMIT
    assert not any(stream.buffered for stream in muxer.streams.values())
    assert not muxer.close_reason.startswith(("TypeError", "KeyError", "AttributeError", "IndexError", "WouldBlock"))


def target(data: bytes) -> None:
    trio.run(meet, data, clock=MockClock(autojump_threshold=0))


def frame(kind: int, flags: int, stream: int, length: int, payload: bytes = b"") -> bytes:
    return HEADER.pack(0, kind, flags, stream, length) + payload


SEEDS = [
    frame(1, 1, 1, 0) + frame(0, 0, 1, 5, b"hello") + frame(0, 4, 1, 0),
    frame(1, 2, 2, 0) + frame(0, 0, 2, 3, b"abc") + frame(1, 8, 2, 0),
    frame(2, 1, 0, 7) + frame(2, 2, 0, 7) + frame(3, 0, 0, 0),
    b"".join(frame(1, 1, number, 0) for number in range(1, 25, 2)),
    b"".join(frame(1, 9, number, 0) for number in range(1, 25, 2)),
    b"".join(frame(1, 9, number, 0) for number in range(1, 1300, 2)),
    frame(1, 1, 1, 2**32 - 1) + frame(0, 0, 1, 2**32 - 1),
]

if __name__ == "__main__":
    fuzz(target, SEEDS, (), max_len=16_384)
