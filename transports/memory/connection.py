"""One in-memory connection: two ends, a pipe each way, and a handshake that takes as long as the real one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import trio
from libp2p.abc import IRawConnection
from libp2p.connection_types import ConnectionType
from libp2p.peer.id import ID
from multiaddr import Multiaddr

from transports.memory.muxer import MemoryMuxer
from transports.memory.pipe import Pipe

if TYPE_CHECKING:
    from transports.memory.network import MemoryNetwork
    from transports.memory.place import Place

HANDSHAKE_ROUND_TRIPS = 3.0
"""From the first byte after TCP's own handshake until the dialler has a connection: security chosen, Noise XX, muxer
chosen. Counted on the real stack by tests/transports/test_memory_handshake.py."""

HANDSHAKE_SIZE = 350
"""Bytes that each side sends for it."""


@dataclass(frozen=True)
class _Greeting:
    """Who speaks. The network vouches for it."""

    peer: ID


class _Finish:
    """The last thing that an end says: it has closed."""


FINISH = _Finish()


class End:
    """One end of a connection: a raw one before the handshake, then a secure one, then what carries the muxer's frames.

    The library sees an IRawConnection, and after the handshake an ISecureConn; bytes are never read from it.
    """

    def __init__(
        self, network: MemoryNetwork, place: Place, other: Place, remote: tuple[str, int], dials: bool
    ) -> None:
        self.network = network
        self.place = place
        self.other_place = other
        self.is_initiator = dials
        self.closed = False
        self.muxer: MemoryMuxer | None = None
        self.out: Pipe
        self._remote = remote
        self._greeted = trio.Event()
        self._why = ""
        place.ends[self] = None
        other.facing[self] = None

    def __repr__(self) -> str:
        state = f"closed: {self._why}" if self.closed else repr(self.muxer or "handshake")
        return f"<End at {self.place.host} to {self._remote[0]}, {state}>"

    # What pipes tell ----------------------------------------------------------------------------------------------

    def take(self, item: Any, size: int) -> None:
        if self.closed:
            if item is not FINISH:
                self.network.wire.at(trio.current_time() + self.out.link.latency_s, self.opposite.reset)
            return
        self.place.received_bytes += size
        self.place.received_frames += 1
        if self.muxer is not None and type(item) is tuple:
            self.muxer.take(item, size)
        elif isinstance(item, _Greeting):
            self.muxer = MemoryMuxer(self, item.peer, self.network.nursery)  # frames may follow in the same moment
            self._greeted.set()
        else:
            self._lost("ConnectionClosedError: the peer closed the connection")

    def has_left(self, size: int) -> None:
        if self.muxer is not None:
            self.muxer.has_left(size)

    def broken(self, reason: str) -> None:
        self._lost(reason)

    def reset(self) -> None:
        """What we sent reached nobody who knows this connection."""
        self._lost("ConnectionResetError: the connection was reset by the peer")

    # What the muxer and the library ask ---------------------------------------------------------------------------

    opposite: End
    """The other end."""

    def send(self, size: int, item: Any, extra_s: float = 0.0) -> bool:
        """See :meth:`Pipe.send`."""
        if self.closed:
            return True
        self.place.sent_bytes += size
        self.place.sent_frames += 1
        return self.out.send(size, item, extra_s)

    async def handshake(self) -> ID:
        """Tell who we are and hear who they are. Raises OSError when the connection ends before that."""
        if self.is_initiator:
            extra = (HANDSHAKE_ROUND_TRIPS - 1) * 2 * self.out.link.latency_s
            self.send(HANDSHAKE_SIZE, _Greeting(self.place.library_id), extra)
            await self._hear()
        else:
            await self._hear()
            self.send(HANDSHAKE_SIZE, _Greeting(self.place.library_id))
        return self.get_remote_peer()

    async def _hear(self) -> None:
        await self._greeted.wait()
        if self.muxer is None or self.closed:
            raise ConnectionResetError(self._why or "the connection ended in the handshake")

    def _lost(self, reason: str) -> None:
        """The connection has ended without us."""
        if not self.closed:
            self._why = reason
            if self.muxer is not None:
                self.muxer.end(reason)
            self.hang_up()

    def hang_up(self) -> None:
        """Close this end: what is under way still arrives, and after it the news that we have closed."""
        if not self.closed:
            self.closed = True
            self._why = self._why or "closed on this side"
            self.out.finish(FINISH)
            self._greeted.set()
            del self.place.ends[self]
            del self.other_place.facing[self]

    def vanish(self, reason: str) -> None:
        """End here and tell the other end nothing: the machine is off."""
        if not self.closed:
            self.out.close()
            self._lost(reason)

    async def close(self) -> None:
        self.hang_up()

    def get_remote_peer(self) -> ID:
        assert self.muxer is not None, "asked after the handshake only"
        return self.muxer.peer_id

    def get_remote_address(self) -> tuple[str, int]:
        return self._remote

    def get_transport_addresses(self) -> list[Multiaddr]:
        return [Multiaddr(f"/ip4/{self._remote[0]}/tcp/{self._remote[1]}")]

    def get_connection_type(self) -> ConnectionType:
        return ConnectionType.DIRECT


IRawConnection.register(End)  # so the library knows it; reading bytes, which it has abstract, is what never happens
