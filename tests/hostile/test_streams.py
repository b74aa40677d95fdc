"""A peer that opens streams and drops them at once: its connection ends, with a reason that says so."""

from __future__ import annotations

import trio

from tests.transports.test_yamux import RST, SYN, WINDOW, muxer
from transports.libp2p.yamux import ACCEPT_QUEUE


async def test_streams_opened_and_reset_in_one_go(autojump_clock: trio.abc.Clock) -> None:
    async with muxer() as (mux, connection):
        connection.feed(WINDOW, SYN | RST, 1, 0)
        await trio.testing.wait_all_tasks_blocked()
        assert mux.close_reason is None
        burst = b"".join(
            b"\0\1" + (SYN | RST).to_bytes(2, "big") + number.to_bytes(4, "big") + bytes(4)
            for number in range(3, 2 * ACCEPT_QUEUE + 9, 2)
        )
        connection._send.send_nowait(burst)
        await trio.testing.wait_all_tasks_blocked()
        assert mux.close_reason is not None
        assert "opened and reset" in mux.close_reason
        assert mux.inbound_count == 0
