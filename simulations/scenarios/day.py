"""``day``: a mesh of people's machines over a day that is shorter than a real one; every hour is measured.

Machines get up in their morning and go to bed in their evening, in three time zones; a few never sleep, through which
the others join. In the evening one says goodbye, one is killed as a process, one turned off as a machine, and one falls
asleep: its network stands still while the node lives on alone (a real one's clock would stop, too). In the morning the
first three start again with their disk, the fourth finds its network again. Demand follows the sun.

The nodes' own periods are those of production: of a day in a quarter of an hour, comings and goings are 96 times as
dense as on a real one, and so is the time for which tables are wrong.
"""

from __future__ import annotations

import random  # noqa: TID251  # type only; generators come from the virtual world
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from math import pi, sin

import trio

from simulations.metrics import Spread
from simulations.scenarios.demand import KINDS, Answer, BusyWorker, Job, Way, ask, jobs
from simulations.scenarios.growing import BOOTSTRAPS, GrowingWorld, Views, open_growing
from simulations.scenarios.running import SETTLE_S, Options, traffic
from simulations.virtual import Virtual, cpu_s
from simulations.world import Member

HOURS = 24
ZONES = ((-6.0, 0.25), (1.0, 0.5), (8.0, 0.25))
"""Hours ahead of the day's clock, and the share of the machines there."""
MORNING_H = (6.0, 10.0)
"""Local time at which machines get up."""
AWAKE_H = (8.0, 16.0)
SWING = 0.8
"""Demand is between 0.2 and 1.8 of its mean."""
BUSIEST_H = 15.0
SERVICE_S = 2.0
SLOTS = 2
NODES_PER_KIND = 4
SAMPLE_S = 1.0


class Evening(StrEnum):
    """How a machine goes to bed."""

    GOODBYE = "goodbye"
    KILLED = "killed"
    SILENT = "silent"
    ASLEEP = "asleep"


@dataclass(frozen=True, slots=True)
class Rhythm:
    """Of one machine."""

    morning: float
    """Hour of the day's clock."""
    awake: float
    """Hours; 24: it never sleeps."""
    evening: Evening

    def is_awake(self, hour: float) -> bool:
        return (hour - self.morning) % HOURS < self.awake

    @property
    def bedtime(self) -> float:
        return (self.morning + self.awake) % HOURS


@dataclass(frozen=True, slots=True)
class Hour:
    """Shares of tables are of all ordered pairs of machines that are awake."""

    hour: int
    awake: float
    """Machines, on average."""
    rose: int
    went: int
    missing: float
    """Work could not be sent to a machine that is awake."""
    ghosts: float
    """Work would be sent to one that is not."""
    intents: int
    answered: float
    """Share of those whose machine stayed awake."""
    abandoned: int
    """Their machine went to bed before the answer."""
    ms: Spread | None
    """From the wish to the answer, of which two seconds are work."""
    messages_per_node_s: float
    bytes_per_node_s: float
    """For a machine that is awake."""


@dataclass(frozen=True, slots=True)
class DayResult:
    """See the module."""

    minutes: float
    compression: float
    """Times that the day is shorter than a real one."""
    rose: int
    went: dict[str, int]
    table_error: float
    """Missing and ghosts together, mean of the day."""
    table_error_worst_hour: float
    table_error_after: float
    """At the end."""
    intents: int
    answered: float
    in_vain: int
    """Attempts at machines that did not give the answer."""
    abandoned: int
    ms: Spread | None
    messages_per_node_s: float
    bytes_per_node_s: float
    cpu_ms_per_node_s: float
    """These three for a machine that is awake."""
    hours: Sequence[Hour]


