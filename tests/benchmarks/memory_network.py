"""What hosts cost over the memory network, and over TCP: ``python -m tests.benchmarks.memory_network``.

Of a mesh of hosts without nodes on top, each with four dials: CPU, resident memory and tasks of a host and of a link
(both ends, identify included), the CPU of a ping, and of a small message in bulk. TCP is loopback with Noise; each has
a fresh process, in the same minute. The memory network runs in virtual time, with links of 20 to 100 ms.
"""

from __future__ import annotations

import gc
import logging
import os
import random
import time
from collections.abc import AsyncIterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import trio
from trio.testing import MockClock

from tests.transports.support import eventually, seed
from transports.config import HostConfig
from transports.host import Host, open_host
from transports.memory import MemoryNetwork, latencies_between, open_network
from transports.stream import Stream

HOSTS = 60
DIALS = 4
PINGS = 2000
MESSAGES = 20_000
SIZE = 64
PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass
class Cost:
    cpu_ms: float
    kib: float
    tasks: float


class Meter:
    """What has been spent since it was made."""

    def __init__(self) -> None:
        gc.collect()
        self.memory, self.tasks, self.cpu = self._read()

    @staticmethod
    def _read() -> tuple[int, int, float]:
        resident = int(Path("/proc/self/statm").read_text().split()[1]) * PAGE
        return resident, trio.lowlevel.current_statistics().tasks_living, time.process_time()

    def each(self, count: int) -> Cost:
        cpu = time.process_time()
        gc.collect()
        memory, tasks, _ = self._read()
        return Cost(
            1000 * (cpu - self.cpu) / count, (memory - self.memory) / 1024 / count, (tasks - self.tasks) / count
        )


async def sink(stream: Stream) -> None:
    received = 0
    while received < MESSAGES * SIZE:
        received += len(await stream.read(1 << 20))
    await stream.write(b"!")


@asynccontextmanager
async def hosts(count: int, network: MemoryNetwork | None) -> AsyncIterator[list[Host]]:
    async with AsyncExitStack() as stack:
        opened = [await stack.enter_async_context(open_host(HostConfig(), seed(n + 1), network)) for n in range(count)]
        yield opened


def introduce(opened: list[Host]) -> None:
    """All are members, and known as such before they dial."""
    for host in opened:
        host.handle("/sink", sink)
        host.expect_members(address for other in opened for address in other.addresses)
        for other in opened:
            host.admit(other.peer_id)


async def mesh(network: MemoryNetwork | None) -> tuple[Cost, Cost]:
    pairs = [(number, (number + step) % HOSTS) for number in range(HOSTS) for step in (1, 7, 13, 22)[:DIALS]]
    meter = Meter()
    async with hosts(HOSTS, network) as opened:
        host = meter.each(HOSTS)
        introduce(opened)
        meter = Meter()
        async with trio.open_nursery() as nursery:
            for a, b in pairs:
                nursery.start_soon(opened[a].connect, opened[b].peer_id, opened[b].addresses)
        await eventually(lambda: sum(len(each.connections()) for each in opened) == 2 * len(pairs), 60)
        await eventually(lambda: not any(each.statistics().streams for each in opened), 60)  # identify is over
        return host, meter.each(len(pairs))


async def talk(network: MemoryNetwork | None) -> tuple[float, float]:
    """Microseconds of CPU, both sides together: of a ping, and of a message of a long row of them."""
    async with hosts(2, network) as (a, b):
        introduce([a, b])
        await a.connect(b.peer_id, b.addresses)
        await a.ping(b.peer_id)
        began = time.process_time()
        for _ in range(PINGS):
            await a.ping(b.peer_id)
        ping = (time.process_time() - began) / PINGS
        stream = await a.open_stream(b.peer_id, "/sink")
        began = time.process_time()
        for _ in range(MESSAGES):
            await stream.write(bytes(SIZE))
        await stream.read(1)
        return 1e6 * ping, 1e6 * (time.process_time() - began) / MESSAGES


Costs = tuple[Cost, Cost, float, float]


async def over_tcp() -> Costs:
    await talk(None)  # everything is imported now
    return (*await mesh(None), *await talk(None))


async def over_memory() -> Costs:
    links = latencies_between(0.02, 0.1)
    async with open_network(links, random.Random(1).random) as network:
        await talk(network)
    async with open_network(links, random.Random(1).random) as network:
        costs = await mesh(network)
    async with open_network(links, random.Random(1).random) as network:
        return (*costs, *await talk(network))


def measure(in_memory: bool) -> Costs:
    logging.disable(logging.CRITICAL)
    if in_memory:
        return trio.run(over_memory, clock=MockClock(autojump_threshold=0))
    return trio.run(over_tcp)


def main() -> None:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), max_tasks_per_child=1) as processes:
        memory, tcp = processes.map(measure, (True, False))
    print(f"{HOSTS} hosts, {HOSTS * DIALS} links; memory network against TCP on loopback")
    for name, ours, theirs in zip(("host", "link"), memory[:2], tcp[:2], strict=True):
        print(
            f"{name}: CPU {ours.cpu_ms:.2f} ms against {theirs.cpu_ms:.2f} ({theirs.cpu_ms / ours.cpu_ms:.1f} times), "
            f"{ours.kib:.0f} KiB against {theirs.kib:.0f}, {ours.tasks:.1f} tasks against {theirs.tasks:.1f}"
        )
    for name, mine, peers in zip(("ping", f"message of {SIZE} B, in bulk"), memory[2:], tcp[2:], strict=True):
        print(f"{name}: CPU {mine:.1f} us against {peers:.1f} ({peers / mine:.1f} times)")


if __name__ == "__main__":
    main()
