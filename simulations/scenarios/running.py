"""What all scenarios share: their options, and what a stretch of virtual time has cost and come to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import ceil

import trio

from atmosphere.capabilities.offer import Offer
from simulations.metrics import KEPT
from simulations.progress import Progress, silent
from simulations.virtual import cpu_s
from simulations.world import DEGREE, Member, World

SETTLE_S = 5.0
"""After the links are there: gossip grafts its mesh in the next heartbeats, one a second."""
REST_S = 10.0
SAMPLE_S = 1.0
"""Virtual seconds between two points of the series of a stretch."""
VIEWERS = 200
"""Tables that are compared with the truth; in a larger world every second, third, ... one."""


@dataclass(frozen=True, slots=True)
class Options:
    """Of any scenario."""

    nodes: int = 100
    degree: int = DEGREE
    rest_s: float = REST_S
    progress: Progress = silent


@dataclass(frozen=True, slots=True)
class Point:
    """Of the series of a stretch: what the second before it was like, per node and second."""

    at_s: float
    """Virtual time since the world began."""
    messages: float
    bytes: float


@dataclass(frozen=True, slots=True)
class Measured:
    """A stretch of virtual time. Messages are frames sent, bytes are those of the frames."""

    virtual_s: float
    messages_per_node_s: float
    bytes_per_node_s: float
    cpu_ms_per_node_s: float
    """Milliseconds of one core for a node and a virtual second."""
    table_error: float
    """Of the tables at its end, see :func:`table_error`."""
    series: Sequence[Point] = field(default=(), compare=False, repr=False, metadata=KEPT)


@contextmanager
def measured(world: World) -> Iterator[Callable[[], Measured]]:
    """Measure the block; the result may be asked for once it has ended, or within it."""
    began, cpu, (frames, octets) = trio.current_time(), cpu_s(), traffic(world)
    sampler = _Sampler(world)

    def so_far() -> Measured:
        seconds, nodes, cpu_now = trio.current_time() - began, len(world.members), cpu_s()
        frames_now, octets_now = traffic(world)
        share = 1 / (seconds * nodes)
        return Measured(
            round(seconds, 3),
            round((frames_now - frames) * share, 2),
            round((octets_now - octets) * share, 1),
            round((cpu_now - cpu) * 1000 * share, 3),
            round(table_error(world), 6),
            tuple(sampler.points),
        )

    trio.lowlevel.add_instrument(sampler)
    try:
        yield so_far
    finally:
        trio.lowlevel.remove_instrument(sampler)


class _Sampler(trio.abc.Instrument):
    """Looks at the traffic once a virtual second, without a task of its own: the run is the same with and without."""

    def __init__(self, world: World) -> None:
        self.points: list[Point] = []
        self._world = world
        self._at, self._traffic = trio.current_time(), traffic(world)

    def before_io_wait(self, timeout: float) -> None:
        now = trio.current_time()
        if now - self._at >= SAMPLE_S:
            self._take(now)

    def _take(self, now: float) -> None:
        before, self._traffic = self._traffic, traffic(self._world)
        share = 1 / ((now - self._at) * len(self._world.members))
        frames, octets = (after - then for after, then in zip(self._traffic, before, strict=True))
        self.points.append(Point(round(now, 3), round(frames * share, 2), round(octets * share, 1)))
        self._at = now


def traffic(world: World) -> tuple[int, int]:
    """Frames and bytes that all nodes together have sent."""
    peers = world.network.statistics().peers.values()
    return sum(of.sent_frames for of in peers), sum(of.sent_bytes for of in peers)


def table_error(world: World) -> float:
    """Wrong entries of the tables, as a share of all ordered pairs of running nodes.

    An entry is wrong when work could not be sent to a running node, or could be to one that does not run, or when the
    offer is not the one that node has now.
    """
    running = world.running
    offers = {member: which(member.node.table.nodes[member.peer].offer) for member in running}
    viewers = running[:: max(1, ceil(len(running) / VIEWERS))]
    wrong = sum(_wrong_entries(viewer, world.members, offers) for viewer in viewers)
    return wrong / max(1, len(viewers) * (len(running) - 1))


def _wrong_entries(viewer: Member, members: Sequence[Member], offers: Mapping[Member, tuple[int, int]]) -> int:
    nodes, wrong = viewer.node.table.nodes, 0
    for other in members:
        if other is not viewer:
            found, offer = nodes.get(other.peer), offers.get(other)
            seen = which(found.offer) if found is not None and found.usable else None
            wrong += seen != offer
    return wrong


def which(offer: Offer | None) -> tuple[int, int]:
    """Which of a node's offers it is. (A node itself has the time of its own to the nanosecond, others have not.)"""
    return (0, 0) if offer is None else (offer.epoch, offer.sequence)


async def rest(world: World, options: Options) -> Measured:
    """Let the mesh settle, then measure what it does when nothing happens."""
    options.progress("settling", ends=trio.current_time() + SETTLE_S)
    await trio.sleep(SETTLE_S)
    options.progress("at rest", ends=trio.current_time() + options.rest_s)
    with measured(world) as so_far:
        await trio.sleep(options.rest_s)
        return so_far()