async def day(virtual: Virtual, options: Options, minutes: float, intents_per_s: float) -> DayResult:
    """A day in *minutes* of virtual time, with *intents_per_s* on average."""
    draw = virtual.random("day")
    rhythms = _rhythms(options.nodes, draw)
    first = sum(rhythm.is_awake(0.0) for rhythm in rhythms)
    hour_s = 60 * minutes / HOURS
    kinds = max(1, min(len(KINDS), options.nodes // NODES_PER_KIND))

    def rate(at: float) -> float:
        return intents_per_s * (1 + SWING * sin(2 * pi * (at / hour_s - BUSIEST_H + 6) / HOURS))

    wishes = list(jobs(draw, rate, intents_per_s * (1 + SWING), 60 * minutes, kinds, SERVICE_S))

    def dress(member: Member) -> None:
        member.worker = BusyWorker(member.number % kinds, SLOTS)

    async with open_growing(virtual, options, first, options.nodes - first, dress=dress) as world:
        for member in world.members[BOOTSTRAPS:]:
            world.point_out(member)
        await trio.sleep(SETTLE_S)
        town = _Town(world, rhythms, hour_s, options)
        cpu = cpu_s()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(town.watch)
            nursery.start_soon(town.demand, wishes, draw)
            await town.live()
        return town.result(minutes, cpu_s() - cpu)


def _rhythms(nodes: int, draw: random.Random) -> list[Rhythm]:
    """In the order in which they are first awake; those that never sleep come first."""
    evenings = list(Evening)
    found = []
    for number in range(nodes - BOOTSTRAPS):
        (zone,) = draw.choices([zone for zone, _ in ZONES], [share for _, share in ZONES])
        morning = (draw.uniform(*MORNING_H) - zone) % HOURS
        found.append(Rhythm(morning, draw.uniform(*AWAKE_H), evenings[number % len(evenings)]))
    found.sort(key=lambda each: (not each.is_awake(0.0), each.morning))
    return [Rhythm(0.0, HOURS, Evening.GOODBYE)] * min(BOOTSTRAPS, nodes) + found


@dataclass
class _Tally:
    """Of one hour, as it goes on."""

    samples: int = 0
    awake: int = 0
    pairs: int = 0
    missing: int = 0
    ghosts: int = 0
    rose: int = 0
    went: int = 0
    intents: int = 0
    abandoned: int = 0
    seconds: list[float] = field(default_factory=list)
    traffic: tuple[int, int] = (0, 0)


class _Town:
    """The machines and what happens to them."""

    def __init__(self, world: GrowingWorld, rhythms: Sequence[Rhythm], hour_s: float, options: Options) -> None:
        self._world = world
        self._rhythms = rhythms
        self._hour_s = hour_s
        self._options = options
        self._views = Views(world)
        for member in world.members:
            self._views.follow(member)
        self._began = trio.current_time()
        self._hours = [_Tally() for _ in range(HOURS)]
        self._nights = [0] * len(rhythms)
        """How often each machine has gone to bed."""
        self._waiting: list[dict[int, trio.CancelScope]] = [{} for _ in rhythms]
        """The wishes that are not answered, by machine: they end when it goes to bed."""
        self._went = dict.fromkeys(Evening, 0)
        self._in_vain = 0

    def _hour(self) -> _Tally:
        passed = (trio.current_time() - self._began) / self._hour_s
        return self._hours[min(HOURS - 1, int(passed))]

    async def live(self) -> None:
        """Let machines rise and go to bed until the day is over."""
        for hour, number, rises in self._calendar():
            await trio.sleep_until(self._began + hour * self._hour_s)
            self._options.progress(f"{int(hour):02d}:00, {len(self._views.of)} awake", hour / HOURS)
            await (self._rise(number) if rises else self._to_bed(self._world.members[number]))
        await trio.sleep_until(self._began + HOURS * self._hour_s)

    def _calendar(self) -> Iterator[tuple[float, int, bool]]:
        sleepers = [(number, each) for number, each in enumerate(self._rhythms) if each.awake < HOURS]
        rises = [(each.morning, number, True) for number, each in sleepers]
        beds = [(each.bedtime, number, False) for number, each in sleepers]
        yield from sorted(rises + beds)

    async def _rise(self, number: int) -> None:
        self._hour().rose += 1
        if not self._nights[number]:
            member = await self._world.join()
            assert member.number == number, "machines join in the order of their numbers"
        else:
            member = self._world.members[number]
            if self._rhythms[number].evening is Evening.ASLEEP:
                self._world.network.wake(member.peer)
            else:
                await self._world.start(member)
        self._views.follow(member)

    async def _to_bed(self, member: Member) -> None:
        evening = self._rhythms[member.number].evening
        self._hour().went += 1
        self._went[evening] += 1
        self._nights[member.number] += 1
        self._views.drop(member)
        for scope in self._waiting[member.number].values():
            scope.cancel()
        if evening is Evening.GOODBYE:
            await self._world.stop(member)
        elif evening is Evening.ASLEEP:
            self._world.network.stall(member.peer)
        else:
            self._world.crash(member, silent=evening is Evening.SILENT)

    async def watch(self) -> None:
        """Compare tables and truth, and count frames, all day."""
        before = traffic(self._world)
        while trio.current_time() < self._began + HOURS * self._hour_s:
            tally, views = self._hour(), self._views
            await trio.sleep(SAMPLE_S)
            now = traffic(self._world)
            tally.traffic = tally.traffic[0] + now[0] - before[0], tally.traffic[1] + now[1] - before[1]
            before = now
            tally.samples += 1
            tally.awake += len(views.of)
            tally.pairs += views.pairs
            tally.missing += views.missing
            tally.ghosts += views.ghosts

    async def demand(self, wishes: Sequence[Job], draw: random.Random) -> None:
        """Have every wish at a machine that is awake."""
        async with trio.open_nursery() as nursery:
            for job in wishes:
                await trio.sleep_until(self._began + job.at)
                nursery.start_soon(self._wish, job, self._world.members[draw.choice(list(self._views.of))])

    async def _wish(self, job: Job, member: Member) -> None:
        tally, waiting = self._hour(), self._waiting[member.number]
        tally.intents += 1
        answer: Answer | None = None
        with trio.CancelScope() as scope:
            waiting[job.number] = scope
            answer = await ask(member, job, Way.UNIT)
        del waiting[job.number]
        if answer is None:
            tally.abandoned += 1
        else:
            self._in_vain += answer.in_vain
            if answer.peer is not None:
                tally.seconds.append(answer.seconds)
        self._world.virtual.trace.note("answer", job.number, None if answer is None else answer.seconds)

    def result(self, minutes: float, cpu: float) -> DayResult:
        tallies = self._hours
        intents, abandoned = sum(each.intents for each in tallies), sum(each.abandoned for each in tallies)
        seconds = [one for each in tallies for one in each.seconds]
        node_s = sum(each.awake for each in tallies) * SAMPLE_S
        frames, octets = (sum(each.traffic[part] for each in tallies) for part in (0, 1))
        views = self._views
        self._world.virtual.trace.note("tables", views.missing, views.ghosts)
        return DayResult(
            minutes=minutes,
            compression=round(HOURS * 60 / minutes, 2),
            rose=sum(each.rose for each in tallies),
            went={evening.value: count for evening, count in self._went.items()},
            table_error=_share(sum(map(_wrong, tallies)), sum(each.pairs for each in tallies)),
            table_error_worst_hour=max(_share(_wrong(each), each.pairs) for each in tallies),
            table_error_after=_share(views.missing + views.ghosts, views.pairs),
            intents=intents,
            answered=_share(len(seconds), intents - abandoned),
            in_vain=self._in_vain,
            abandoned=abandoned,
            ms=Spread.of(seconds),
            messages_per_node_s=round(frames / node_s, 2),
            bytes_per_node_s=round(octets / node_s, 1),
            cpu_ms_per_node_s=round(1000 * cpu / node_s, 3),
            hours=[_measured(number, each) for number, each in enumerate(tallies)],
        )


def _wrong(tally: _Tally) -> int:
    return tally.missing + tally.ghosts


def _share(part: float, whole: float) -> float:
    return round(part / whole, 6) if whole else 0.0


def _measured(number: int, tally: _Tally) -> Hour:
    node_s = tally.awake * SAMPLE_S
    return Hour(
        hour=number,
        awake=round(tally.awake / max(1, tally.samples), 1),
        rose=tally.rose,
        went=tally.went,
        missing=_share(tally.missing, tally.pairs),
        ghosts=_share(tally.ghosts, tally.pairs),
        intents=tally.intents,
        answered=_share(len(tally.seconds), tally.intents - tally.abandoned),
        abandoned=tally.abandoned,
        ms=Spread.of(tally.seconds),
        messages_per_node_s=round(tally.traffic[0] / max(node_s, 1.0), 2),
        bytes_per_node_s=round(tally.traffic[1] / max(node_s, 1.0), 1),
    )
