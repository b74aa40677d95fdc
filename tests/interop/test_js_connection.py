"""Our host and js-libp2p: connecting, ping, identify, streams of every size, and their ends."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from tests.interop.js_peer import Dialler, JsError, JsPeer, Security, Transport, js_peer, meet
from tests.transports.support import echo, eventually, seed
from transports.config import HostConfig
from transports.errors import PeerUnreachable
from transports.host import Host, open_host
from transports.peer_id import PeerId
from transports.ping import PING
from transports.stream import Stream, StreamClosed

pytestmark = pytest.mark.e2e

LISTEN = HostConfig(
    listen=("/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/tcp/0/ws"),
    dial_timeout=5, handshake_timeout=5, negotiation_timeout=5,
)
DIALLERS: tuple[Dialler, ...] = ("js", "we")
TRANSPORTS: tuple[Transport, ...] = ("tcp", "ws")
WAYS = list(itertools.product(DIALLERS, TRANSPORTS))
SIZES = (1, 200, 1024**2, 8 * 1024**2)


@asynccontextmanager
async def both(
    folder: Path, dialler: Dialler, transport: Transport = "tcp", security: Security = "noise", *, admitted: bool = True
) -> AsyncIterator[tuple[Host, JsPeer]]:
    """A host and a js peer, connected; the host serves /echo."""
    async with js_peer(folder, security) as js, open_host(LISTEN, seed(1)) as host:
        if admitted:
            host.admit(js.peer_id)
        host.handle("/echo", echo)
        await meet(host, js, dialler, transport)
        yield host, js


async def read_all(stream: Stream) -> bytes:
    chunks = []
    while data := await stream.read(65536):
        chunks.append(data)
    return b"".join(chunks)


async def exchange(host: Host, peer: PeerId, protocol: str, data: bytes) -> bytes:
    """Send *data* and close our side, reading meanwhile; what the peer sent until it closed its own."""
    stream = await host.open_stream(peer, protocol)

    async def send() -> None:
        await stream.write(data)
        await stream.close()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        return await read_all(stream)
    raise AssertionError


@pytest.mark.parametrize("security", ["noise", "tls"])
@pytest.mark.parametrize(("dialler", "transport"), WAYS)
async def test_they_connect_ping_and_identify(
    js_folder: Path, dialler: Dialler, transport: Transport, security: Security
) -> None:
    async with both(js_folder, dialler, transport, security) as (host, js):
        me = str(host.peer_id)
        (connection,) = await js.call("connections")
        assert connection["peer"] == me
        assert connection["encryption"] == {"noise": "/noise", "tls": "/tls/1.0.0"}[security]
        assert connection["muxer"] == "/yamux/1.0.0"
        info = host.connections()[js.peer_id]
        assert info.inbound == (dialler == "js")

        assert 0 < await host.ping(js.peer_id) < 5
        assert await js.call("ping", peer=me) < 5000

        identified = await js.event("identified", peer=me)
        assert {PING, "/echo", "/meshsub/1.2.0"} <= set(identified["protocols"])
        assert {f"{address}/p2p/{me}" for address in identified["addresses"]} == set(host.addresses)


async def test_ping_after_js_has_ended_the_idle_stream(js_folder: Path) -> None:
    """It resets a ping stream after its timeout, used or not; that is no sign of a lost peer."""
    async with both(js_folder, "js") as (host, js):
        await host.ping(js.peer_id)
        await eventually(lambda: host.statistics().streams == 1)  # js keeps its gossip stream
        await trio.sleep(1.2)  # its timeout in peer.mjs
        assert 0 < await host.ping(js.peer_id) < 5
        assert len(js.said("disconnected")) == 0


@pytest.mark.parametrize(("dialler", "transport"), WAYS)
async def test_echo_of_every_size_both_ways(js_folder: Path, dialler: Dialler, transport: Transport) -> None:
    async with both(js_folder, dialler, transport) as (host, js):
        for size in SIZES:
            with trio.fail_after(20):
                assert await js.call("echo", peer=str(host.peer_id), protocol="/echo", size=size)
                data = hashlib.shake_128(b"data").digest(size)
                assert await exchange(host, js.peer_id, "/interop/echo", data) == data


@pytest.mark.parametrize("dialler", DIALLERS)
async def test_a_hundred_streams_at_a_time(js_folder: Path, dialler: Dialler) -> None:
    async with both(js_folder, dialler) as (host, js):
        whole: list[bool] = []

        async def one(number: int) -> None:
            data = b"%d" % number * 5000
            whole.append(await exchange(host, js.peer_id, "/interop/echo", data) == data)

        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                for number in range(100):
                    nursery.start_soon(one, number)
        assert whole == [True] * 100
        assert await js.call("echoes", peer=str(host.peer_id), protocol="/echo", size=20_000, count=100) == 100
        await eventually(lambda: host.statistics().streams <= 3)


async def test_half_close(js_folder: Path) -> None:
    """The answer is written after the question's side has ended, so each side must keep its other half."""

    async def digest(stream: Stream) -> None:
        await stream.write(hashlib.sha256(await read_all(stream)).digest())

    async with both(js_folder, "we") as (host, js):
        host.handle("/digest", digest)
        expected = hashlib.sha256(b"question").digest()
        assert await js.call("send", peer=str(host.peer_id), protocol="/digest", data="question") == expected.hex()
        assert await exchange(host, js.peer_id, "/interop/digest", b"question") == expected
        assert await exchange(host, js.peer_id, "/interop/digest", b"") == hashlib.sha256(b"").digest()


