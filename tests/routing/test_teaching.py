"""A whole node learns from a person where intents go, and knows it after a restart."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import httpx2
import trio

from atmosphere.capabilities.backend import Backend, Emit, Provision, ToolCall
from atmosphere.capabilities.card import Card, Tool, card_id
from atmosphere.http.server import serve
from atmosphere.node import Node
from atmosphere.routing.decision import Decision
from atmosphere.routing.intent import Intent
from atmosphere.routing.lessons import SURE
from tests.http.conftest import LIMITS
from tests.http.fake_node import completion
from tests.meshes import Meshes, until

LIGHTS = Card("test/lights", "Lamps and light switches", examples=("turn on the lamp",), tools=(Tool("chat"),))
HEATING = Card("test/heating", "Radiators", examples=("make it warmer here",), tools=(Tool("chat"),))
WRONG = Intent(tool="chat", text="turn the lamp warmer here")
UNRELATED = Intent(tool="chat", text="lamps and switches")


class House(Backend):
    name = "house"

    async def discover(self) -> Sequence[Provision]:
        return [Provision(LIGHTS, 1), Provision(HEATING, 1)]

    async def invoke(self, card: Card, call: ToolCall, emit: Emit) -> bytes:
        await trio.lowlevel.checkpoint()
        return json.dumps({**completion(), "model": card.type}).encode()


LIGHTS_ID = card_id(LIGHTS.encode())


async def offer(node: Node) -> None:
    house = House()
    node.registry.update(house, await house.discover())
    await until(lambda: all(card_id(card.encode()) in node.router.vectors for card in (LIGHTS, HEATING)))


async def goes_to(node: Node, intent: Intent) -> Card:
    chosen = (await node.router.decide(intent)).chosen
    assert chosen is not None
    return chosen.card


async def test_what_a_person_says_sends_the_intent_elsewhere_also_after_a_restart(tmp_path: Path) -> None:
    meshes = Meshes(tmp_path)
    home = meshes.found()
    async with meshes.node(home) as node:
        await offer(node)
        assert await goes_to(node, WRONG) == LIGHTS
        before = (await node.router.decide(UNRELATED)).candidates
        assert await node.teach(await node.router.decide(WRONG), node.peer_id, LIGHTS_ID, good=False)
        assert await goes_to(node, WRONG) == HEATING
        after = (await node.router.decide(UNRELATED)).candidates
        assert [(one.card, one.score) for one in after] == [(one.card, one.score) for one in before]
    async with meshes.node(home) as node:
        await offer(node)
        assert await goes_to(node, WRONG) == HEATING
        node._revoked(node.peer_id)
        assert await goes_to(node, WRONG) == LIGHTS


NOTHING_SAID = Decision(UNRELATED, ())
LESSONS: dict[str, tuple[Decision, bool, bool]] = {
    "no text": (Decision(Intent(tool="chat"), ()), False, False),
    "a named model": (Decision(Intent(tool="chat", text="turn it on", model="tiny"), ()), False, False),
    "a capability name": (
        Decision(Intent(tool="chat", text="writes code", model="best-code", level="best-code"), ()), False, False
    ),
    "praise of what was sure": (replace(NOTHING_SAID, right=SURE, meant=LIGHTS_ID), True, False),
    "praise of what was not": (replace(NOTHING_SAID, right=SURE - 0.01, meant=LIGHTS_ID), True, True),
    "blame of what was sure": (replace(NOTHING_SAID, right=SURE, meant=LIGHTS_ID), False, True),
    "praise of another card": (replace(NOTHING_SAID, right=SURE, meant=bytes(32)), True, True),
    "praise where there was one card": (NOTHING_SAID, True, True),
}


async def test_what_teaches_and_what_does_not(tmp_path: Path) -> None:
    meshes = Meshes(tmp_path)
    async with meshes.node(meshes.found()) as node:
        lessons = node.router.vectors.lessons
        for name, (decision, good, learns) in LESSONS.items():
            assert await node.teach(decision, node.peer_id, LIGHTS_ID, good) is learns, name
            assert len(lessons) == learns, name
            lessons.forget(node.peer_id)


async def test_over_http_the_next_request_goes_to_the_card_that_was_named(tmp_path: Path) -> None:
    meshes = Meshes(tmp_path)
    with tempfile.TemporaryDirectory() as short:  # the path of a socket has a limit
        async with meshes.node(meshes.found()) as node, trio.open_nursery() as nursery:
            await offer(node)
            control = Path(short) / "control.sock"
            bound = await nursery.start(partial(serve, node, public="127.0.0.1:0", control=control, limits=LIMITS))
            async with httpx2.AsyncClient(base_url=bound.url) as client:
                chat = {"model": "auto", "messages": [{"role": "user", "content": WRONG.text}]}
                first = await client.post("/v1/chat/completions", json=chat)
                assert first.json()["model"] == LIGHTS.type
                said = await client.post("/v1/mesh/feedback", json={
                    "request_id": first.headers["x-atmosphere-request-id"],
                    "good": False,
                    "instead": card_id(HEATING.encode()).hex()[:12],
                })
                assert (said.status_code, said.json()["taught"]) == (200, True)
                assert (await client.post("/v1/chat/completions", json=chat)).json()["model"] == HEATING.type
            assert len(node.router.vectors.lessons) == 2
            nursery.cancel_scope.cancel()
