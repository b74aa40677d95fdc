"""From a socket to a connection with streams: the library's upgrader with the given security and our muxer alone."""

from __future__ import annotations

import math

from libp2p.abc import ISecureConn
from libp2p.custom_types import TMuxerOptions, TSecurityOptions
from libp2p.peer.id import ID
from libp2p.stream_muxer.muxer_multistream import MuxerMultistream
from libp2p.stream_muxer.yamux.yamux import PROTOCOL_ID
from libp2p.transport.upgrader import TransportUpgrader

from transports.libp2p.yamux import Yamux


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
