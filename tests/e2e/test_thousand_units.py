"""README: a thousand units of work over five nodes, of which two die and one becomes slow: nothing lost, nothing twice.

Five real processes whose backend takes 200 ms per call and writes each call's idempotency key to one ledger; the caller
is a sixth node, in this process.
"""

from __future__ import annotations

import json
import math
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import trio

from atmosphere.node import Node as Caller
from atmosphere.routing.intent import Constraints, Intent
from atmosphere.work.units import Outcome, Unit, UnitResult
from tests.e2e import ledger_node
from tests.e2e.ledger_node import PUT, READ, SEND, TYPE, Line
from tests.meshes import Meshes, until
from tests.processes import SOAK, Node, command, invite, nodes
from transports.addresses import split_peer
from transports.peer_id import PeerId

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1800 if SOAK else 420)]

NAMES = "BCDEF"
UNITS = 1000
SERVICE_MS = 200
CONCURRENCY = 8
"""Per node: five do 200 units per second then, which the two cores of a small machine can carry beside the nodes."""
ALONE = UNITS if SOAK else 200
"""Units of the run on one node; 40 per second."""
EMBEDS = 1000 if SOAK else 300
SLOW_AFTER, SLOWED = 200, "D"
KILLED = {250: "E", 450: "F"}
"""Who is slowed down and who is killed, by the results that have come."""
TOOLS = (READ, PUT, SEND)
GROWTH_MB = 32


@dataclass
class World:
    """Five workers and the node that has the work."""

    caller: Caller
    workers: dict[str, Node]
    peers: dict[str, PeerId]
    ledger: Path
    start: Callable[[str], Node]
    """Runs the node of that name."""

    def memory(self) -> dict[str, float]:
        """Resident megabytes of each worker that runs."""
        return {name: psutil.Process(node.process.pid).memory_info().rss / 1e6
                for name, node in self.workers.items() if node.process.poll() is None}


    async def revive(self) -> None:
        """Start again who was killed or slowed down."""
        def start() -> None:
            for name in (SLOWED, *KILLED.values()):
                self.workers[name].stop()
                self.workers[name] = self.start(name)

        await trio.to_thread.run_sync(start)
        await until(lambda: able(self.caller) >= set(self.peers.values()), 30)


@asynccontextmanager
async def world(folder: Path) -> AsyncIterator[World]:
    ledger = folder / "ledger"
    ledger.touch()
    program = (sys.executable, "-m", "tests.e2e.ledger_node", ledger, str(SERVICE_MS), str(CONCURRENCY))
    with nodes() as group:
        def start(name: str) -> Node:
            return group.run(group.folder / name, options=("--no-probe",), program=program)

        def start_all() -> dict[str, Node]:
            workers: dict[str, Node] = {}
            for name in NAMES:
                words = ("join", invite(workers[NAMES[0]])) if workers else ("init",)
                command(group.folder / name, *words, "--name", name)
                workers[name] = start(name)
            return workers

        workers = await trio.to_thread.run_sync(start_all)
        addresses = [json.loads(await trio.to_thread.run_sync(node.command, "status", "--json"))["me"]["addresses"][0]
                     for node in workers.values()]
        meshes = Meshes(folder)
        home = await meshes.join("caller", await trio.to_thread.run_sync(invite, workers[NAMES[0]]))
        async with meshes.dialling(home, *addresses) as caller:
            peers = {name: split_peer(address)[0] for name, address in zip(NAMES, addresses, strict=True)}
            await until(lambda: able(caller) >= set(peers.values()), 30)
            yield World(caller, workers, peers, ledger, start)


def able(caller: Caller) -> set[PeerId]:
    """Whose ledger *caller* can use now."""
    return {route.node.peer for route in caller.table.routes() if route.card.type == TYPE}


