"""Many routers that do not know of each other, over nodes they all see alike: nobody is trampled, nobody is left out.

Each of 50 routers has its own table, with loads as old as beacons make them, and decides through the product's own
router and choice. The nodes are queues. Only the network is left out: a beacon is there after a delay.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from math import inf
from typing import Any

import pytest

from atmosphere.capabilities.card import Card, Tool
from atmosphere.capabilities.offer import Offer, OfferEntry
from atmosphere.embedding import HashEmbedder
from atmosphere.env import FixedEnv
from atmosphere.mesh.announcer import LOAD_STEP_PERMILLE, LOADS_PER_SECOND, QUEUE_FACTOR
from atmosphere.mesh.table import GradientTable, Path
from atmosphere.routing.decision import Candidate
from atmosphere.routing.intent import Intent
from atmosphere.routing.router import Router
from atmosphere.work import choice
from atmosphere.work.attempts import Attempts
from atmosphere.work.choice import Choice
from atmosphere.work.spread import draw_equal
from protocols.beacons import Beacon
from tests.mesh.people import ME, OTHER, membership_of
from transports.peer_id import PeerId

ROUTERS = 50
EQUAL = 5
SLOTS = 4
SLOWER = 3.0
"""Times as long, on the slow node."""
CALLS = 1000
CARD = Card("llm/chat", "chats", model="m", tools=(Tool("chat"),))
CARD_ID = bytes(32)
INTENT = Intent(tool="chat", model="m")
NODES = [PeerId.from_public_key(random.Random(number).randbytes(32)) for number in range(EQUAL + 1)]
TOLD_S = (0.1, 0.3)
"""Until a beacon is everywhere: the gap between two looks at a load, and the way through the mesh."""


class Clock:
    """Events in virtual time."""

    def __init__(self) -> None:
        self.now = 0.0
        self._events: list[tuple[float, int, Callable[[], Any]]] = []
        self._count = count()

    def at(self, when: float, what: Callable[[], Any]) -> None:
        heapq.heappush(self._events, (when, next(self._count), what))

    async def run(self, until: float) -> None:
        while self._events and self._events[0][0] <= until:
            self.now, _, what = heapq.heappop(self._events)
            made = what()
            if made is not None:
                await made


class Env(FixedEnv):
    def __init__(self, clock: Clock, seed: int) -> None:
        super().__init__(seed)
        self.clock = clock

    def monotonic(self) -> float:
        return self.clock.now


@dataclass
class Server:
    """A node that works: SLOTS at once, the others wait."""

    peer: PeerId
    seconds: float
    running: int = 0
    waiting: list[Callable[[], None]] = field(default_factory=list)
    done: int = 0
    told: tuple[int, int] = (0, 0)
    told_at: float = -inf
    waits: bool = False
    """It has something to tell as soon as it may."""
    others: int = 0
    """Calls of nobody here."""

    def load(self) -> tuple[int, int]:
        running = min(self.running + self.others, SLOTS)
        return running * 1000 // SLOTS, len(self.waiting) + self.running + self.others - running

    def moved(self) -> bool:
        """The announcer's rule of what is told early."""
        (permille, queue), (told, told_queue) = self.load(), self.told
        shorter, longer = sorted((queue, told_queue))
        return abs(permille - told) >= LOAD_STEP_PERMILLE or (longer > 0 and longer >= QUEUE_FACTOR * shorter)


