"""From a socket to a connection with streams: the library's upgrader with the given security and our muxer alone."""

from __future__ import annotations

import math
from collections.abc import Sequence

from libp2p.abc import IMultiselectCommunicator, ISecureConn
from libp2p.custom_types import TMuxerOptions, TProtocol, TSecurityOptions
from libp2p.peer.id import ID
from libp2p.protocol_muxer.multiselect_client import (
    DEFAULT_NEGOTIATE_TIMEOUT,
    MULTISELECT_PROTOCOL_ID,
    MultiselectClient,
)
from libp2p.stream_muxer.muxer_multistream import MuxerMultistream
from libp2p.stream_muxer.yamux.yamux import PROTOCOL_ID
from libp2p.transport.upgrader import TransportUpgrader

from transports.libp2p.yamux import Yamux


class _Ahead(IMultiselectCommunicator):
    """Lets the first proposal leave with the header; when its turn comes it has been sent."""

    def __init__(self, communicator: IMultiselectCommunicator, first: str) -> None:
        self._communicator = communicator
        self._first: str | None = first

    async def write(self, msg_str: str) -> None:
        if msg_str == self._first:
            self._first = None
            return
        await self._communicator.write(msg_str)
        if msg_str == MULTISELECT_PROTOCOL_ID and self._first is not None:
            await self._communicator.write(self._first)

    async def read(self) -> str:
        return await self._communicator.read()


class OneFlightClient(MultiselectClient):
    """Slow in 0.8.1: header and proposal take a round trip each. Together they take one, as in go-libp2p."""

    async def select_one_of(
        self,
        protocols: Sequence[TProtocol],
        communicator: IMultiselectCommunicator,
        negotiate_timeout: int = DEFAULT_NEGOTIATE_TIMEOUT,
    ) -> TProtocol:
        ahead = _Ahead(communicator, str(protocols[0]))
        return await super().select_one_of(protocols, ahead, negotiate_timeout)


class YamuxMultistream(MuxerMultistream):
    """Wrong in 0.8.1: ``new_conn`` builds the library's own Yamux whatever class was registered."""

    async def new_conn(self, conn: ISecureConn, peer_id: ID) -> Yamux:
        await self._selector.select(conn, conn.is_initiator, self.negotiate_timeout)
        return Yamux(conn, peer_id)


class Upgrader(TransportUpgrader):
    """The library's upgrader with the given security protocols and our Yamux alone."""

    def __init__(self, security: TSecurityOptions, negotiate_timeout: float) -> None:
        muxers: TMuxerOptions = {PROTOCOL_ID: Yamux}  # type: ignore[dict-item]  # the key is a NewType of str
        seconds = math.ceil(negotiate_timeout)  # the library takes whole ones; the swarm's own limit is exact
        super().__init__(security, muxers, seconds)
        self.muxer_multistream = YamuxMultistream(muxers, seconds)
        for layer in (self.security_multistream, self.muxer_multistream):
            layer._selector.multiselect_client = OneFlightClient()
