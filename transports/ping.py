"""``/ipfs/ping/1.0.0``: 32 bytes there and back."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

import trio

from transports.errors import PeerUnreachable
from transports.libp2p.muxed_stream import MuxedStream
from transports.peer_id import PeerId
from transports.stream import Stream, StreamClosed

logger = logging.getLogger(__name__)

PING = "/ipfs/ping/1.0.0"
PING_SIZE = 32


class Pinger:
    """The asking side. Keeps one stream per connected peer, as a new one costs a round trip more."""

    def __init__(
        self, open_stream: Callable[[PeerId, str], Awaitable[Stream]], connected: Callable[[PeerId], bool]
    ) -> None:
        self._open_stream = open_stream
        self._connected = connected
        self._kept: dict[PeerId, Stream] = {}
        self._count = 0

    def __repr__(self) -> str:
        return f"<Pinger, {self._count} pings, {len(self._kept)} streams kept>"

    def forget(self, peer: PeerId) -> None:
        """*peer* is not connected any more."""
        self._kept.pop(peer, None)

    async def ping(self, peer: PeerId) -> float:
        """Seconds to *peer* and back over an open connection. Raises PeerUnreachable; set a deadline around it."""
        if not self._connected(peer):
            raise PeerUnreachable(f"{peer} is not connected; a ping does not dial")
        kept = self._kept.pop(peer, None)
        if kept is not None:
            try:
                return await self._ping_over(kept)
            except StreamClosed as error:  # js-libp2p ends a ping stream after 10 s: that says nothing about the peer
                logger.debug("the ping stream to %s has ended (%s); another one is opened", peer, error)
        try:
            return await self._ping_over(await self._open_stream(peer, PING))
        except StreamClosed as error:
            raise PeerUnreachable(f"{peer} does not answer a ping: {error}") from None

    async def _ping_over(self, stream: Stream) -> float:
        """One ping; the stream is kept for the next one. Raises StreamClosed."""
        self._count += 1
        payload = self._count.to_bytes(PING_SIZE, "big")
        answer = b""
        try:
            started = trio.current_time()
            await stream.write(payload)
            while len(answer) < PING_SIZE:
                received = await stream.read(PING_SIZE - len(answer))
                if not received:
                    raise StreamClosed("the peer closed the ping stream")
                answer += received
            elapsed = trio.current_time() - started
            if answer != payload:
                raise StreamClosed("the peer answered with other bytes")
        except BaseException:
            await stream.reset()
            raise
        if stream.peer in self._kept:  # two pings at a time: one stream is kept
            await stream.reset()
        elif self._connected(stream.peer):
            self._kept[stream.peer] = stream
        return elapsed


async def serve_ping(connection: object, stream: MuxedStream) -> None:
    """The answering side: an echo until the peer closes, without a task; reset when it does not take the answers."""

    def echo(payload: bytes) -> None:
        if not stream.write_now(payload):
            stream.abort()

    stream.consume(echo)
