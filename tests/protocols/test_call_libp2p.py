"""The call protocol over real libp2p hosts on loopback: what memory streams cannot show."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
import trio

from protocols.call.client import CallClient
from protocols.call.errors import CallError, Code
from protocols.call.messages import PROTOCOL, IncomingCall
from protocols.call.server import CallServer, Emit
from tests.protocols.calls import CARD
from transports.config import HostConfig
from transports.host import Host, open_host

pytestmark = pytest.mark.e2e


async def handler(call: IncomingCall, emit: Emit) -> bytes:
    if call.tool == "wait":
        await trio.sleep_forever()
    if call.tool == "stream":
        while True:
            await emit(b"x" * 20_000)
    return call.args


@dataclass
class Line:
    caller: Host
    callee: Host
    client: CallClient
    server: CallServer


@asynccontextmanager
async def line() -> AsyncIterator[Line]:
    async with open_host(HostConfig(), b"1" * 32) as caller, open_host(HostConfig(), b"2" * 32) as callee:
        server = CallServer(handler)
        callee.handle(PROTOCOL, server.serve)
        callee.admit(caller.peer_id)
        caller.admit(callee.peer_id)
        await caller.connect(callee.peer_id, callee.addresses)
        client = CallClient(lambda peer: caller.open_stream(peer, PROTOCOL))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.run)
            yield Line(caller, callee, client, server)
            nursery.cancel_scope.cancel()


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - there is no event for what the other end of a socket has done
        await trio.sleep(0.01)


async def test_two_hundred_cancelled_calls_leave_the_connection_usable() -> None:
    async with line() as joined:
        callee = joined.callee.peer_id
        with trio.fail_after(30):
            for i in range(200):
                with trio.move_on_after(0.0005 * (i % 8)):
                    await joined.client.request(callee, CARD, ("stream", "wait")[i % 2], b"y" * (i * 400))
            assert await joined.client.request(callee, CARD, "echo", b"still here") == b"still here"
            await until(lambda: joined.server.statistics().calls == 0)  # the last cancels are on their way
        assert joined.client.statistics().streams_lost == 0
        assert joined.client.statistics().streams_opened <= 5
        assert joined.caller.statistics().connections == 1
        assert joined.server.statistics().args_bytes == 0


async def test_large_arguments_do_not_hold_up_small_calls() -> None:
    async with line() as joined:
        callee = joined.callee.peer_id
        large = bytes(range(256)) * 4 * 8192  # 8 MiB
        done: list[str] = []

        async def one(name: str, args: bytes) -> None:
            assert await joined.client.request(callee, CARD, "echo", args) == args
            done.append(name)

        with trio.fail_after(30):
            await one("first", b"")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(one, "large", large)
                await trio.sleep(0.005)
                nursery.start_soon(one, "small", b"x")
        assert done == ["first", "small", "large"]


async def test_a_lost_connection_ends_both_sides_of_a_call() -> None:
    async with line() as joined:
        callee = joined.callee.peer_id
        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:

                async def lose() -> None:
                    await until(lambda: joined.server.statistics().calls == 1)
                    await joined.caller.disconnect(callee)

                nursery.start_soon(lose)
                with pytest.raises(CallError) as failed:
                    await joined.client.request(callee, CARD, "wait", b"")
            assert failed.value.code is Code.UNKNOWN_OUTCOME
            await until(lambda: joined.server.statistics().calls == 0)
            assert await joined.client.request(callee, CARD, "echo", b"again") == b"again"  # dials again


async def test_a_peer_that_is_not_admitted_is_not_served() -> None:
    async with line() as joined:
        joined.callee.expel(joined.caller.peer_id)
        with trio.fail_after(10), pytest.raises(CallError) as failed:
            await joined.client.request(joined.callee.peer_id, CARD, "echo", b"x", deadline_s=5)
        assert failed.value.code in (Code.UNAVAILABLE, Code.UNKNOWN_OUTCOME)
        assert joined.server.statistics().served == 0