@dataclass(frozen=True)
class Run:
    """What a number of units gave."""

    results: list[UnitResult]
    seconds: float

    @property
    def rate(self) -> float:
        return len(self.results) / self.seconds

    @property
    def outcomes(self) -> Counter[str]:
        return Counter(str(result.outcome) for result in self.results)

    def __str__(self) -> str:
        ordered = sorted(result.seconds for result in self.results)
        by = Counter(result.node for result in self.results)
        p50, p99 = ordered[len(ordered) // 2], ordered[math.ceil(len(ordered) * 0.99) - 1]
        return (f"{len(self.results)} units in {self.seconds:.2f} s ({self.rate:.0f}/s), a unit from its start p50 "
                f"{p50:.2f} s, p99 {p99:.2f} s; {dict(self.outcomes)}; moved on "
                f"{sum(len(result.attempts) for result in self.results)} times, hedged or issued again "
                f"{sum(result.hedged for result in self.results)}; by {dict(sorted(by.items()))}")


async def run(caller: Caller, units: Sequence[Unit], on_result: Callable[[int], None] = lambda count: None,
              in_flight: int | None = None) -> Run:
    """All *units*, given at once. *in_flight*: so many are sent out at once; None: what ``map`` finds right."""
    results: list[UnitResult] = []
    began = time.perf_counter()
    async with caller.dispatcher.map(units, in_flight=in_flight) as incoming:
        async for result in incoming:
            results.append(result)
            on_result(len(results))
    return Run(results, time.perf_counter() - began)


def ledger_units(first: int, count: int, node: PeerId | None = None) -> list[Unit]:
    """Units of the three kinds in turn, with numbers of their own."""
    constraints = Constraints(type=TYPE, node=node)
    return [Unit(Intent(tool=TOOLS[number % 3], constraints=constraints), json.dumps({"unit": number}).encode())
            for number in range(first, first + count)]


def embed_units(count: int, at: World, node: PeerId | None = None) -> list[Unit]:
    """Short texts for the embedding model that the workers have; the caller has another one."""
    model = next(route.card.model for route in at.caller.table.routes()
                 if route.card.type == "llm/embed" and route.node.peer in at.peers.values())
    intent = Intent(tool="embed", model=model, constraints=Constraints(type="llm/embed", node=node))
    return [Unit(intent, json.dumps({"input": f"Unit {number}: what a node can do is known to all."}).encode())
            for number in range(count)]


def check_ledger(lines: list[Line], run: Run, first: int) -> str:
    """Compare what was done with what was said; a summary in words."""
    by_unit: dict[int, list[Line]] = {}
    for line in lines:
        by_unit.setdefault(line.unit, []).append(line)
    repeated: Counter[str] = Counter()
    happened = 0
    for result in run.results:
        number = first + result.number
        tool, done = TOOLS[number % 3], by_unit.get(number, [])
        assert {line.tool for line in done} <= {tool}
        assert len({line.key for line in done}) <= 1, f"unit {number} ran under several keys: {done}"
        if result.outcome is Outcome.OK:
            assert done, f"unit {number} is said to be done, and nobody did it"
        if tool == SEND:
            assert len(done) <= 1, f"unit {number} was done twice: {done}"
            happened += result.outcome is Outcome.UNKNOWN and bool(done)
        repeated[tool] += max(0, len(done) - 1)
    keys = {line.key for line in lines}
    assert len(keys) == len(by_unit), "two units ran under one key"
    return (f"ledger: {len(lines)} lines of {len(by_unit)} units; done more than once: {READ} (none) {repeated[READ]}, "
            f"{PUT} (idempotent, same key) {repeated[PUT]}, {SEND} (once) {repeated[SEND]}; of the unknown "
            f"{run.outcomes[Outcome.UNKNOWN]} {happened} had happened")


async def test_nothing_is_lost_and_nothing_is_done_twice_while_nodes_die(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        caller, first = here.caller, here.peers[NAMES[0]]
        await run(caller, ledger_units(10_000_000, 100))  # warm
        before = here.memory()
        alone = await run(caller, ledger_units(0, ALONE, first))
        print(f"\none node:   {alone}")
        assert alone.outcomes == {Outcome.OK: ALONE}
        five = await run(caller, ledger_units(UNITS, UNITS))
        print(f"five nodes: {five}\nspeed-up {five.rate / alone.rate:.2f} with a service time of {SERVICE_MS} ms, "
              f"{CONCURRENCY} at once per node; ideal rate {5 * CONCURRENCY * 1000 / SERVICE_MS:.0f}/s")
        assert five.outcomes == {Outcome.OK: UNITS}

        embed_one = await run(caller, embed_units(EMBEDS, here, first))
        embed_five = await run(caller, embed_units(EMBEDS, here))
        print(f"the real embedder, {psutil.cpu_count()} cores for all nodes: one node {embed_one.rate:.0f}/s, five "
              f"{embed_five.rate:.0f}/s, {embed_five.rate / embed_one.rate:.2f} times; {dict(embed_five.outcomes)}")
        assert embed_five.outcomes == {Outcome.OK: EMBEDS}

        await hard_run(here, 10 * UNITS, None)
        after = here.memory()
        print("memory: " + ", ".join(f"{name} {before[name]:.0f} -> {after[name]:.0f} MB" for name in sorted(after)))
        assert len(after) == len(NAMES) - 2
        assert all(after[name] - before[name] < GROWTH_MB for name in after)
        if SOAK:
            await here.revive()
            await hard_run(here, 20 * UNITS, UNITS)


async def hard_run(here: World, start: int, in_flight: int | None) -> None:
    """The thousand units, from number *start* on, while two workers are killed and one becomes slow."""
    mark = len(ledger_node.read(here.ledger))
    events = {SLOW_AFTER: (SLOWED, signal.SIGUSR1), **{after: (name, signal.SIGKILL) for after, name in KILLED.items()}}

    def happen(count: int) -> None:
        if count in events:
            name, number = events[count]
            here.workers[name].process.send_signal(number)

    units = ledger_units(start, UNITS)
    done = await run(here.caller, units, happen, in_flight)
    await trio.sleep(2 * ledger_node.SLOWED * SERVICE_MS / 1000)  # what was issued twice still runs somewhere
    lines = ledger_node.read(here.ledger)[mark:]
    print(f"two killed, one slowed {ledger_node.SLOWED:g} times, {in_flight or 'two per slot'} sent at once: {done}\n"
          f"{check_ledger(lines, done, start)}")
    assert sorted(result.number for result in done.results) == list(range(UNITS))
    assert set(here.memory()) == set(NAMES) - set(KILLED.values())
    unknown = [result for result in done.results if result.outcome is Outcome.UNKNOWN]
    assert all(TOOLS[(start + result.number) % 3] == SEND for result in unknown)
    failed = [result for result in done.results if result.outcome is Outcome.FAILED]
    assert not failed, Counter(str(result.error) for result in failed).most_common(5)
