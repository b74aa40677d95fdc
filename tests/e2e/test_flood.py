"""A thousand strangers and a join flood against one node: members notice next to nothing.

The node is a real process; the member is a real host with a membership in this one; the strangers come from addresses
of their own, out of a third process that runs niced, so that a machine with two cores measures the node and not the
generator.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

import psutil
import pytest
import trio

from atmosphere.env import SystemEnv
from atmosphere.identity.home import Keyring
from protocols.call.client import CallClient
from protocols.call.messages import PROTOCOL as CALL
from protocols.sync.messages import PROTOCOL as SYNC
from protocols.sync.messages import Hello
from protocols.sync.session import open_session
from tests.processes import Node, command, environment, invite, nodes
from transports.addresses import split_peer
from transports.config import HostConfig
from transports.host import Host, open_host
from transports.peer_id import PeerId

pytestmark = pytest.mark.e2e

CALLS = 800
PAUSE_S = 0.01
"""Between calls: a hundred per second is a busy member."""
ATTEMPTS = 3
"""The machine has other work, too: the best of these counts, each with its own quiet measurement."""
RSS_MB = 64
"""Growth that a node is allowed: 64 strangers of 60 kB, half-open handshakes, allocator slack."""


@dataclass(frozen=True)
class Latency:
    """Of calls, in milliseconds."""

    p50: float
    p99: float
    worst: float

    @classmethod
    def of(cls, seconds: list[float]) -> Latency:
        ordered = sorted(second * 1000 for second in seconds)
        return cls(ordered[len(ordered) // 2], ordered[math.ceil(len(ordered) * 0.99) - 1], ordered[-1])

    def __str__(self) -> str:
        return f"p50 {self.p50:.1f} ms, p99 {self.p99:.1f} ms, worst {self.worst:.1f} ms"


@dataclass(frozen=True)
class Member:
    """A host that the node has admitted, and what it calls."""

    host: Host
    peer: PeerId
    card: bytes
    client: CallClient
    hello: Hello

    async def greet(self) -> None:
        stream = await self.host.open_stream(self.peer, SYNC)
        session = await open_session(stream, self.hello, lambda peer, hello: self.host.admit(peer))
        await session.aclose()

    async def measure(self) -> Latency:
        seconds = []
        for _ in range(CALLS):
            began = time.perf_counter()
            await self.client.request(self.peer, self.card, "check", b"{}", deadline_s=10)
            seconds.append(time.perf_counter() - began)
            await trio.sleep(PAUSE_S)
        return Latency.of(seconds)


@asynccontextmanager
async def member(node: Node, text: str) -> AsyncIterator[Member]:
    """A member of *node*'s mesh, connected to it and admitted."""
    env = SystemEnv()
    home = node.home.with_name("member")
    await trio.to_thread.run_sync(command, home, "join", text, "--name", "member")
    keyring = Keyring(home)
    identity = keyring.load()
    (me,) = node.get("/v1/mesh/nodes")["nodes"]
    (card,) = [bytes.fromhex(item["id"]) for item in me["capabilities"] if item["type"] == "system/health"]
    peer, address = address_of(node)
    hello = Hello(identity.mesh, identity.chain, bytes(32), "member", int(env.now() * 1000))
    async with open_host(HostConfig(listen=()), keyring.node_seed(env.token_bytes)) as host, trio.open_nursery() as n:
        await host.connect(peer, [address])
        client = CallClient(lambda to: host.open_stream(to, CALL))
        n.start_soon(client.run)
        here = Member(host, peer, card, client, hello)
        await here.greet()
        yield here
        n.cancel_scope.cancel()


def address_of(node: Node) -> tuple[PeerId, str]:
    return split_peer(json.loads(node.command("status", "--json"))["me"]["addresses"][0])


@contextmanager
def strangers(node: Node, text: str, seconds: float) -> Iterator[subprocess.Popen[str]]:
    """The flood, as a process; started when the block begins, ended with it."""
    peer, address = address_of(node)
    words = ["nice", "-n", "10", sys.executable, "-m", "tests.e2e.strangers", f"{address}/p2p/{peer}", text]
    process = subprocess.Popen([*words, str(seconds)], stdout=subprocess.PIPE, text=True, env=environment())
    with process:
        try:
            yield process
        finally:
            process.kill()


async def lines(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return await trio.to_thread.run_sync(process.stdout.readline)


async def test_a_thousand_strangers_and_a_join_flood_do_not_slow_members_down() -> None:
    with nodes() as group:
        node = await trio.to_thread.run_sync(lambda: group.start("A", options=("--no-probe",)))
        spent = invite(node)
        async with member(node, spent) as here:
            await here.measure()  # warm
            told = []
            for _ in range(ATTEMPTS):
                fine, text = await attempt(node, here, spent)
                told.append(text)
                print(text)
                if fine:
                    return
    pytest.fail("\n".join(told))


async def attempt(node: Node, here: Member, spent: str) -> tuple[bool, str]:
    """One quiet and one flooded measurement, a reconnect under fire, and whether all is within its bound."""
    process = psutil.Process(node.process.pid)
    quiet = await here.measure()
    before = process.memory_info().rss / 1e6
    with strangers(node, spent, seconds=CALLS * PAUSE_S * 3) as flood:
        assert await lines(flood) == "flooding\n"
        await trio.sleep(1)
        flooded = await here.measure()
        await here.host.disconnect(here.peer)
        began = time.perf_counter()
        await here.host.connect(here.peer, ())
        await here.greet()
        await here.client.request(here.peer, here.card, "check", b"{}", deadline_s=10)
        again = (time.perf_counter() - began) * 1000
        growth = process.memory_info().rss / 1e6 - before
        seen: dict[str, Any] = json.loads(await lines(flood))
    bound = max(2 * quiet.p99, quiet.p99 + 20)
    text = (
        f"quiet:   {quiet}\nflooded: {flooded}; bound of p99 {bound:.1f} ms\n"
        f"reconnect and first call under fire: {again:.0f} ms\n"
        f"node: {before:.0f} MB, grew by {growth:.1f} MB (bound {RSS_MB})\nstrangers: {seen}"
    )
    assert seen["connections"] > 1000, text
    assert seen.get("handshakes", 0) > 0, text
    assert not any(kind in seen for kind in ("join: Enrolled", "join: Pending")), text
    return flooded.p99 <= bound and growth < RSS_MB and again < 1000, text
