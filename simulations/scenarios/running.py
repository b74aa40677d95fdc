"""What all scenarios share: their options, and what a stretch of virtual time has cost."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import trio

from simulations.virtual import cpu_s
from simulations.world import DEGREE, Progress, World

SETTLE_S = 5.0
"""After the links are there: gossip grafts its mesh in the next heartbeats, one a second."""
REST_S = 10.0


@dataclass(frozen=True, slots=True)
class Options:
    """Of any scenario."""

    nodes: int = 100
    degree: int = DEGREE
    rest_s: float = REST_S
    progress: Progress = lambda text: None


@dataclass(frozen=True, slots=True)
class Measured:
    """A stretch of virtual time. Messages are frames sent, bytes are those of the frames."""

    virtual_s: float
    messages_per_node_s: float
    bytes_per_node_s: float
    cpu_ms_per_node_s: float
    """Milliseconds of one core for a node and a virtual second."""


@contextmanager
def measured(world: World) -> Iterator[Callable[[], Measured]]:
    """Measure the block; the result may be asked for once it has ended, or within it."""
    began, cpu, (frames, octets) = trio.current_time(), cpu_s(), traffic(world)

    def so_far() -> Measured:
        seconds, nodes = trio.current_time() - began, len(world.members)
        frames_now, octets_now = traffic(world)
        share = 1 / (seconds * nodes)
        return Measured(
            round(seconds, 3),
            round((frames_now - frames) * share, 2),
            round((octets_now - octets) * share, 1),
            round((cpu_s() - cpu) * 1000 * share, 3),
        )

    yield so_far


def traffic(world: World) -> tuple[int, int]:
    """Frames and bytes that all nodes together have sent."""
    peers = world.network.statistics().peers.values()
    return sum(of.sent_frames for of in peers), sum(of.sent_bytes for of in peers)


async def rest(world: World, options: Options) -> Measured:
    """Let the mesh settle, then measure what it does when nothing happens."""
    options.progress("settling")
    await trio.sleep(SETTLE_S)
    options.progress("at rest")
    with measured(world) as so_far:
        await trio.sleep(options.rest_s)
        return so_far()
