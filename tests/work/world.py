"""A dispatcher over nodes that are functions: what each does with a call is the test's to say."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager

import trio

from atmosphere.capabilities.backend import Emit, ToolCall
from atmosphere.capabilities.card import Card, Effects, Tool
from atmosphere.capabilities.offer import Offer, OfferEntry
from atmosphere.env import FixedEnv
from atmosphere.mesh.table import GradientTable
from atmosphere.routing.affinity import Affinity
from atmosphere.routing.decision import Candidate, Decision, DecisionLog
from atmosphere.routing.intent import Intent
from atmosphere.routing.outcomes import Outcomes
from atmosphere.work.dispatcher import Dispatcher
from atmosphere.work.local import LocalWork
from protocols.call import CallError, Code
from tests.mesh.people import ME
from transports.peer_id import PeerId

Run = Callable[[ToolCall, Emit], Awaitable[bytes]]
INTENT = Intent(tool="do")
CARD_ID = bytes(32)


def card(effects: Effects, features: tuple[str, ...] = (), tool: str = "do") -> Card:
    return Card("test/do", "does", features=features, tools=(Tool(tool, effects=effects),))


class FakeRouter:
    """Ranks the peers it was given, in that order, as long as they are not taken away."""

    def __init__(self, peers: list[PeerId], what: Card) -> None:
        self.outcomes = Outcomes()
        self.affinity = Affinity()
        self.log = DecisionLog()
        self.peers = peers
        self.decisions = 0
        self._card = what

    async def decide(self, intent: Intent) -> Decision:
        self.decisions += 1
        return Decision(
            intent,
            tuple(Candidate(p, p.short, CARD_ID, self._card, 10.0**-n, {}, "lan", None)
                  for n, p in enumerate(self.peers)),  # far apart: nobody is drawn in place of a better one
            missing="nobody does that",
        )


class FakeMesh:
    """Runs each peer's work in this process."""

    def __init__(self, nursery: trio.Nursery, runs: Mapping[PeerId, Run]) -> None:
        self.nursery = nursery
        self.runs = runs
        self.calls: list[tuple[PeerId, ToolCall]] = []

    async def start(self, candidate: Candidate, call: ToolCall) -> LocalWork:
        self.calls.append((candidate.peer, call))
        run = self.runs[candidate.peer]
        return LocalWork(lambda emit: run(call, emit), self.nursery)

    def asked(self, peer: PeerId) -> int:
        return sum(1 for asked, _ in self.calls if asked == peer)


class World:
    def __init__(self, dispatcher: Dispatcher, mesh: FakeMesh, table: GradientTable, router: FakeRouter) -> None:
        self.dispatcher, self.mesh, self.table, self.router = dispatcher, mesh, table, router
        self.failed: list[PeerId] = []


@asynccontextmanager
async def world(
    runs: Mapping[PeerId, Run], effects: Effects = Effects.NONE, *, slots: int = 4, what: Card | None = None,
    noted: bool = True,
) -> AsyncIterator[World]:
    """Each peer offers one tool, *slots* at once. *noted*: who failed is only noted, the table stays as it is."""
    failed: list[PeerId] = []
    async with trio.open_nursery() as nursery:
        table = GradientTable(ME)
        for peer in runs:
            table.node(peer, 0.0)
            table.offered(peer, Offer(peer, 1, 1, peer.short, (OfferEntry(CARD_ID, slots),), 0.0))
        router = FakeRouter(list(runs), what or card(effects))
        mesh = FakeMesh(nursery, runs)

        async def local(card_id: bytes, call: ToolCall, emit: Emit) -> bytes:
            return await runs[ME](call, emit)

        dispatcher = Dispatcher(
            router, table, local, mesh, FixedEnv(), nursery,  # type: ignore[arg-type]
            on_failed=(lambda peer, why: failed.append(peer)) if noted else None,
        )
        here = World(dispatcher, mesh, table, router)
        here.failed = failed
        yield here
        nursery.cancel_scope.cancel()


def fails(code: Code, retryable: bool = False, retry_after_ms: int = 0) -> Run:
    async def run(call: ToolCall, emit: Emit) -> bytes:
        raise CallError(code, "no", retryable=retryable, retry_after_ms=retry_after_ms)

    return run


def takes(seconds: float, answer: bytes = b"{}") -> Run:
    async def run(call: ToolCall, emit: Emit) -> bytes:
        await trio.sleep(seconds)
        return answer

    return run
