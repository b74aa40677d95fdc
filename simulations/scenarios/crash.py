"""``crash``: a share of the nodes dies in one moment, half of them as killed processes, half as machines turned off.

Measured is when the others stop to send work there (suspected) and when they give them up (offline), whether anybody
who lives is given up, and what happens to the calls of some nodes that go on calling: nobody should try the same dead
node twice.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import trio

from atmosphere.mesh.table import Change, State
from atmosphere.routing.intent import Constraints, Intent
from atmosphere.work.units import Unit
from simulations.metrics import Spread
from simulations.scenarios.running import Measured, Options, measured, rest
from simulations.twins import WORK
from simulations.virtual import Virtual
from simulations.world import Member, World, open_world, until
from transports.peer_id import PeerId

CALLERS = 20
"""Nodes that call; all would cost more than what is looked at."""
CALL_EVERY_S = 1.0
CALL_DEADLINE_S = 20.0
BEFORE_S = 5.0
"""Calls begin so long before the crash."""
AT_LEAST_S = 15.0
WITHIN_S = 60.0


@dataclass(frozen=True, slots=True)
class Detection:
    """Of one kind of death, over all pairs of a survivor and a dead node; milliseconds after the death."""

    deaths: int
    suspected_ms: Spread | None
    """Until the survivor sends no work there any more."""
    offline_ms: Spread | None
    found: float
    """Share of the pairs in which the dead node was offline in the end."""


@dataclass(frozen=True, slots=True)
class Calls:
    """Of some survivors, from before the crash to the end."""

    made: int
    failed: int
    to_dead: int
    """Attempts that went to a node after its death."""
    to_dead_twice: int
    """Of these: beyond the first of the same caller to the same node."""


@dataclass(frozen=True, slots=True)
class CrashResult:
    """See the module."""

    degree: float
    killed: Detection
    silent: Detection
    wrongly_offline: int
    """Pairs in which a survivor held another one offline, at any time."""
    calls: Calls
    links_after: float
    """Of a survivor, on average, in the end."""
    messages_per_node_s: float
    bytes_per_node_s: float
    cpu_ms_per_node_s: float
    """These three of the mesh at rest, before."""
    during: Measured


@dataclass
class _Eyes:
    """What the survivors' tables have shown since the crash."""

    began: float
    suspected: dict[tuple[int, int], float] = field(default_factory=dict)
    """(survivor, dead) -> seconds."""
    offline: dict[tuple[int, int], float] = field(default_factory=dict)
    wrong: set[tuple[int, int]] = field(default_factory=set)


async def crash(virtual: Virtual, options: Options, share: float) -> CrashResult:
    """Kill *share* of the nodes."""
    async with open_world(virtual, options.nodes, degree=options.degree, progress=options.progress) as world:
        at_rest, degree = await rest(world, options), world.degree
        dying = sorted(virtual.random("crash").sample(range(len(world.members)), round(share * options.nodes)))
        dead = {world.members[number]: bool(place % 2) for place, number in enumerate(dying)}  # -> silent
        survivors = [member for member in world.members if member not in dead]
        calls = _Calling(world, {member.peer for member in dead})
        with measured(world) as during:
            async with trio.open_nursery() as nursery:
                for member in survivors[:CALLERS]:
                    nursery.start_soon(calls.keep_calling, member)
                await trio.sleep(BEFORE_S)
                eyes = _Eyes(trio.current_time())
                for member in survivors:
                    _look(world, member, eyes, dead)
                for member, silent in dead.items():
                    world.crash(member, silent)
                calls.crashed = True
                options.progress(f"{len(dead)} of {options.nodes} nodes are dead")
                await trio.sleep(AT_LEAST_S)
                await until(lambda: len(eyes.offline) == len(dead) * len(survivors), WITHIN_S - AT_LEAST_S)
                nursery.cancel_scope.cancel()
        kinds = [{m.number for m, is_silent in dead.items() if is_silent is silent} for silent in (False, True)]
        return CrashResult(
            degree=round(degree, 2),
            killed=_detection(eyes, kinds[0], len(survivors)),
            silent=_detection(eyes, kinds[1], len(survivors)),
            wrongly_offline=len(eyes.wrong),
            calls=calls.result(),
            links_after=round(world.degree, 2),
            messages_per_node_s=at_rest.messages_per_node_s,
            bytes_per_node_s=at_rest.bytes_per_node_s,
            cpu_ms_per_node_s=at_rest.cpu_ms_per_node_s,
            during=during(),
        )


def _look(world: World, member: Member, eyes: _Eyes, dead: dict[Member, bool]) -> None:
    table = member.node.table

    def changed() -> None:
        change: Change = table.changes[-1]
        subject, node = world.members[world.number_of[change.peer]], table.nodes.get(change.peer)
        state = node.state if node is not None else State.OFFLINE
        if state is State.ONLINE:
            return
        pair, after = (member.number, subject.number), trio.current_time() - eyes.began
        if subject not in dead:
            if state is State.OFFLINE:
                eyes.wrong.add(pair)
            return
        eyes.suspected.setdefault(pair, after)
        if state is State.OFFLINE and pair not in eyes.offline:
            eyes.offline[pair] = after
            world.virtual.trace.note("offline", *pair)

    table.listeners.add(changed)


def _detection(eyes: _Eyes, deaths: set[int], survivors: int) -> Detection:
    suspected = [seconds for (_, subject), seconds in eyes.suspected.items() if subject in deaths]
    offline = [seconds for (_, subject), seconds in eyes.offline.items() if subject in deaths]
    return Detection(
        len(deaths), Spread.of(suspected), Spread.of(offline), len(offline) / max(1, len(deaths) * survivors)
    )


class _Calling:
    """Some nodes' calls for work that every node can do."""

    def __init__(self, world: World, dying: set[PeerId]) -> None:
        self.crashed = False
        self._world = world
        self._dying = dying
        self._draw = world.virtual.random("calls").random
        self._made = self._failed = 0
        self._to_dead: Counter[tuple[int, PeerId]] = Counter()

    async def keep_calling(self, member: Member) -> None:
        intent = Intent(tool=WORK.tool, constraints=Constraints(type=WORK.type))
        await trio.sleep(CALL_EVERY_S * self._draw())
        while True:
            late = self.crashed
            done = await member.node.dispatcher.unit(Unit(intent, b"{}", deadline_s=CALL_DEADLINE_S))
            self._made += 1
            self._failed += not done.ok
            for attempt in done.attempts:
                if late and attempt.candidate.peer in self._dying:
                    self._to_dead[member.number, attempt.candidate.peer] += 1
            await trio.sleep(CALL_EVERY_S * (0.5 + self._draw()))

    def result(self) -> Calls:
        counts = self._to_dead.values()
        return Calls(self._made, self._failed, sum(counts), sum(count - 1 for count in counts))