class World:
    def __init__(self, seed: int, rate: float, seconds: float, routers: int = ROUTERS) -> None:
        """*rate*: calls a second, of all routers. *seconds*: what a call takes on one of the equal nodes."""
        self.clock, self.random, self.rate, self.routers = Clock(), random.Random(seed), rate, routers
        self.servers = {
            peer: Server(peer, seconds * (SLOWER if number == EQUAL else 1.0)) for number, peer in enumerate(NODES)
        }
        self.tables: list[tuple[GradientTable, Router]] = []
        self.choices: list[Choice] = []
        self.attempts: list[Attempts] = []
        self.waits: list[float] = []
        self.arrived: Callable[[Server], None] = lambda server: None
        """Told of every call, and where it has come to."""
        for number in range(routers):
            self._router(number)
            self.clock.at(self.random.expovariate(rate / routers), lambda number=number: self._arrive(number))
        for peer in NODES:  # what did not move enough to be told at once comes with the next beacon
            self.clock.at(self.random.uniform(0, 15), lambda peer=peer: self._beacon(peer))

    def _router(self, number: int) -> None:
        env = Env(self.clock, number)
        table = GradientTable(ME)
        table.connected(ME, Path.LOCAL, 0.0)
        table.described(CARD_ID, CARD)
        for peer in NODES:
            table.connected(peer, Path.LAN, 0.0)
            table.observe(peer, Beacon(bytes(32), 1, 1, 15_000, bytes(32), 0, 0, 0, 1000), membership_of(OTHER), 0.0)
            table.offered(peer, Offer(peer, 1, 1, "", (OfferEntry(CARD_ID, SLOTS),), 0.0))
            table.measured(peer, 5.0)  # all alike: nothing keeps the routers from agreeing
        router = Router(table, HashEmbedder(), env, {})
        nobody: Any = None  # the calls are this test's own
        attempts = Attempts(table, router.outcomes, nobody, nobody, env, nobody, lambda peer, why: None)
        self.tables.append((table, router))
        self.attempts.append(attempts)
        self.choices.append(Choice(router, table, attempts, env))

    async def _arrive(self, number: int) -> None:
        self.clock.at(self.clock.now + self.random.expovariate(self.rate / self.routers), lambda: self._arrive(number))
        candidate = (await self.choices[number].one(INTENT)).candidates[0]
        pair = self.attempts[number].pairs.of(candidate)
        pair.under_way += 1
        server = self.servers[candidate.peer]
        began = self.clock.now
        self.arrived(server)

        def start() -> None:
            server.running += 1
            self.clock.at(self.clock.now + server.seconds * self.random.uniform(0.5, 1.5), end)

        def end() -> None:
            server.running -= 1
            server.done += 1
            pair.under_way -= 1
            pair.took(self.clock.now - began)
            self.waits.append(self.clock.now - began)
            table, router = self.tables[number]
            if server.waiting:
                server.waiting.pop(0)()
            table.load(server.peer, *server.load(), self.clock.now)  # it comes with the answer
            router.outcomes.record(server.peer, CARD_ID, good=True, seconds=self.clock.now - began)
            self._look(server)

        if server.running < SLOTS:
            start()
        else:
            server.waiting.append(start)
        self.tables[number][0].load(server.peer, *server.load(), self.clock.now)  # with its word that it has it
        self._look(server)

    def others(self, server: Server, calls: int) -> None:
        """From now on *server* has so many *calls* of somebody else, too."""
        server.others = calls
        self._look(server)

    def _look(self, server: Server) -> None:
        if not server.moved() or server.waits:
            return
        wait = server.told_at + (self.routers + len(NODES)) / LOADS_PER_SECOND - self.clock.now
        if wait <= 0:
            self._say(server)
            return

        def later() -> None:
            server.waits = False
            self._look(server)

        server.waits = True
        self.clock.at(self.clock.now + wait, later)

    def _beacon(self, peer: PeerId) -> None:
        self._say(self.servers[peer])
        self.clock.at(self.clock.now + 15.0, lambda: self._beacon(peer))

    def _say(self, server: Server) -> None:
        server.told, server.told_at = server.load(), self.clock.now
        told, peer = server.told, server.peer
        for table, _ in self.tables:
            self.clock.at(self.clock.now + self.random.uniform(*TOLD_S),
                          lambda table=table: table.load(peer, *told, self.clock.now))


async def run(seed: int, utilisation: float, seconds: float) -> tuple[list[int], float, float]:
    """Calls done by each of the equal nodes; the slow one's share of all, 1 being that of its speed; and how long the
    mean call took, 1 being on an equal node that is idle."""
    speed = SLOTS * (EQUAL + 1 / SLOWER) / seconds  # calls a second that all nodes together can do
    world = World(seed, utilisation * speed, seconds)
    await world.clock.run(until=CALLS / world.rate)
    *equal, slow = (server.done for server in world.servers.values())
    share = slow / (sum(equal) + slow) / (SLOTS / SLOWER / seconds / speed)
    return equal, share, sum(world.waits) / len(world.waits) / seconds


