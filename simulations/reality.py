"""Simulation against reality: the same nodes, links and news once in virtual time, once over TCP in real time.

``python -m simulations.reality simulated|real`` prints the figures of one of them as JSON. Both have the same keys,
topology and latencies, which follow from the seed, build their mesh by the same code and measure it by the same meter.
Nodes make no links of their own, so the graph stays that of the topology (who seems silent is dialled, which on a
starved machine may leave a link more; the degree is among the figures); which of its links GossipSub takes into its
mesh, and when heartbeats fall, is chance in both. The real nodes share one process: what cryptography and Python cost
there delays messages, and costs nothing in virtual time. So does whatever else the machine does: news during
which the event loop woke up late is told again by the same node, and the quietest try counts. That lateness alone
decides, not how the news spread; how often it happened, and how late the loop was, is among the figures.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from dataclasses import dataclass
from functools import partial
from typing import Any

import trio

from simulations.hashing import fix_hashing

NODES = 25
LATENCY_S = (0.02, 0.08)
"""One way: 50 +- 30 ms, another for each link and the same both ways."""
NEWS = 10
SETTLE_S = 5.0
LOOK_EVERY_S = 0.005
QUIET_S = 0.0015
"""How late the event loop may be on average while news spreads. On a quiet machine it is 1 ms: the nodes' own CPU."""
TRIES = 3
"""Of a piece of news, until the loop was that quiet; the quietest counts. In all, no more than twice the news."""


@dataclass(frozen=True, slots=True)
class Figures:
    """Of all news and all nodes but each one's author."""

    nodes: int
    degree: float
    news: int
    by_gossip: float
    """Share of arrivals that the meter saw; the rest came late or another way."""
    p50_ms: float
    mean_ms: float
    p99_ms: float
    hops: float
    """Of the first copy, on average."""
    copies: float
    """Of each piece of news that reach a node, on average."""
    late_ms: float
    """How much later than asked the event loop woke up while news spread, on average; in virtual time never."""
    latest_ms: float
    """The same at worst."""
    told_again: int
    """Times that news was told anew because the event loop had been too late."""


@dataclass(frozen=True, slots=True)
class _Told:
    """A piece of news, told once."""

    arrivals: tuple[tuple[float, int], ...]
    """Seconds and hops, of each node but the author."""
    copies: int
    late_s: float
    latest_s: float


async def figures(world: Any, count: int) -> Figures:
    """Tell *count* pieces of news in *world*, a World at rest, one after another."""
    from simulations.metrics import quantile
    from simulations.scenarios.spread import SERIAL_BYTES, tell

    draw = world.virtual.random("spread")
    authors = [draw.randrange(len(world.members)) for _ in range(count)]
    late: list[float] = []
    told: list[_Told] = []
    again = 0
    await trio.sleep(SETTLE_S)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_watch_loop, world, late)
        for number, author in enumerate(authors):
            tries: list[_Told] = []
            while not tries or (tries[-1].late_s > QUIET_S and len(tries) < TRIES and again < count):
                again += bool(tries)
                late.clear()
                name = number + 2 * count * len(tries)  # of the same kind, a card or a revocation
                piece = await tell(world, name, author, draw.randbytes(SERIAL_BYTES))
                assert piece.said is not None, "an author's gossip has the news"
                arrivals = [found for node, found in piece.said.heard.items() if node != piece.author.number]
                late_s = sum(late) / max(1, len(late))
                tries.append(_Told(tuple(arrivals), piece.said.copies, late_s, max(late, default=0.0)))
            told.append(min(tries, key=lambda told: told.late_s))
        nursery.cancel_scope.cancel()
    for member in world.members:
        linked = {world.number_of[peer] for peer in member.node.host.connections()}
        assert linked >= member.neighbours, f"node {member.number} has links to {linked}, not {member.neighbours}"
    expected = count * (len(world.members) - 1)
    heard = [arrival for piece in told for arrival in piece.arrivals]
    ordered = sorted(seconds * 1000 for seconds, _ in heard)
    return Figures(
        nodes=len(world.members),
        degree=round(world.degree, 2),
        news=count,
        by_gossip=round(len(heard) / expected, 4),
        p50_ms=round(ordered[quantile(len(ordered), 0.5)], 1),
        mean_ms=round(sum(ordered) / len(ordered), 1),
        p99_ms=round(ordered[quantile(len(ordered), 0.99)], 1),
        hops=round(sum(hops for _, hops in heard) / len(heard), 2),
        copies=round(sum(piece.copies for piece in told) / expected, 2),
        late_ms=round(1000 * sum(piece.late_s for piece in told) / count, 2),
        latest_ms=round(1000 * max(piece.latest_s for piece in told), 1),
        told_again=again,
    )


async def _watch_loop(world: Any, late: list[float]) -> None:
    while True:
        due = trio.current_time() + LOOK_EVERY_S
        await trio.sleep_until(due)
        if any(0 < len(said.heard) < len(world.members) for said in world.meter.said.values()):
            late.append(trio.current_time() - due)


def simulated(nodes: int, seed: int, news: int, latency_s: tuple[float, float]) -> Figures:
    """In virtual time, over the memory network."""
    from simulations.progress import silent
    from simulations.virtual import Virtual, run
    from simulations.world import DEGREE, World, build, few_collections, make_members
    from transports.memory import latencies_between, open_network

    async def main(virtual: Virtual) -> Figures:
        links = latencies_between(*latency_s, seed=seed)
        async with open_network(links, virtual.random("links").random) as network, trio.open_nursery() as nursery:
            world = World(virtual, network, list(make_members(virtual, nodes, DEGREE)), 0, nursery)
            with few_collections():
                await build(world, silent)
                found = await figures(world, news)
            nursery.cancel_scope.cancel()
        return found

    return run(main, seed=seed).value


def real(nodes: int, seed: int, news: int, latency_s: tuple[float, float]) -> Figures:
    """In real time, over TCP on loopback."""
    from atmosphere.env import SystemEnv
    from simulations.loopback import LoopbackNetwork, LoopbackWorld
    from simulations.progress import silent
    from simulations.virtual import Virtual
    from simulations.world import DEGREE, build, few_collections, make_members
    from transports.memory import latencies_between

    async def main() -> Figures:
        virtual = Virtual(seed, trio.current_time)  # for what follows from the seed: keys, topology, whose news
        async with trio.open_nursery() as carriers, trio.open_nursery() as nursery:
            network = LoopbackNetwork(latencies_between(*latency_s, seed=seed), carriers)
            members = list(make_members(virtual, nodes, DEGREE, lambda name: SystemEnv()))
            world = LoopbackWorld(virtual, network, members, 0, nursery)
            with few_collections():
                await build(world, silent)
                found = await figures(world, news)
            nursery.cancel_scope.cancel()
            carriers.cancel_scope.cancel()
        return found

    return trio.run(main)


def main() -> None:
    parser = argparse.ArgumentParser(prog="simulations.reality", description=__doc__)
    parser.add_argument("world", choices=("simulated", "real"))
    parser.add_argument("--nodes", type=int, default=NODES)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--news", type=int, default=NEWS)
    parser.add_argument("--latency", type=float, nargs=2, default=LATENCY_S, metavar="SECONDS", help="lowest, highest")
    options = parser.parse_args()
    play = partial(simulated if options.world == "simulated" else real, options.nodes, options.seed, options.news)
    found = play((options.latency[0], options.latency[1]))
    print(json.dumps(dataclasses.asdict(found)))  # noqa: T201  # what this command is for


if __name__ == "__main__":
    fix_hashing()
    main()
