"""Decisions of a real ``transformers serve`` with tiny local weights: found, asked, and asked by the router.

Needs another interpreter with torch, transformers (5.23) and what ``transformers serve`` needs, named by the variable
TRANSFORMERS_PYTHON: too heavy for the tests' own environment. Without it this file is not collected (conftest.py).
"""

from __future__ import annotations

import os
import socket
import subprocess
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
import trio

from atmosphere.config import BackendConfig
from atmosphere.routing.arbiter import Arbiter, ArbiterSettings, Deciders, Mode
from atmosphere.routing.intent import Intent
from atmosphere.work.deciding import MeshDecisions
from tests.backends.openai_server import OpenAIServer
from tests.backends.running import running
from tests.http.real_work import real_node

PYTHON = os.environ["TRANSFORMERS_PYTHON"]
MAKER = Path(__file__).with_name("tiny_decider.py")
START_S = 60.0
MODEL = "tiny/llama"

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.filterwarnings("ignore:Async generator '(openai|httpx2|httpcore2):ResourceWarning"),
]


@asynccontextmanager
async def transformers(letter: str) -> AsyncIterator[str]:
    """The server's address; its model prefers *letter*."""
    with socket.socket() as free, tempfile.TemporaryDirectory() as home:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        environment = {**os.environ, "HF_HOME": home, "HF_HUB_OFFLINE": "1"}
        await trio.run_process([PYTHON, str(MAKER), home, letter], env=environment, capture_stderr=True)
        command = [PYTHON, "-m", "transformers.cli.transformers", "serve", "--host", "127.0.0.1", "--port", str(port),
                   "--device", "cpu"]
        server = await trio.lowlevel.open_process(
            command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            url = f"http://127.0.0.1:{port}"
            async with httpx2.AsyncClient() as http:
                with trio.fail_after(START_S):
                    while True:
                        try:
                            await http.get(f"{url}/health")
                            break
                        except httpx2.TransportError:
                            await trio.sleep(0.3)
                # Load the model; the scanner would ask again at its next look, these tests look once.
                body = {"model": MODEL, "state": "x", "questions": {"q": {"type": "noul", "instructions": "x?"}}}
                (await http.post(f"{url}/v1/systemone", json=body, timeout=START_S)).raise_for_status()
            yield url
        finally:
            server.kill()
            with trio.CancelScope(shield=True):
                await server.wait()


async def test_a_real_server_decides_for_clients_and_for_the_router() -> None:
    async with (
        transformers("B") as url,
        running(OpenAIServer(model="alpha")) as one,
        running(OpenAIServer(model="beta")) as other,
        real_node(*([BackendConfig(address)] for address in (one.url, other.url, url))) as (node, client),
    ):
        offered = {(route.card.model, route.card.type) for route in node.table.routes()}
        assert {(MODEL, "llm/decide"), (MODEL, "llm/chat")} <= offered

        questions: Any = [
            {"type": "choice", "name": "which", "instructions": "Which?", "choices": [{"value": "x"}, {"value": "y"}]},
            {"type": "predicate", "instructions": "Is it so?"},
            {"type": "score", "instructions": "How much?", "levels": [{"label": "a"}, {"label": "b"}, {"label": "c"}]},
        ]
        answer = await client.decisions.create(model=MODEL, input="hello", questions=questions)
        which, so, much = answer.answers
        assert (which.type, so.type, much.type) == ("choice", "predicate", "score")
        assert which.choice == "y"
        assert 0 <= so.probability <= 1
        assert much.score == pytest.approx(1, abs=0.2)

        ask = MeshDecisions(node.dispatcher, node.router, node.env)
        arbiter = Arbiter(ask, Deciders(node.table), node.env.monotonic,
                          ArbiterSettings(mode=Mode.ALWAYS, deadline_s=20))
        node.router.arbiter = arbiter
        decision = await node.router.decide(Intent(tool="chat", text="qwrtz"))
        assert arbiter.statistics().failed == 0
        assert decision.second
        cards = sorted({candidate.card_id for candidate in decision.candidates})
        assert decision.candidates[0].card_id == cards[1]  # B is the second option