@pytest.mark.parametrize("seconds", [3.0, 1.0, 0.1])
@pytest.mark.parametrize("utilisation", [0.2, 0.5, 0.8])
async def test_equal_nodes_get_equal_work_and_the_slow_one_its_share(utilisation: float, seconds: float) -> None:
    equal, share, took = await run(1, utilisation, seconds)
    assert max(equal) / min(equal) <= 1.5
    assert 0.5 <= share <= 1.5
    assert took < 2.2


async def test_everybody_to_the_best_is_a_herd(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the draw is for: without it short calls wait where everybody else has gone."""
    drawn = await run(1, 0.8, 0.1)
    monkeypatch.setattr(choice, "draw_equal", lambda candidates, now, capacity, draw: list(candidates))
    herd = await run(1, 0.8, 0.1)
    assert herd[2] > 1.2 * drawn[2]


async def test_overload_moves_traffic_within_a_second_and_it_comes_back() -> None:
    """Others fill one of the nodes for 20 s. A small mesh: among n nodes a load is told n / 16 s after the last one, at
    the earliest."""
    world = World(1, 0.3 * SLOTS * EQUAL, 1.0, routers=4)
    busy = world.servers[NODES[0]]
    began: list[float] = []

    def note(server: Server) -> None:
        if server is busy:
            began.append(world.clock.now)

    world.arrived = note
    world.clock.at(20.0, lambda: world.others(busy, 3 * SLOTS))
    world.clock.at(40.0, lambda: world.others(busy, 0))
    await world.clock.run(until=60.0)

    def calls(start: float, end: float) -> int:
        return sum(start <= moment < end for moment in began)

    assert calls(0.0, 20.0) > 15
    assert calls(21.0, 40.0) == 0, "within a second, and as long as it lasts"
    assert calls(41.0, 60.0) > 15
    assert calls(40.0, 43.0) > 0


def candidates(*scores: float, path: str = "lan", **factors: float) -> list[Candidate]:
    return [Candidate(NODES[number], str(number), CARD_ID, CARD, score, factors if number else {}, path, 1.0)
            for number, score in enumerate(scores)]


def firsts(of: list[Candidate], now: Callable[[Candidate], float] | None = None, draws: int = 2000) -> list[float]:
    """How often each of *of* is tried first."""
    draw = random.Random(5).random
    chosen = [draw_equal(of, now or (lambda one: one.score), lambda one: 1.0, draw)[0].node_name for _ in range(draws)]
    return [chosen.count(one.node_name) / draws for one in of]


def test_equals_get_equal_chances_and_the_worse_hardly_any() -> None:
    assert firsts(candidates(1.0, 1.0, 1.0, 1.0)) == pytest.approx([0.25] * 4, abs=0.03)
    assert firsts(candidates(1.0, 0.9)) == [1.0, 0.0]
    assert firsts(candidates(1.0, 1.0, 1.0, 0.99))[3] == 0.0, "both drawn are looked at"
    assert firsts(candidates(1.0, 0.9, 0.9))[0] > 0.7


def test_the_busy_one_loses() -> None:
    def now(busy: str) -> Callable[[Candidate], float]:
        return lambda one: one.score * (0.5 if one.node_name == busy else 1.0)

    assert firsts(candidates(1.0, 0.9), now("0")) == [0.0, 1.0]
    assert firsts(candidates(1.0, 1.0, 1.0, 1.0), now("2"))[2] == 0.0


def test_idleness_does_not_make_up_for_fit_nor_for_what_is_computed_already() -> None:
    for factor in ("match", "affinity"):
        assert firsts(candidates(0.6, 0.6, **{factor: 0.99})) == [1.0, 0.0]


def test_what_can_be_done_here_is_done_here_while_there_is_room() -> None:
    both = [candidates(1.0, path="local")[0], candidates(1.0, 0.99999)[1]]
    assert firsts(both) == [1.0, 0.0]
    assert firsts(both, lambda one: 0.5 if one.path == "local" else one.score)[1] > 0.9


def test_the_others_follow_by_score() -> None:
    four = candidates(1.0, 1.0, 0.99, 0.5)
    order = draw_equal(four, lambda one: one.score, lambda one: 1.0, random.Random(3).random)
    assert order[1:] == [one for one in four if one is not order[0]]
    assert draw_equal([], lambda one: 1.0, lambda one: 1.0, random.random) == []
