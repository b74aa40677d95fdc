"""``churn``: nodes come and go at a rate, and the tables of the others are compared with the truth all the time.

Who comes is new and joins through three bootstrap nodes, which stay. Who goes says goodbye, is killed as a process, or
is turned off as a machine, in turn. Wrong in a table is a running node that work could not be sent to (missing), and
one that work would be sent to although it does not run any more (a ghost).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import cycle

import trio

from simulations.metrics import Spread
from simulations.scenarios.growing import BOOTSTRAPS, GrowingWorld, Views, open_growing
from simulations.scenarios.running import SETTLE_S, Measured, Options, measured
from simulations.virtual import Virtual
from simulations.world import Member

SAMPLE_S = 0.5
AFTER_S = 20.0
"""Of peace in the end: what is wrong then stays wrong."""
SHOWN_EVERY_S = 10.0


class End(StrEnum):
    """How a node goes."""

    GOODBYE = "goodbye"
    KILLED = "killed"
    SILENT = "silent"


@dataclass(frozen=True, slots=True)
class Error:
    """Shares of all ordered pairs of running nodes."""

    missing: float
    ghosts: float


@dataclass(frozen=True, slots=True)
class ChurnResult:
    """See the module."""

    rate_per_s: float
    """Of the joinings, and of the endings."""
    lasted_s: float
    joined: int
    ended: int
    nodes_after: int
    mean: Error
    worst: Error
    """Each figure by itself: at its worst moment."""
    after: Error
    """After a time of peace."""
    over_time: Sequence[tuple[float, float, float]]
    """Seconds, and the shares of missing nodes and ghosts until then, since the point before."""
    routable_ms: Spread | None
    """Over pairs with a new node: from the moment at which both run."""
    avoided_ms: dict[str, Spread | None]
    """By how it ended: until a node sends no work there any more."""
    doubted: int
    """Times that a running node was not usable any more for another one."""
    degree: float
    during: Measured


@dataclass
class _Truth:
    began: dict[int, float] = field(default_factory=dict)
    ended: dict[int, tuple[float, End]] = field(default_factory=dict)
    routable: dict[tuple[int, int], float] = field(default_factory=dict)
    avoided: dict[End, dict[tuple[int, int], float]] = field(default_factory=lambda: {end: {} for end in End})
    doubted: int = 0

    def changed(self, viewer: int, seen: int, usable: bool) -> None:
        now, pair, end = trio.current_time(), (viewer, seen), self.ended.get(seen)
        if usable and end is None and (viewer in self.began or seen in self.began):
            self.routable.setdefault(pair, now - max(self.began.get(viewer, 0.0), self.began.get(seen, 0.0)))
        elif not usable and end is None:
            self.doubted += 1
        elif not usable and end is not None:
            self.avoided[end[1]][pair] = now - end[0]


async def churn(virtual: Virtual, options: Options, rate: float, lasts_s: float) -> ChurnResult:
    """Let nodes come and others go for *lasts_s* seconds, *rate* of each per second."""
    draw = virtual.random("churn")
    joins = _moments(draw.random, rate, lasts_s)
    ends = _moments(draw.random, rate, lasts_s)[: options.nodes - BOOTSTRAPS - 1]
    truth = _Truth()
    async with open_growing(virtual, options, options.nodes, len(joins)) as world:
        await trio.sleep(SETTLE_S)
        views = Views(world, truth.changed)
        for member in world.members:
            views.follow(member)
        samples: list[Error] = []
        began = trio.current_time()
        with measured(world) as during:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_sample, views, samples, began + lasts_s)
                how = cycle(End)
                for after, joining in sorted([(at, True) for at in joins] + [(at, False) for at in ends]):
                    await trio.sleep_until(began + after)
                    options.progress(f"{len(views.of)} nodes run", after / lasts_s)
                    if joining:
                        await _begin(world, views, truth)
                    else:
                        leaver = draw.choice([member for member in world.running if member.number >= BOOTSTRAPS])
                        await _end(world, views, truth, leaver, next(how))
                await trio.sleep_until(began + lasts_s)
            cost = during()
        await trio.sleep(AFTER_S)
        virtual.trace.note("tables", views.missing, views.ghosts, truth.doubted)
        return ChurnResult(
            rate_per_s=rate,
            lasted_s=lasts_s,
            joined=len(joins),
            ended=len(ends),
            nodes_after=len(views.of),
            mean=_mean(samples),
            worst=Error(max(s.missing for s in samples), max(s.ghosts for s in samples)),
            after=_error(views),
            over_time=_over_time(samples),
            routable_ms=Spread.of(list(truth.routable.values())),
            avoided_ms={end.value: Spread.of(list(truth.avoided[end].values())) for end in End},
            doubted=truth.doubted,
            degree=round(world.degree, 2),
            during=cost,
        )


def _moments(draw: Callable[[], float], rate: float, lasts_s: float) -> list[float]:
    """Moments of independent events, so many per second."""
    return sorted(draw() * lasts_s for _ in range(round(rate * lasts_s)))


async def _begin(world: GrowingWorld, views: Views, truth: _Truth) -> None:
    number = world.coming[-1].number
    truth.began[number] = trio.current_time()
    views.follow(await world.join())


async def _end(world: GrowingWorld, views: Views, truth: _Truth, member: Member, end: End) -> None:
    views.drop(member)
    truth.ended[member.number] = trio.current_time(), end
    if end is End.GOODBYE:
        await world.stop(member)  # takes as long as a goodbye does
    else:
        world.crash(member, silent=end is End.SILENT)


async def _sample(views: Views, samples: list[Error], until: float) -> None:
    while trio.current_time() < until:
        samples.append(_error(views))
        await trio.sleep(SAMPLE_S)


def _error(views: Views) -> Error:
    return Error(round(views.missing / views.pairs, 6), round(views.ghosts / views.pairs, 6))


def _mean(samples: Sequence[Error]) -> Error:
    count = len(samples)
    return Error(
        round(sum(each.missing for each in samples) / count, 6), round(sum(each.ghosts for each in samples) / count, 6)
    )


def _over_time(samples: Sequence[Error]) -> list[tuple[float, float, float]]:
    points, stride = [], round(SHOWN_EVERY_S / SAMPLE_S)
    for start in range(0, len(samples), stride):
        stretch = samples[start : start + stride]
        mean = _mean(stretch)
        points.append(((start + len(stretch)) * SAMPLE_S, mean.missing, mean.ghosts))
    return points
