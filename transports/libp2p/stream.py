"""A libp2p stream as the rest of the project knows streams."""

from __future__ import annotations

from libp2p.stream_muxer.exceptions import MuxedStreamEOF, MuxedStreamError

from transports.libp2p.muxed_stream import MuxedStream
from transports.peer_id import PeerId
from transports.stream import StreamClosed


class Libp2pStream:
    """A :class:`~transports.stream.Stream` over a muxed stream."""

    __slots__ = ("_muxed", "peer")

    def __init__(self, peer: PeerId, muxed: MuxedStream) -> None:
        self.peer = peer
        self._muxed = muxed

    def __repr__(self) -> str:
        return f"<Libp2pStream with {self.peer.short}, {self._muxed!r}>"

    async def read(self, limit: int) -> bytes:
        try:
            return await self._muxed.read(limit)
        except MuxedStreamEOF:
            return b""
        except MuxedStreamError as error:
            raise StreamClosed(str(error)) from None

    async def write(self, data: bytes) -> None:
        try:
            await self._muxed.write(data)
        except MuxedStreamError as error:
            raise StreamClosed(str(error)) from None

    async def close(self) -> None:
        await self._muxed.close()

    async def reset(self) -> None:
        await self._muxed.reset()
