"""WebSockets that give their socket back.

Wrong in 0.8.1: when the peer says goodbye first, ``close`` on a connection that we dialled does nothing, and the socket
stays open until the garbage collector comes by. Delete when test_library_bugs.py shows it closed on the bare library.
"""

from __future__ import annotations

import ssl
from typing import cast

import trio
from libp2p.transport.websocket.connection import P2PWebSocketConnection
from libp2p.transport.websocket.multiaddr_utils import ParsedWebSocketMultiaddr
from libp2p.transport.websocket.transport import WebsocketTransport


class DialledWebSocket(P2PWebSocketConnection):
    """The library's, whose ``close`` always closes the socket."""

    async def close(self) -> None:
        try:
            await super().close()
        finally:
            await trio.aclose_forcefully(cast(trio.abc.AsyncResource, self._ws_connection._stream))


class WebSocket(WebsocketTransport):
    """The library's transport, dialling :class:`DialledWebSocket`."""

    async def _create_direct_connection(
        self, proto_info: ParsedWebSocketMultiaddr, ssl_context: ssl.SSLContext | None
    ) -> P2PWebSocketConnection:
        made = await super()._create_direct_connection(proto_info, ssl_context)
        return DialledWebSocket(made._ws_connection, is_secure=proto_info.is_wss)
