"""The library's BasicHost with our stream opening and without its side tasks.

Wrong in 0.8.1: identify runs in Trio *system* tasks, where an exception is a crash of the whole run and which outlive
the host; ``get_addrs`` parses and sorts every address for every gossip message sent.
Delete the first when identify runs in the swarm's nursery, the second when the record is cached by the library.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, cast

import trio
from libp2p.custom_types import StreamHandlerFn, TProtocol
from libp2p.host.basic_host import BasicHost
from libp2p.host.exceptions import StreamFailure
from libp2p.network.stream.net_stream import NetStream
from libp2p.peer.id import ID
from multiaddr import Multiaddr

from transports.libp2p import multistream
from transports.libp2p.connection import Connection
from transports.libp2p.muxed_stream import MuxedStream

if TYPE_CHECKING:
    from transports.libp2p.swarm import Swarm

logger = logging.getLogger(__name__)

STANDING = ("/meshsub/", "/ipfs/ping/")


class LibraryHost(BasicHost):
    """What the library's own protocols (identify, pubsub) see of the node.

    *register* takes their handlers: all streams are negotiated and admitted in one place, transports/host.py.
    """

    def __init__(
        self,
        network: Swarm,
        addresses: Callable[[], Sequence[str]],
        register: Callable[[str, StreamHandlerFn], None],
        negotiation_timeout: float,
    ) -> None:
        self.swarm = network
        self._register = register
        self._timeout = negotiation_timeout
        self._address_text: tuple[str, ...] = ()
        self._addresses: list[Multiaddr] = []
        self._text_addresses = addresses
        super().__init__(network, disable_identify_address_discovery=True)

    def set_stream_handler(self, protocol_id: TProtocol, stream_handler: StreamHandlerFn) -> None:
        self._register(str(protocol_id), stream_handler)

    def get_addrs(self) -> list[Multiaddr]:
        text = tuple(self._text_addresses())
        if text != self._address_text:
            self._address_text, self._addresses = text, [Multiaddr(address) for address in text]
        return self._addresses

    async def new_stream(self, peer_id: ID, protocol_ids: Sequence[TProtocol]) -> NetStream:
        """A negotiated stream for the library's protocols; StreamFailure when there is none."""
        connections = self.swarm.connections.get(peer_id)
        if not connections:
            raise StreamFailure(f"{peer_id} is not connected")
        connection = cast(Connection, connections[-1])
        muxed, protocol = await open_negotiated(connection, [str(p) for p in protocol_ids], self._timeout)
        stream = connection.net_stream(muxed)
        stream.set_protocol(TProtocol(protocol))
        return stream

    def _schedule_identify(self, peer_id: ID, *, reason: str) -> None:
        nursery = self.swarm.background_nursery
        if nursery is not None and peer_id not in self._identify_inflight and peer_id not in self._identified_peers:
            self._identify_inflight.add(peer_id)
            nursery.start_soon(self._identify_contained, peer_id, reason)

    async def _identify_contained(self, peer_id: ID, reason: str) -> None:
        try:
            await self._identify_task_entry(peer_id, reason)
        except Exception as error:  # identify is a courtesy: no peer's answer may matter to us
            logger.debug("identify with %s failed: %r", peer_id, error)


def stands(protocol: str) -> bool:
    """Whether a stream of *protocol* is there for the connection itself, and lasts as long as that may."""
    return protocol.startswith(STANDING)


async def open_negotiated(
    connection: Connection, protocols: Sequence[str], timeout: float, opening: bytes = b""
) -> tuple[MuxedStream, str]:
    """Open a stream on *connection* and agree on one of *protocols*. *opening*: sent with the proposal of a single one.

    Raises StreamFailure with the reason; on any failure, and on a cancel, the stream is reset.
    """
    stream = await connection.muxed_conn.open_stream()
    try:
        with trio.fail_after(timeout):
            protocol = await multistream.propose(stream, protocols, opening)
        stream.standing = stands(protocol)
        return stream, protocol
    except multistream.NegotiationError as error:
        await stream.reset()
        raise StreamFailure(str(error)) from error
    except trio.TooSlowError:
        await stream.reset()
        raise StreamFailure(f"the peer did not answer {protocols[0]} within {timeout:.0f} s") from None
    except BaseException:
        await stream.reset()
        raise
