"""A peer that opens streams and drops them at once: its connection ends, with a reason that says so."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import trio
from libp2p.crypto.ed25519 import create_new_key_pair

from tests.transports.test_yamux import RST, SYN, WINDOW, muxer
from transports.config import HostConfig
from transports.libp2p.connection import Connection
from transports.libp2p.yamux import MAX_SERVED
from transports.peer_id import PeerId


async def test_streams_opened_and_reset_in_one_go(autojump_clock: trio.abc.Clock, nursery: trio.Nursery) -> None:
    async def serve(connection: Connection, stream: Any) -> None:
        await stream.read()

    async def told(connection: Connection) -> None:
        await trio.lowlevel.checkpoint()

    async with muxer() as (mux, raw):
        swarm: Any = SimpleNamespace(
            background_nursery=nursery,
            serve_stream=serve,
            inbound_stream_limit=lambda peer: 8,
            config=HostConfig(),
            remove_conn=lambda connection: None,
            notify_disconnected=told,
        )
        peer = PeerId.from_public_key(create_new_key_pair(bytes(32)).public_key.to_bytes())
        connection = Connection(mux, swarm, "inbound", peer, "/ip4/192.0.2.1/tcp/1")
        connection.trust(True)
        raw.feed(WINDOW, SYN | RST, 1, 0)
        await trio.testing.wait_all_tasks_blocked()
        assert mux.close_reason is None
        burst = b"".join(
            b"\0\1" + (SYN | RST).to_bytes(2, "big") + number.to_bytes(4, "big") + bytes(4)
            for number in range(3, 2 * MAX_SERVED + 9, 2)
        )
        raw._send.send_nowait(burst)
        await trio.testing.wait_all_tasks_blocked()
        assert mux.close_reason is not None
        assert "opened and reset" in mux.close_reason
        assert mux.inbound_count == 0
        assert connection.is_closed
