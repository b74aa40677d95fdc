"""Demand: what people want of a mesh and when, workers that take their time for it, and who would place it best."""

from __future__ import annotations

import json
import random  # noqa: TID251  # type only; generators come from the virtual world
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from heapq import heapreplace

import trio

from atmosphere.capabilities.backend import Emit, Provision, ToolCall
from atmosphere.capabilities.card import Card, Tool
from atmosphere.routing.intent import Intent
from atmosphere.work.units import Unit
from protocols.call.errors import CallError
from simulations.twins import WORK, Worker
from simulations.world import Member
from transports.peer_id import PeerId

DEADLINE_S = 60.0


class Way(StrEnum):
    """Through which door of the dispatcher somebody comes."""

    UNIT = "unit"
    """To the less busy of two capable nodes, as units of work and plans go."""
    CALL = "call"
    """To the one that is ranked first, as requests over HTTP go."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of work: what a card says of it, and how people ask for it in their own words."""

    subject: str
    description: str
    example: str
    wishes: tuple[str, ...]

    @property
    def card(self) -> Card:
        return Card(
            type=WORK.type,
            description=self.description,
            examples=(self.example,),
            topics=(self.subject,),
            tools=(Tool(WORK.tool, "Does it", '{"type":"object"}'),),
        )


# Wishes share words with their card, as the embedding twin knows words alone; MiniLM gives the same matches.
KINDS = (
    Kind("translation", "Translates letters and documents from one language into another",
         "Translate this letter into French",
         ("translate my documents into another language", "this letter in French: a translation into my language")),
    Kind("photos", "Sorts photos and finds faces and places in pictures", "Find all photos of my dog",
         ("sort photos and pictures, find places", "which photos show these faces")),
    Kind("music", "Composes melodies and writes scores for instruments", "Compose a waltz for two violins",
         ("compose melodies for my instruments", "compose a waltz and scores for two instruments")),
    Kind("tax", "Fills in tax returns and checks invoices of a business", "Check the invoices of last year",
         ("check my tax returns", "fill in the tax forms of my business from these invoices")),
    Kind("cooking", "Invents recipes from ingredients and plans meals", "What can I cook with eggs and spinach",
         ("recipes with these ingredients: eggs, spinach", "plan meals and what to cook this week")),
    Kind("weather", "Forecasts rain, wind and temperature of the coming days", "Will it rain tomorrow",
         ("forecast of wind and rain for the coming days", "what temperature will it have tomorrow, will it rain")),
    Kind("programming", "Writes and reviews source code and explains bugs", "Why does this function crash",
         ("review source code and explain bugs", "explains the bugs and why the function of this code does crash")),
    Kind("gardening", "Advises on plants, soil and pests in gardens", "Why are the leaves of my tomatoes yellow",
         ("which soil do plants in gardens like", "pests on the yellow leaves of my tomatoes")),
)


@dataclass(frozen=True, slots=True)
class Job:
    """Somebody wants something at a moment."""

    number: int
    at: float
    """Seconds after the beginning."""
    kind: int
    text: str
    seconds: float
    """How long an ordinary node works on it."""

    @property
    def args(self) -> bytes:
        return json.dumps({"seconds": self.seconds}).encode()


def jobs(
    draw: random.Random, rate: Callable[[float], float], most: float, lasts_s: float, kinds: int, seconds: float
) -> Iterator[Job]:
    """Independent jobs (a Poisson process) of *kinds* kinds, as many of each, *rate* per second at a moment.

    *most*: the highest rate. *seconds*: of work, on average; between half and one and a half of that each.
    """
    at, number = 0.0, 0
    while (at := at + draw.expovariate(most)) < lasts_s:
        kind, share = draw.randrange(kinds), draw.random()
        text, size = draw.choice(KINDS[kind].wishes), round(seconds * draw.uniform(0.5, 1.5), 3)
        if share * most < rate(at):
            yield Job(number, at, kind, text, size)
            number += 1


class BusyWorker(Worker):
    """Works as long as a job takes, in virtual time, *slowness* times longer than others; some at once."""

    def __init__(self, kind: int, slots: int, slowness: float = 1.0) -> None:
        super().__init__([KINDS[kind].card])
        self.kind = kind
        self.slots = slots
        self.slowness = slowness

    async def discover(self) -> Sequence[Provision]:
        return [Provision(card, self.slots) for card in self.cards]

    async def invoke(self, card: Card, call: ToolCall, emit: Emit) -> bytes:
        await trio.sleep(call.arguments()["seconds"] * self.slowness)
        return b"{}"


class Reach(StrEnum):
    """How far it was to who answered."""

    LOCAL = "local"
    LINKED = "linked"
    NEW = "new"
    """There was no connection when the wish came up."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of a job in the mesh."""

    peer: PeerId | None
    """Who answered; None: nobody did."""
    seconds: float
    in_vain: int
    """Others that were tried."""
    reach: Reach | None


async def ask(member: Member, job: Job, way: Way) -> Answer:
    """Have *job* done through the router and dispatcher of *member*'s node."""
    began, dispatcher, intent = trio.current_time(), member.node.dispatcher, Intent(tool=WORK.tool, text=job.text)
    linked = frozenset(member.node.host.connections())
    if way is Way.UNIT:
        done = await dispatcher.unit(Unit(intent, job.args, deadline_s=DEADLINE_S))
        peer, in_vain = done.peer if done.ok else None, len(done.attempts)
    else:
        peer, in_vain = None, 0
        try:
            async with dispatcher.run(intent, job.args, deadline_s=DEADLINE_S) as execution:
                await execution.result()
                peer, in_vain = execution.candidate.peer, len(execution.attempts)
        except CallError:
            peer = None
    reach = None
    if peer is not None:
        reach = Reach.LOCAL if peer == member.peer else Reach.LINKED if peer in linked else Reach.NEW
    return Answer(peer, trio.current_time() - began, in_vain, reach)


@dataclass(frozen=True, slots=True)
class Placed:
    """Who answered a job, and how long after the wish."""

    server: int
    seconds: float


class Oracle:
    """Knows who serves what, every queue and the length of every job, and gives each job to who answers it first."""

    def __init__(self, workers: Sequence[BusyWorker], latency_s: Callable[[int, int], float]) -> None:
        """*latency_s*: from one node to another, one way; 0 to itself."""
        self._workers = workers
        self._latency_s = latency_s
        self._free: list[list[float]] = [[0.0] * worker.slots for worker in workers]
        """When each slot of each node is free; the earliest first."""

    def place(self, job: Job, caller: int) -> Placed:
        """Jobs come in the order of their moments."""
        able = [number for number, worker in enumerate(self._workers) if worker.kind == job.kind]
        answered, server = min(
            (self._ends(job, caller, number) + self._latency_s(number, caller), number) for number in able
        )
        heapreplace(self._free[server], self._ends(job, caller, server))
        return Placed(server, answered - job.at)

    def _ends(self, job: Job, caller: int, server: int) -> float:
        begins = max(job.at + self._latency_s(caller, server), self._free[server][0])
        return begins + job.seconds * self._workers[server].slowness
