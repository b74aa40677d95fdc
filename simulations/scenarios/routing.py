"""``routing``: intents in words arrive at random nodes, and each node finds somebody for them with what it knows.

Nodes offer one of some kinds of work each, in a few slots; some nodes are ten times slower than the others, and nobody
knows before they have worked. An intent goes through the router and dispatcher of the node where it arrives, as a unit
of work or as a call (an HTTP client's way). An oracle that knows every queue and the length of every job places the
same jobs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import trio

from atmosphere.mesh.announcer import beacon_period
from simulations.metrics import Spread
from simulations.scenarios.demand import KINDS, Answer, BusyWorker, Job, Oracle, Placed, Reach, Way, ask, jobs
from simulations.scenarios.running import Measured, Options, measured, rest
from simulations.virtual import Virtual
from simulations.world import Member, World, open_world

SERVICE_S = 2.0
"""Of an ordinary node for an intent, on average: an answer of a language model."""
SLOTS = 2
SLOWER = 10.0
NODES_PER_KIND = 4
"""At least, as long as there are so many nodes."""


@dataclass(frozen=True, slots=True)
class Balance:
    """Intents over equally good nodes (one kind of work, not slow), as a share of their mean; the mean of all kinds."""

    busiest: float
    idlest: float
    max_over_min: float | None
    """Of the two; None: somebody got nothing."""


@dataclass(frozen=True, slots=True)
class Placement:
    """How intents were placed."""

    ms: Spread | None
    """From the wish to the answer."""
    mean_ms: float
    to_slow: float
    """Share that slow nodes answered."""
    balance: Balance | None
    """None: no two nodes are equally good."""


@dataclass(frozen=True, slots=True)
class RoutingResult:
    """See the module."""

    way: str
    intents_per_s: float
    lasts_s: float
    kinds: int
    slow: int
    service_s: float
    slots: int
    utilisation: float
    """Offered work over what all nodes together can do."""
    intents: int
    failed: float
    """Share without an answer."""
    in_vain: int
    """Attempts at nodes that did not give the answer."""
    hedged: int
    """Second nodes that were asked because the first one took long."""
    right: float
    """Share of the answers that came from a node with the capability that was meant."""
    mesh: Placement
    oracle: Placement
    longer: float
    """Mean time of the answered intents over that of the oracle."""
    longer_ms: Spread | None
    """For each intent, beyond the oracle's time for it; it may be negative, as the oracle is greedy."""
    beyond_work_ms: Mapping[str, Spread | None]
    """The answers' time without the work itself (ways, greetings, queues), by how the worker was reached."""
    degree: float
    """Links of a node in the end: calls make connections."""
    beacons_per_s: float
    """Of all nodes together: changes of load are told at once."""
    beacons_per_s_at_rest: float
    """As their period asks."""
    messages_per_node_s: float
    bytes_per_node_s: float
    cpu_ms_per_node_s: float
    """These three of the mesh at rest, before."""
    during: Measured


