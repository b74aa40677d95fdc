"""The second stage between whole nodes: the decision model is at another node, reached over libp2p."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import trio

from atmosphere.capabilities.backend import Backend, Emit, Provision, ToolCall
from atmosphere.capabilities.card import Card, Tool
from atmosphere.config import BackendConfig, RoutingConfig
from atmosphere.node import Node
from atmosphere.routing.intent import Constraints, Intent
from tests.backends.decision_server import DecisionServer
from tests.backends.running import running
from tests.meshes import mesh_of, until

SUBJECTS = ("cooking", "cars")
UNKNOWN = Intent(tool="chat", text="qwrtz")


class Answers(Backend):
    """Two capabilities that answer chats."""

    name = "answers"

    async def discover(self) -> Sequence[Provision]:
        return [Provision(Card("knowledge/answer", f"answers about {subject}", model=subject, tools=(Tool("chat"),)))
                for subject in SUBJECTS]

    async def invoke(self, card: Card, call: ToolCall, emit: Emit) -> bytes:
        await trio.lowlevel.checkpoint()
        return card.model.encode()


async def decides(here: Node, there: Node, url: str) -> None:
    """*here* answers, *there* decides, and *here* knows."""
    answers = Answers()
    here.registry.update(answers, await answers.discover())
    await there.add_backend(BackendConfig(url))
    await until(lambda: {"llm/decide", "knowledge/answer"} <= {route.card.type for route in here.table.routes()})


async def test_a_node_asks_the_decision_model_of_another_one(tmp_path: Path) -> None:
    server = DecisionServer()
    settings = RoutingConfig(decision_deadline_ms=2000)  # a busy machine is not what is tested here
    async with running(server) as run, mesh_of(tmp_path, "AB", routing=settings) as (_, (here, there)):
        await decides(here, there, run.url)
        for subject in SUBJECTS:
            server.prefers = subject
            intent = Intent(tool="chat", text=f"qwrtz {subject[:2]}")
            decision = await here.router.decide(intent)
            assert decision.candidates[0].card.model == subject, decision.second
            async with here.dispatcher.run(intent, b"{}") as execution:
                assert await execution.result() == subject.encode()
        assert sum("which" in request["body"]["questions"] for request in run.log.requests) == 2


async def test_a_hanging_model_there_holds_nobody_up_here(tmp_path: Path) -> None:
    server = DecisionServer()
    async with running(server) as run, mesh_of(tmp_path, "AB") as (_, (here, there)):
        await decides(here, there, run.url)
        server.hang = True
        began = trio.current_time()
        decision = await here.router.decide(UNKNOWN)
        assert decision.candidates
        assert "deadline" in decision.second
        assert trio.current_time() - began < 2
        await until(lambda: run.log.disconnects == 1, 2.0)  # called off there, too
        began = trio.current_time()
        for number in range(10):
            assert (await here.router.decide(Intent(tool="chat", text=f"qwrtz {number}"))).candidates
        assert trio.current_time() - began < 0.3
        assert here.router.arbiter is not None
        assert here.router.arbiter.statistics().asked == 1


async def test_who_has_set_it_off_or_keeps_words_here_asks_nobody_there(tmp_path: Path) -> None:
    server = DecisionServer()
    off = RoutingConfig(decision_model="off")
    async with running(server) as run, mesh_of(tmp_path, "AB", routing=off) as (_, (here, there)):
        await decides(here, there, run.url)
        assert (await here.router.decide(UNKNOWN)).second == ""
    (tmp_path / "stay").mkdir()
    stay = RoutingConfig(stay=("knowledge/*",))
    async with running(server) as run, mesh_of(tmp_path / "stay", "AB", routing=stay) as (_, (here, there)):
        await decides(here, there, run.url)
        decision = await here.router.decide(UNKNOWN)
        assert decision.second.startswith("nobody who decides may be asked about this")
        decision = await here.router.decide(Intent(tool="chat", text="x", constraints=Constraints(local_only=True)))
        assert decision.candidates
        assert not any("which" in request["body"]["questions"] for request in run.log.requests)
