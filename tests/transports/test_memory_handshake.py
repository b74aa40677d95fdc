"""The modelled handshake takes as many round trips as the real one, which is counted here over a delaying proxy."""

from __future__ import annotations

from functools import partial

import trio

from tests.transports.support import hosts
from transports.addresses import parse
from transports.memory.connection import HANDSHAKE_ROUND_TRIPS, HANDSHAKE_SIZE

DELAY = 0.1


async def forward(source: trio.SocketStream, sink: trio.SocketStream, counted: list[int]) -> None:
    """Each piece DELAY seconds later."""
    send, receive = trio.open_memory_channel[tuple[float, bytes]](1000)

    async def late() -> None:
        async for due, data in receive:
            await trio.sleep_until(due)
            await sink.send_all(data)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(late)
        async for data in source:
            counted[0] += len(data)
            await send.send((trio.current_time() + DELAY, bytes(data)))


async def test_round_trips_and_bytes_of_the_real_handshake() -> None:
    async with hosts(2) as (a, b), trio.open_nursery() as nursery:
        target = parse(b.addresses[0])
        there, back = [0], [0]

        async def serve(near: trio.SocketStream) -> None:
            far = await trio.open_tcp_stream(target.host, target.port)
            async with near, far, trio.open_nursery() as ways:
                ways.start_soon(forward, near, far, there)
                ways.start_soon(forward, far, near, back)

        listeners = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        port = listeners[0].socket.getsockname()[1]
        started = trio.current_time()
        await a.connect(b.peer_id, (f"/ip4/127.0.0.1/tcp/{port}",))
        elapsed = trio.current_time() - started
        nursery.cancel_scope.cancel()
    round_trips = elapsed / (2 * DELAY)
    assert HANDSHAKE_ROUND_TRIPS <= round_trips < HANDSHAKE_ROUND_TRIPS + 1  # what is above it is the CPU's
    assert 0.7 * HANDSHAKE_SIZE < max(there[0], back[0]) < 1.5 * HANDSHAKE_SIZE