async def routing(
    virtual: Virtual,
    options: Options,
    intents_per_s: float,
    lasts_s: float,
    slow: float,
    *,
    way: Way = Way.UNIT,
    service_s: float = SERVICE_S,
) -> RoutingResult:
    """Let intents arrive for *lasts_s* seconds; a share *slow* of the nodes is ten times slower."""
    draw = virtual.random("routing")
    nodes = options.nodes
    kinds = max(1, min(len(KINDS), nodes // NODES_PER_KIND))
    slow_ones = frozenset(draw.sample(range(nodes), round(slow * nodes)))
    workers = [BusyWorker(number % kinds, SLOTS, SLOWER if number in slow_ones else 1.0) for number in range(nodes)]
    wishes = list(jobs(draw, lambda at: intents_per_s, intents_per_s, lasts_s, kinds, service_s))
    callers = [draw.randrange(nodes) for _ in wishes]

    def dress(member: Member) -> None:
        member.worker = workers[member.number]

    async with open_world(virtual, nodes, degree=options.degree, progress=options.progress, dress=dress) as world:
        at_rest = await rest(world, options)
        spoken = _beacons(world)
        with measured(world) as during:
            answers = await _ask_all(world, wishes, callers, way, options)
            cost = during()
        hedged = sum(member.node.dispatcher.statistics().hedges for member in world.members)
        spoken = _beacons(world) - spoken
        degree = world.degree

        def latency_s(one: int, other: int) -> float:
            a, b = world.members[one].peer, world.members[other].peer
            return 0.0 if one == other else world.network.links(a, b).latency_s

        oracle = Oracle(workers, latency_s)
        best = [oracle.place(job, caller) for job, caller in zip(wishes, callers, strict=True)]
        found = {
            job.number: Placed(world.number_of[answer.peer], answer.seconds)
            for job, answer in zip(wishes, answers, strict=True)
            if answer.peer is not None
        }
    right = sum(workers[placed.server].kind == wishes[number].kind for number, placed in found.items())
    pairs = [(placed.seconds, best[number].seconds) for number, placed in found.items()]
    return RoutingResult(
        way=way.value,
        intents_per_s=intents_per_s,
        lasts_s=lasts_s,
        kinds=kinds,
        slow=len(slow_ones),
        service_s=service_s,
        slots=SLOTS,
        utilisation=round(intents_per_s * service_s / sum(each.slots / each.slowness for each in workers), 3),
        intents=len(wishes),
        failed=round(1 - len(found) / max(1, len(wishes)), 6),
        in_vain=sum(answer.in_vain for answer in answers),
        hedged=hedged,
        right=round(right / max(1, len(found)), 6),
        mesh=_placement(list(found.values()), workers),
        oracle=_placement(best, workers),
        longer=round(sum(here for here, _ in pairs) / max(1e-9, sum(there for _, there in pairs)), 3),
        longer_ms=Spread.of([here - there for here, there in pairs]),
        beyond_work_ms={
            reach.value: Spread.of(_beyond_work(wishes, answers, found, workers, reach)) for reach in Reach
        },
        degree=round(degree, 2),
        beacons_per_s=round(spoken / cost.virtual_s, 2),
        beacons_per_s_at_rest=round(nodes / beacon_period(nodes), 2),
        messages_per_node_s=at_rest.messages_per_node_s,
        bytes_per_node_s=at_rest.bytes_per_node_s,
        cpu_ms_per_node_s=at_rest.cpu_ms_per_node_s,
        during=cost,
    )


async def _ask_all(
    world: World, wishes: Sequence[Job], callers: Sequence[int], way: Way, options: Options
) -> list[Answer]:
    answers: dict[int, Answer] = {}

    async def one(job: Job, member: Member) -> None:
        answer = answers[job.number] = await ask(member, job, way)
        server = -1 if answer.peer is None else world.number_of[answer.peer]
        world.virtual.trace.note("answer", job.number, server, answer.seconds)

    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        for job, caller in zip(wishes, callers, strict=True):
            await trio.sleep_until(began + job.at)
            nursery.start_soon(one, job, world.members[caller])
            options.progress(f"{len(wishes)} intents", (job.number + 1) / len(wishes))
    return [answers[job.number] for job in wishes]


def _beyond_work(
    wishes: Sequence[Job], answers: Sequence[Answer], found: Mapping[int, Placed], workers: Sequence[BusyWorker],
    reach: Reach,
) -> list[float]:
    return [
        answer.seconds - job.seconds * workers[found[job.number].server].slowness
        for job, answer in zip(wishes, answers, strict=True)
        if answer.reach is reach
    ]


def _beacons(world: World) -> int:
    return sum(member.node.announcer.sequence for member in world.running)


def _placement(placed: Sequence[Placed], workers: Sequence[BusyWorker]) -> Placement:
    count = max(1, len(placed))
    return Placement(
        Spread.of([each.seconds for each in placed]),
        round(1000 * sum(each.seconds for each in placed) / count, 1),
        round(sum(workers[each.server].slowness > 1 for each in placed) / count, 6),
        _balance(Counter(each.server for each in placed), workers),
    )


def _balance(served: Counter[int], workers: Sequence[BusyWorker]) -> Balance | None:
    busiest, idlest = [], []
    for kind in {worker.kind for worker in workers}:
        counts = [served[number] for number, each in enumerate(workers) if each.kind == kind and each.slowness == 1]
        if len(counts) > 1 and any(counts):
            mean = sum(counts) / len(counts)
            busiest.append(max(counts) / mean)
            idlest.append(min(counts) / mean)
    if not busiest:
        return None
    most, least = sum(busiest) / len(busiest), sum(idlest) / len(idlest)
    return Balance(round(most, 3), round(least, 3), round(most / least, 2) if least else None)
