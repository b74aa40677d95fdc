"""Letting go of connections: who goes, who stays, and what both sides make of it."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import cast

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from tests.transports.support import echo, seed
from transports.config import HostConfig
from transports.host import Host, open_host
from transports.libp2p.connection import Connection
from transports.libp2p.trim import surplus
from transports.memory import Link, open_network, same_everywhere
from transports.peer_id import PeerId

CONFIG = HostConfig(high_water=4, low_water=2, grace=10.0)
NOW = 100.0


@dataclass
class Some:
    """A connection, as far as the choice looks at it."""

    name: str
    opened_at: float = 0.0
    inbound: bool = True
    idle: bool = True

    @property
    def peer(self) -> PeerId:
        return PeerId.from_public_key(self.name.encode().ljust(32))


def chosen(*connections: Some, grafted: str = "") -> str:
    found = surplus(
        cast(Sequence[Connection], connections), CONFIG, lambda peer: chr(peer.public_key[0]) in grafted, NOW
    )
    return "".join(cast(Some, connection).name for connection in found)


@pytest.mark.parametrize(
    ("connections", "grafted", "expected"),
    [
        ([Some(name) for name in "abcd"], "", ""),  # as many as there may be
        ([Some(name) for name in "abcde"], "", "abc"),  # down to the low mark
        ([Some("a", 9.0), Some("b", 3.0), *map(Some, "cde")], "cde", "ba"),  # the oldest first
        ([Some("a", inbound=False), Some("b", 50.0), *map(Some, "cde")], "cde", "ba"),  # those that the peers made
        ([Some("a", 95.0), Some("b", 90.0), *map(Some, "cde")], "cde", "b"),  # the youngest not at all
        ([Some("a", idle=False), *map(Some, "bcde")], "", "bcd"),
        ([Some(name, idle=False) for name in "abcdefgh"], "", ""),
    ],
)
def test_who_is_let_go(connections: list[Some], grafted: str, expected: str) -> None:
    assert chosen(*connections, grafted=grafted) == expected


@asynccontextmanager
async def hub_and(count: int, config: HostConfig) -> AsyncIterator[tuple[Host, list[Host]]]:
    """A host with *config* and *count* others that have admitted each other and are connected to it."""
    async with AsyncExitStack() as stack:
        links = same_everywhere(Link(0.01))
        network = await stack.enter_async_context(open_network(links, random.Random(1).random))
        hub = await stack.enter_async_context(open_host(config, seed(1), network))
        plain = HostConfig(listen=config.listen)
        others = [await stack.enter_async_context(open_host(plain, seed(n + 2), network)) for n in range(count)]
        for host in (hub, *others):
            host.handle("/echo", echo)
            for other in (hub, *others):
                host.admit(other.peer_id)
        for host in others:
            await host.connect(hub.peer_id, hub.addresses)
        yield hub, others


LISTEN = ("/ip4/0.0.0.0/tcp/4001",)
SMALL = HostConfig(listen=LISTEN, high_water=4, low_water=2, grace=5.0)


async def test_both_sides_hear_that_nobody_failed(autojump_clock: MockClock) -> None:
    async with hub_and(6, SMALL) as (hub, others):
        heard: list[str] = []

        def note(word: str) -> None:
            heard.append(word)

        for host in others:
            host.add_listener(lambda peer: None, lambda peer: note("lost"), lambda peer: note("released"))
        hub.add_listener(lambda peer: None, lambda peer: note("lost here"), lambda peer: note("released here"))
        await trio.sleep(4)
        assert not heard  # they are young
        await trio.sleep(4)
        assert sorted(heard) == ["released"] * 4 + ["released here"] * 4
        assert hub.degree == 2
        assert [host.is_connected(hub.peer_id) for host in others] == [False] * 4 + [True] * 2


async def test_whoever_hears_the_end_of_a_connection_by_default_hears_this_one(autojump_clock: MockClock) -> None:
    async with hub_and(6, SMALL) as (_, others):
        heard: list[PeerId] = []
        others[0].add_listener(lambda peer: None, heard.append)
        await trio.sleep(10)
        assert len(heard) == 1


async def test_a_connection_in_use_stays_and_one_that_answers_pings_does_not(autojump_clock: MockClock) -> None:
    async with hub_and(6, SMALL) as (hub, others):
        used, pinged = others[0], others[1]
        stream = await used.open_stream(hub.peer_id, "/echo")
        await stream.write(b"still there?")
        await pinged.ping(hub.peer_id)
        await trio.sleep(10)
        assert used.is_connected(hub.peer_id)
        assert not pinged.is_connected(hub.peer_id)
        await stream.close()
        assert await stream.read(100) == b"still there?"


@pytest.mark.parametrize("order", range(10))  # in which tasks hear of the end is drawn anew each time
async def test_a_stream_that_crosses_the_release_finds_a_new_connection(order: int, autojump_clock: MockClock) -> None:
    """Nothing was heard of it on the other side, so it is safe to ask once more."""
    async with hub_and(1, SMALL) as (hub, (other,)), trio.open_nursery() as nursery:
        nursery.start_soon(hub._connections_to(other.peer_id)[0].release)
        await trio.testing.wait_all_tasks_blocked()
        assert not hub.is_connected(other.peer_id)
        assert other.is_connected(hub.peer_id)  # the word is under way
        stream = await other.open_stream(hub.peer_id, "/echo")
        await stream.write(b"and yet")
        assert await stream.read(100) == b"and yet"
        await stream.reset()


async def test_over_sockets() -> None:
    """The word that nobody failed goes out before the socket closes."""
    config = HostConfig(high_water=3, low_water=1, grace=0.0)
    async with AsyncExitStack() as stack:
        hub = await stack.enter_async_context(open_host(config, seed(1)))
        released, lost = trio.open_memory_channel[PeerId](10), list[PeerId]()
        for number in range(4):
            other = await stack.enter_async_context(open_host(HostConfig(), seed(number + 2)))
            other.add_listener(lambda peer: None, lost.append, released[0].send_nowait)
            hub.admit(other.peer_id)
            other.admit(hub.peer_id)
            await other.connect(hub.peer_id, hub.addresses)
        with trio.fail_after(10):
            for _ in range(3):
                await released[1].receive()
        assert (hub.degree, lost) == (1, [])
