"""One connection to one peer: serves its inbound streams, contained, and closes exactly once."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import trio
from libp2p.network.connection.swarm_connection import SwarmConn
from libp2p.network.stream.net_stream import NetStream, StreamState
from libp2p.stream_muxer.exceptions import MuxedStreamError
from multiaddr import Multiaddr

from transports.libp2p.muxed_stream import MuxedStream
from transports.libp2p.yamux import MAX_SERVED, Yamux
from transports.libp2p.yamux_frames import ProtocolViolation
from transports.peer_id import PeerId
from transports.stream import StreamClosed

if TYPE_CHECKING:
    from transports.libp2p.swarm import Swarm

logger = logging.getLogger(__name__)

HANDLER_GRACE = 5.0
"""Seconds that handlers have to notice that their connection is gone before they are cancelled."""

LINGER = 10.0
"""Seconds that a stream whose handler has returned waits for the peer to close its side too; then it is reset."""


class Connection(SwarmConn):
    """Wrong in 0.8.1, each with a test in tests/transports:

    - B: an exception in a stream handler leaves ``_handle_muxed_stream`` and kills the host's nursery;
    - F: ``_cleanup`` sleeps 100 ms before it reports the disconnection, so a peer that has reconnected meanwhile is
      reported gone. Here the swarm hears of the end in the same step in which the connection is marked closed;
    - a handler that returns without closing leaves its stream open for good.

    What is served lives in the swarm's nursery, a task for each stream and none for the connection.
    """

    muxed_conn: Yamux

    def __init__(self, muxed_conn: Yamux, swarm: Swarm, direction: str, peer: PeerId, remote_address: str) -> None:
        super().__init__(muxed_conn, swarm, direction=direction)
        self.network = swarm
        self.peer = peer
        self.remote_address = remote_address
        self.inbound = direction == "inbound"
        self.opened_at = trio.current_time()
        self.remote_host = remote_address.split("/")[2]
        muxed_conn.inbound_limit = lambda: swarm.inbound_stream_limit(peer)
        muxed_conn.byte_limit = swarm.config.stranger_bytes
        muxed_conn.stream_limit = swarm.config.streams_of_stranger
        muxed_conn.on_stream = self._begin
        self._served: set[trio.CancelScope] = set()

    def __repr__(self) -> str:
        way = "from" if self.inbound else "to"
        return f"<Connection {way} {self.remote_address}, peer {self.peer.short}, {self.muxed_conn!r}>"

    def trust(self, admitted: bool) -> None:
        """Whether the peer is *admitted*: what bounds strangers does not bound it then, and its gossip is heard."""
        self.muxed_conn.trusted = admitted

    @property
    def heard_at(self) -> float:
        """When the peer last proved that it is there: Trio time of the last authentic bytes, or of the handshake."""
        return max(self.opened_at, self.muxed_conn.heard_at)

    @property
    def idle(self) -> bool:
        """Whether nothing is carried now but what stands as long as the connection."""
        return all(stream.standing for stream in self.muxed_conn.streams.values())

    @property
    def released(self) -> bool:
        """Whether it has ended by :meth:`release` on either side."""
        return self.muxed_conn.released

    def _begin(self, stream: MuxedStream) -> None:
        """Serve a stream that the peer has opened."""
        if len(self._served) >= MAX_SERVED:
            raise ProtocolViolation(f"{MAX_SERVED} streams opened and reset in one go")
        nursery = self.network.background_nursery
        if nursery is None or nursery.cancel_scope.cancel_called:
            stream.abort()  # this node is stopping
            return
        scope = trio.CancelScope()
        self._served.add(scope)
        nursery.start_soon(self._serve, stream, scope)

    async def _serve(self, stream: MuxedStream, scope: trio.CancelScope) -> None:
        kept = False
        try:
            with scope:
                await self.network.serve_stream(self, stream)
                kept = stream.consumed
                if not kept:
                    await self._end(stream)
        except (MuxedStreamError, StreamClosed):
            pass  # reset or ended by the peer, as it may
        except Exception:
            logger.exception("a stream handler failed for %s; its stream is reset", self.peer)
        finally:
            self._served.discard(scope)
            if not (kept or stream.done):
                stream.abort()

    async def _end(self, stream: MuxedStream) -> None:
        await stream.close()
        with trio.move_on_after(LINGER):
            while not stream.done:
                await stream.read()

    async def _add_stream(self, muxed_stream: MuxedStream) -> NetStream:  # type: ignore[override]
        """A library stream, for the library's own protocols. Not tracked: the muxer knows its streams."""
        return self.net_stream(muxed_stream)

    def net_stream(self, muxed_stream: MuxedStream) -> NetStream:
        stream = NetStream(muxed_stream, self, None)
        stream._state = StreamState.OPEN
        return stream

    def get_transport_addresses(self) -> list[Multiaddr]:
        """The library's answer falls back to the peerstore and logs a warning where that knows nothing."""
        return [Multiaddr(self.remote_address)]

    async def release(self) -> None:
        """Close, and say that this is for want of room alone."""
        self.muxed_conn.released = True
        await self.close()

    async def close(self) -> None:
        """Close once; a second call returns at once. The swarm has forgotten us before the first wait."""
        if self.event_closed.is_set():
            return
        self.event_closed.set()
        self.swarm.remove_conn(self)
        for scope in self._served:
            scope.deadline = trio.current_time() + HANDLER_GRACE
        await self.muxed_conn.close()
        await self._notify_disconnected()
