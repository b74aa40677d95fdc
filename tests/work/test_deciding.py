"""The second stage over real sockets: router, dispatcher and adapters, with a decision model on another node.

The model is a stand-in that keeps to System One's documented wire (tests/backends/decision_server.py).
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx2
import openai
import pytest
import trio

from atmosphere.capabilities.backend import Backend, Emit, Provision, ToolCall
from atmosphere.capabilities.card import Card, Tool
from atmosphere.config import BackendConfig
from atmosphere.embedding import HashEmbedder
from atmosphere.env import SystemEnv
from atmosphere.mesh.table import GradientTable
from atmosphere.routing.arbiter import Arbiter, ArbiterSettings, Deciders, Mode
from atmosphere.routing.intent import Constraints, Intent
from atmosphere.routing.matching import card_texts, centroid
from atmosphere.routing.router import Router
from atmosphere.work.deciding import MeshDecisions
from protocols.call.errors import CallError, Code
from tests.backends.decision_server import LIES, DecisionServer
from tests.backends.openai_server import OpenAIServer
from tests.backends.running import Running, running
from tests.http.fake_node import completion
from tests.http.real_work import RealNode, real_node
from tests.mesh.people import ME

pytestmark = pytest.mark.filterwarnings("ignore:Async generator '(openai|httpx2|httpcore2):ResourceWarning")

DEADLINE_S = 0.3
ANSWER_S = 2.0
"""What a chat takes besides, on a busy machine, at most."""


class Answers(Backend):
    """Two capabilities of one node that answer chats with their own names."""

    name = "answers"

    async def discover(self) -> list[Provision]:
        subjects = {"cooking": "recipes and how to cook", "cars": "how cars work and are repaired"}
        return [Provision(Card("knowledge/answer", f"answers about {text}", model=name, tools=(Tool("chat"),)), 8)
                for name, text in subjects.items()]

    async def invoke(self, card: Card, call: ToolCall, emit: Emit) -> bytes:
        await trio.lowlevel.checkpoint()
        return json.dumps({**completion(), "model": card.model}).encode()


@dataclass
class Mesh:
    """A node with a chat model, another one with another, a third that decides."""

    node: RealNode
    client: openai.AsyncOpenAI
    decider: DecisionServer
    run: Running
    arbiter: Arbiter

    async def chat(self, text: str = "qwrtz") -> str:
        """The model that answers *text*."""
        messages: Any = [{"role": "user", "content": text}]
        return (await self.client.chat.completions.create(model="auto", messages=messages)).model

    async def own(self, text: str) -> str:
        """The model that the router alone would choose for *text* now."""
        self.node.router.arbiter = None
        decision = await self.node.router.decide(Intent(tool="chat", text=text))
        self.node.router.arbiter = self.arbiter
        return decision.candidates[0].card.model

    async def unharmed(self, text: str) -> None:
        """*text* is answered by whom the router alone would choose."""
        own = await self.own(text)
        assert await self.chat(text) == own

    def questions(self) -> int:
        return sum("which" in request["body"]["questions"] for request in self.run.log.requests)


@asynccontextmanager
async def mesh(mode: Mode = Mode.ALWAYS) -> AsyncIterator[Mesh]:
    decider = DecisionServer()
    async with (
        running(OpenAIServer(model="alpha")) as one,
        running(OpenAIServer(model="beta")) as other,
        running(decider) as run,
        real_node(*([BackendConfig(server.url)] for server in (one, other, run))) as (node, client),
    ):
        assert node.models() == {"alpha", "beta", "laya"}
        deciders = Deciders(node.table)
        settings = ArbiterSettings(mode=mode, deadline_s=DEADLINE_S)
        ask = MeshDecisions(node.dispatcher, node.router, node.env)
        arbiter = Arbiter(ask, deciders, node.env.monotonic, settings)
        node.router.arbiter = arbiter
        yield Mesh(node, client, decider, run, arbiter)


async def test_an_ambiguous_intent_goes_where_the_model_says() -> None:
    """Words that mean nothing to the router; it never asks about the two chat models, which are alike to everybody."""
    async with mesh(Mode.AMBIGUOUS) as world:
        assert await world.chat() in ("alpha", "beta")
        assert world.questions() == 0
        backend = Answers()
        world.node.registries[ME].update(backend, await backend.discover())
        for liked in ("cooking", "cars"):
            world.decider.prefers = liked
            assert await world.chat(f"qwrtz {liked[1:3]}") == liked
        assert world.questions() == 2
        decision = await world.node.router.decide(Intent(tool="chat", text="qwrtz ar"))
        assert decision.candidates[0].card.model == "cars"
        assert "p = 0.90" in decision.second
        other = decision.candidates[1]
        assert other.factors["second"] == 0.1
        assert other.score < decision.candidates[0].score
        assert decision.elapsed_ms < DEADLINE_S * 1000
        body = world.run.log.requests[-1]["body"]
        assert body["model"] == "laya"
        assert list(body["questions"]["which"]["criteria"]) == ["c1", "c2", "c3", "c4", "none"]


async def test_a_named_model_is_never_asked_about() -> None:
    async with mesh() as world:
        world.decider.prefers = "beta"
        messages: Any = [{"role": "user", "content": "hello"}]
        answer = await world.client.chat.completions.create(model="alpha", messages=messages)
        assert answer.model == "alpha"
        assert world.questions() == 0


async def test_a_clients_own_question_is_not_arbitrated() -> None:
    async with mesh() as world:
        questions: Any = [{"type": "predicate", "instructions": "Does this hold?"}]
        before = len(world.run.log.requests)
        await world.client.decisions.create(model="auto", input="this does hold", questions=questions)
        assert len(world.run.log.requests) == before + 1
        assert world.questions() == world.arbiter.statistics().asked == 0


async def test_a_hanging_model_costs_one_deadline_and_then_nothing() -> None:
    async with mesh() as world:
        world.decider.hang = True
        began = trio.current_time()
        await world.unharmed("first")
        assert DEADLINE_S <= trio.current_time() - began < DEADLINE_S + ANSWER_S
        asked = world.questions()
        for number in range(20):
            began = trio.current_time()
            await world.unharmed(f"later {number}")
            assert trio.current_time() - began < DEADLINE_S
        assert world.questions() == asked
        assert world.run.log.disconnects == 1  # the question was called off, not left behind
        assert world.arbiter.statistics().failed == 1


@pytest.mark.parametrize("lie", [*LIES, "unasked"])
async def test_a_lying_model_changes_nothing(lie: str) -> None:
    async with mesh() as world:
        world.decider.lie = lie
        await world.unharmed("one")
        await world.unharmed("another")
        assert world.arbiter.statistics().failed == 1


def vectors(node: RealNode) -> None:
    """Every card has its vector, as after the first seconds of a node."""
    embedder = HashEmbedder()
    for card_id, card in node.table.cards.items():
        node.router.vectors.put(card_id, centroid(embedder.embed(card_texts(card))))


async def test_a_model_that_says_none_whatever_it_is_asked_refuses_nobody() -> None:
    """What it says could be true each time; a chat model can do more than its card says, and then it does."""
    async with mesh() as world:
        backend = Answers()
        world.node.registries[ME].update(backend, await backend.discover())
        vectors(world.node)
        world.decider.prefers, world.decider.sure = "none", 0.99
        for text in ("qwrtz", "recipes and how to cook", "hello"):
            await world.unharmed(text)
        assert world.questions() == world.arbiter.statistics().none == 3


async def test_nobody_can_is_a_404_with_the_nearest_where_the_router_doubts_too() -> None:
    decider = DecisionServer(prefers="none", sure=0.99)
    async with running(decider) as run, real_node([], [BackendConfig(run.url)]) as (node, client):
        backend = Answers()
        node.registries[ME].update(backend, await backend.discover())
        vectors(node)
        ask = MeshDecisions(node.dispatcher, node.router, node.env)
        settings = ArbiterSettings(Mode.ALWAYS, deadline_s=2.0)
        node.router.arbiter = Arbiter(ask, Deciders(node.table), node.env.monotonic, settings)

        async def chat(text: str) -> str:
            messages: Any = [{"role": "user", "content": text}]
            return (await client.chat.completions.create(model="auto", messages=messages)).model

        with pytest.raises(openai.NotFoundError, match=r"nobody can do this.*nearest are knowledge/answer c"):
            await chat("qwrtz")
        assert await chat("answers about recipes and how to cook") == "cooking", "the matcher is sure that somebody can"
        decider.hang = True
        assert await chat("qwrtz again") in ("cooking", "cars"), "the matcher's doubt alone refuses nothing"


@pytest.mark.parametrize("status", [400, 422, 429, 500, 503])
async def test_a_failing_model_changes_nothing(status: int) -> None:
    async with mesh() as world:
        world.decider.status = status
        began = trio.current_time()
        await world.unharmed("one")
        assert trio.current_time() - began < DEADLINE_S + ANSWER_S


async def test_a_model_that_dies_changes_nothing() -> None:
    async with mesh() as world:
        await world.unharmed("before")
        await world.run.kill()
        for number in range(3):
            await world.unharmed(f"after {number}")


async def test_who_was_silent_is_not_the_one_to_be_asked_next() -> None:
    servers = [DecisionServer(model="laya"), DecisionServer(model="laya")]
    async with (
        running(servers[0]) as one,
        running(servers[1]) as other,
        real_node([], *([BackendConfig(run.url)] for run in (one, other))) as (node, _),
    ):
        ask = MeshDecisions(node.dispatcher, node.router, node.env)
        intent = Intent(tool="decide", constraints=Constraints(type="llm/decide"))
        args = json.dumps({"state": "x", "questions": {"q": {"type": "noul", "instructions": "what?"}}}).encode()
        asked = [len(run.log.requests) for run in (one, other)]
        await ask(intent, args, ANSWER_S)
        first = 0 if len(one.log.requests) > asked[0] else 1
        servers[first].hang = True
        failed = 0
        for _ in range(6):
            try:
                await ask(intent, args, DEADLINE_S)
            except CallError as error:
                assert error.code is Code.DEADLINE  # noqa: PT017 - it may fail, but in this way only
                failed += 1
        assert failed <= 3


async def test_many_intents_at_once_wait_for_nobody() -> None:
    """Four questions are under way at most; the other intents go on without."""
    async with mesh() as world:
        world.decider.delay_s = 0.1
        router = world.node.router
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            for number in range(50):
                nursery.start_soon(router.decide, Intent(tool="chat", text=f"intent {number}"))
        assert trio.current_time() - began < ANSWER_S
        assert world.questions() <= 8
        assert world.arbiter.statistics().failed == 0


async def test_the_dry_run_says_what_was_settled() -> None:
    async with mesh() as world, httpx2.AsyncClient() as http:
        world.decider.prefers = "beta"
        decision = await world.node.router.decide(Intent(tool="chat", text="anything"))
        assert "the decision model" in decision.second
        url = f"{str(world.client.base_url).rstrip('/')}/mesh/route"
        answer = await http.post(url, json={"intent": "anything", "type": "llm/chat"})
        assert answer.json()["candidates"][0]["model"] == "beta"
        assert "p = 0.90" in answer.json()["second"]


async def test_a_question_has_its_deadline_whatever_the_dispatcher_does() -> None:
    class Stuck:
        @asynccontextmanager
        async def run(self, intent: Intent, args: bytes, *, deadline_s: float | None = None,
                      trace_id: bytes = b"") -> AsyncIterator[Any]:
            await trio.sleep_forever()
            yield

    env = SystemEnv()
    ask = MeshDecisions(Stuck(), Router(GradientTable(ME), HashEmbedder(), env, {}), env)
    began = trio.current_time()
    with pytest.raises(CallError) as caught:
        await ask(Intent(tool="decide"), b"{}", 0.05)
    assert caught.value.code is Code.DEADLINE
    assert trio.current_time() - began < 1
