"""What the transports know about a peer that may have failed: refused or silent, and when it was last heard."""

from __future__ import annotations

import math
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from functools import partial

import pytest
import trio

from tests.transports.support import CONFIG, connect, echo, eventually, hosts
from transports.errors import PeerUnreachable
from transports.host import Host
from transports.peer_id import PeerId

NOBODY = PeerId.from_public_key(bytes(32))
CHILD = """
import trio
from transports.config import HostConfig
from transports.host import open_host

async def main():
    listen = ("/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/tcp/0/ws")
    async with open_host(HostConfig(listen=listen), bytes([9]) * 32) as host:
        print(*host.addresses, flush=True)
        await trio.sleep_forever()

trio.run(main)
"""


@asynccontextmanager
async def child() -> AsyncIterator[tuple[trio.Process, list[str]]]:
    """A host in a process of its own, and its addresses: TCP, WebSocket."""
    process = await trio.lowlevel.open_process([sys.executable, "-c", CHILD], stdout=subprocess.PIPE)
    try:
        line = b""
        assert process.stdout is not None
        with trio.fail_after(20):
            while not line.endswith(b"\n"):
                line += await process.stdout.receive_some()
        yield process, line.decode().split()
    finally:
        process.kill()
        await process.wait()
        if process.stdout is not None:
            await process.stdout.aclose()


def peer_of(address: str) -> PeerId:
    return PeerId.parse(address.rpartition("/")[2])


async def why(host: Host, peer: PeerId, *addresses: str, timeout_s: float | None = None) -> PeerUnreachable:
    with pytest.raises(PeerUnreachable) as raised:
        await host.connect(peer, addresses, timeout_s=timeout_s)
    return raised.value


async def test_the_addresses_of_a_killed_process_refuse() -> None:
    async with hosts(1) as (host,), child() as (process, addresses):
        peer = peer_of(addresses[0])
        lost = trio.Event()
        host.add_listener(lambda peer: None, lambda peer: lost.set())
        await host.connect(peer, addresses)
        process.kill()
        with trio.fail_after(2):
            await lost.wait()
        await process.wait()
        for dialled in (addresses[:1], addresses[1:], addresses):
            error = await why(host, peer, *dialled)
            assert error.refused, error
            assert "Connection refused" in str(error)
        assert host.heard(peer) == -math.inf


async def test_the_addresses_of_a_stopped_process_do_not_refuse() -> None:
    """SIGSTOP: the kernel still takes connections, and nothing answers on them."""
    async with hosts(1) as (host,), child() as (process, addresses):
        process.send_signal(signal.SIGSTOP)
        for address in addresses:
            started = trio.current_time()
            error = await why(host, peer_of(address), address, timeout_s=0.5)
            assert not error.refused
            assert trio.current_time() - started < 1.5
            assert "within 0.5 s" in str(error)


@contextmanager
def tcp_socket(*, listening: bool) -> Iterator[tuple[socket.socket, str]]:
    """A bound socket and its multiaddr. One that does not listen makes the kernel refuse."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        if listening:
            sock.listen()
        sock.setblocking(False)
        yield sock, f"/ip4/127.0.0.1/tcp/{sock.getsockname()[1]}"


async def test_one_silent_address_among_refusing_ones_is_silence() -> None:
    async with hosts(1, replace(CONFIG, dial_timeout=0.5)) as (host,):
        with tcp_socket(listening=False) as (_, refusing), tcp_socket(listening=True) as (_, silent):
            assert (await why(host, NOBODY, refusing)).refused
            assert not (await why(host, NOBODY, refusing, silent)).refused
            other = PeerId.from_public_key(bytes([1]) * 32)
            assert not (await why(host, other, silent)).refused


async def test_a_connection_that_is_taken_and_dropped_is_not_refused() -> None:
    """A node in a flood does that to dialers that it cannot tell from strangers: it is alive."""
    async with hosts(1) as (host,), trio.open_nursery() as nursery:
        with tcp_socket(listening=True) as (sock, address):

            async def drop() -> None:
                taken, _ = await trio.socket.from_stdlib_socket(sock).accept()
                taken.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # RST, no FIN
                taken.close()

            nursery.start_soon(drop)
            assert not (await why(host, NOBODY, address)).refused


@pytest.mark.parametrize(
    "addresses", [(), ("/ip4/0.0.0.0/tcp/1",), ("/nonsense",)], ids=["none", "wildcard", "nonsense"]
)
async def test_what_cannot_be_dialled_is_not_refused(addresses: tuple[str, ...]) -> None:
    async with hosts(1) as (host,):
        assert not (await why(host, NOBODY, *addresses)).refused


async def test_a_limited_connect_does_not_wait_longer_for_somebody_elses_dial() -> None:
    async with hosts(1) as (host,), trio.open_nursery() as nursery:
        with tcp_socket(listening=True) as (_, silent):
            nursery.start_soon(partial(why, host, NOBODY, silent, timeout_s=1.5))
            await trio.lowlevel.checkpoint()
            started = trio.current_time()
            assert not (await why(host, NOBODY, silent, timeout_s=0.3)).refused
            assert trio.current_time() - started < 1.0


async def test_every_byte_of_a_peer_is_heard() -> None:
    async with hosts(2) as (host, other):
        assert host.heard(other.peer_id) == -math.inf
        other.handle("/echo", echo)
        before = trio.current_time()
        await connect(host, other)
        assert before <= host.heard(other.peer_id) <= trio.current_time()
        stream = await host.open_stream(other.peer_id, "/echo")
        await trio.sleep(0.2)  # identify and the like are over
        quiet_since = host.heard(other.peer_id)
        assert quiet_since < trio.current_time() - 0.05, "silence is not heard"
        await stream.write(b"x")
        assert await stream.read(1) == b"x"
        assert host.heard(other.peer_id) > quiet_since
        await host.disconnect(other.peer_id)
        assert host.heard(other.peer_id) == -math.inf


async def test_what_we_say_ourselves_is_not_heard() -> None:
    async with hosts(1) as (host,), child() as (process, addresses):
        peer = peer_of(addresses[0])
        await host.connect(peer, addresses)
        stream = await host.open_stream(peer, "/ipfs/ping/1.0.0")
        await trio.sleep(0.3)
        process.send_signal(signal.SIGSTOP)
        await trio.sleep(0.1)
        quiet_since = host.heard(peer)
        for _ in range(5):
            await stream.write(bytes(32))
            await trio.sleep(0.02)
        assert host.heard(peer) == quiet_since
        process.send_signal(signal.SIGCONT)
        await eventually(lambda: host.heard(peer) > quiet_since)