@pytest.mark.parametrize("dialler", DIALLERS)
async def test_a_reset_is_seen_on_the_other_side(js_folder: Path, dialler: Dialler) -> None:
    ended: list[str] = []

    async def hold(stream: Stream) -> None:
        await stream.write(await stream.read(1))
        try:
            await read_all(stream)
            ended.append("closed")
        except StreamClosed as error:
            ended.append(str(error))
            raise

    async def reset(stream: Stream) -> None:
        await stream.read(1)
        await stream.reset()

    async with both(js_folder, dialler) as (host, js):
        host.handle("/hold", hold)
        host.handle("/reset", reset)
        await js.call("abort", peer=str(host.peer_id), protocol="/hold")
        await eventually(lambda: ended == ["the peer reset the stream"])

        with pytest.raises(JsError, match="reset"):
            await js.call("read", peer=str(host.peer_id), protocol="/reset")

        stream = await host.open_stream(js.peer_id, "/interop/hold")
        await stream.write(b"x")
        assert await stream.read(1) == b"x"
        await stream.reset()
        assert (await js.event("hold ended"))["status"] == "reset"

        stream = await host.open_stream(js.peer_id, "/interop/reset")
        await stream.write(b"x")
        with pytest.raises(StreamClosed, match="the peer reset the stream"):
            await stream.read(1)


@pytest.mark.parametrize(("dialler", "transport"), WAYS)
async def test_either_side_closes_the_connection(js_folder: Path, dialler: Dialler, transport: Transport) -> None:
    heard: list[str] = []
    async with both(js_folder, dialler, transport) as (host, js):
        host.add_listener(lambda peer: heard.append("connected"), lambda peer: heard.append("disconnected"))
        stream = await host.open_stream(js.peer_id, "/interop/hold")
        await js.call("hangUp", peer=str(host.peer_id))
        await eventually(lambda: heard == ["disconnected"])
        with pytest.raises(StreamClosed):
            await stream.read(1)
        assert not host.connections()

        await meet(host, js, dialler, transport)
        await js.call("ping", peer=str(host.peer_id))
        before = len(js.said("disconnected"))
        await host.disconnect(js.peer_id)
        await eventually(lambda: len(js.said("disconnected")) == before + 1)
        assert heard == ["disconnected", "connected", "disconnected"]


async def test_a_stranger_has_public_protocols_only(js_folder: Path) -> None:
    async with both(js_folder, "js", admitted=False) as (host, js):
        me = str(host.peer_id)
        host.handle("/public", echo, public=True)
        assert await js.call("echo", peer=me, protocol="/public", size=200)
        assert await js.call("ping", peer=me) < 5000
        with pytest.raises(JsError, match="StreamResetError"):
            await js.call("echo", peer=me, protocol="/echo", size=200)
        host.admit(js.peer_id)
        assert await js.call("echo", peer=me, protocol="/echo", size=200)


async def test_a_protocol_that_nobody_speaks(js_folder: Path) -> None:
    async with both(js_folder, "js") as (host, js):
        with pytest.raises(JsError, match="UnsupportedProtocolError"):
            await js.call("echo", peer=str(host.peer_id), protocol="/nobody", size=1)
        with pytest.raises(PeerUnreachable, match="speaks none of /nobody"):
            await host.open_stream(js.peer_id, "/nobody")
