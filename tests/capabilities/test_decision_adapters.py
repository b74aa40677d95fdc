"""Decision models behind the adapters, against stand-ins over real sockets: found without harm, asked, not believed."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from atmosphere.capabilities.adapters.decisions import PROBE_GAP_MAX, Finder
from atmosphere.capabilities.adapters.ollama import OllamaBackend, model_cards
from atmosphere.capabilities.adapters.openai import OpenAIBackend
from atmosphere.capabilities.backend import Backend
from atmosphere.capabilities.card import Card
from atmosphere.capabilities.upstream import Upstream
from protocols.call import Code
from tests.backends.decision_server import LIES, DecisionServer
from tests.backends.ollama_server import Model, OllamaServer
from tests.backends.openai_server import OpenAIServer
from tests.backends.running import Running, running
from tests.capabilities.calls import failure, invoke

QUESTIONS = {
    "team": {"type": "choice", "instructions": "Which team?", "criteria": {"billing": "payments", "shipping": None}},
    "angry": {"type": "noul", "instructions": "Is the customer angry?"},
    "urgent": {"type": "score", "instructions": "How urgent?", "criteria": ["can wait", "today", "right now"]},
}
STATE = "My payments fail and I need it today"
DECISION = Card("llm/decide", "a decision model", model="laya")
CHOOSE = {"q": {"type": "choice", "instructions": "Which?", "criteria": {"c1": None, "c2": None}}}


@asynccontextmanager
async def served(server: DecisionServer) -> AsyncIterator[tuple[Running, OpenAIBackend]]:
    async with running(server) as run:
        backend = OpenAIBackend(run.url)
        yield run, backend
        await backend.aclose()


async def types(backend: Backend) -> list[tuple[str, str]]:
    return [(provision.card.model, provision.card.type) for provision in await backend.discover()]


async def test_llama_cpp_with_a_decision_model_offers_that_and_no_chat() -> None:
    server = DecisionServer(model="some.gguf")
    async with served(server) as (run, backend):
        assert await types(backend) == [("some.gguf", "llm/decide")]
        knock, probe = run.log.requests
        assert knock["body"]["questions"] == {}
        assert list(probe["body"]["questions"]) == ["q"]
        await types(backend)
        assert len(run.log.requests) == 2  # it is known now


async def test_transformers_makes_decisions_of_a_chat_model_too() -> None:
    async with served(DecisionServer(model="org/chat", flavour="transformers")) as (_, backend):
        assert await types(backend) == [("org/chat", "llm/chat"), ("org/chat", "llm/decide")]
        card = (await backend.discover())[1].card
        assert "not known to be calibrated" in card.description


async def test_a_model_that_is_named_as_one_is_no_chat_model() -> None:
    async with served(DecisionServer(model="org/Laya-1", flavour="transformers")) as (_, backend):
        assert await types(backend) == [("org/Laya-1", "llm/decide")]


@pytest.mark.parametrize(("flavour", "asked"), [("llamacpp", 1), ("transformers", 2), ("none", 0)])
async def test_a_server_whose_model_cannot_is_asked_ever_more_rarely(flavour: str, asked: int) -> None:
    """llama.cpp says so when it is knocked at; transformers when it is asked; others have no such route."""
    server = DecisionServer(model="plain", flavour=flavour, decides=False)
    async with served(server) as (run, backend):
        assert await types(backend) == [("plain", "llm/chat")]
        assert len(run.log.requests) == asked
        first = run.log.requests[:]
        for _ in range(2 * PROBE_GAP_MAX):
            await backend.discover()
        assert len(run.log.requests) - len(first) <= 8
        server.decides, server.flavour = True, "llamacpp" if flavour == "none" else flavour
        for _ in range(PROBE_GAP_MAX + 1):
            await backend.discover()
        assert "llm/decide" in dict.fromkeys(kind for _, kind in await types(backend))


async def test_models_that_are_not_loaded_are_left_alone() -> None:
    server = DecisionServer(model="one", others=("two",), flavour="transformers")
    async with served(server) as (run, backend):
        assert {kind for _, kind in await types(backend)} == {"llm/chat"}
        assert run.log.requests == []
        server.extra = {"status": {"value": "loaded"}}
        assert ("two", "llm/decide") in await types(backend)


async def test_a_list_that_says_decision_is_believed() -> None:
    async with served(DecisionServer(extra={"capabilities": ["decision"]})) as (run, backend):
        assert await types(backend) == [("laya", "llm/decide")]
        assert run.log.requests == []


async def test_a_model_that_is_slow_to_load_is_asked_again_at_the_next_look() -> None:
    server = DecisionServer(hang=True)
    async with running(server) as run:
        upstream = Upstream(f"{run.url}/v1")
        finder = Finder(upstream, "/systemone", timeout_s=0.1)
        finder.poll(["laya"])
        assert not await finder.decides("laya")
        assert not await finder.decides("laya")
        assert len(run.log.requests) == 2  # a knock and one question, whoever asks again during the same look
        server.hang = False
        finder.poll(["laya"])
        assert await finder.decides("laya")
        await upstream.aclose()


async def test_ollama_says_which_models_decide() -> None:
    models = (Model("nimble:latest", ("decision",)), Model("clef:27b", ("completion", "decision", "vision")))
    async with running(OllamaServer(models=models)) as run:
        backend = OllamaBackend(run.url)
        provisions = await backend.discover()
        assert [(p.card.model, p.card.type) for p in provisions] == [
            ("nimble:latest", "llm/decide"), ("clef:27b", "llm/decide"), ("clef:27b", "llm/chat"),
        ]
        assert run.log.requests == []  # nothing was loaded to find out
        answer, pieces = await invoke(backend, provisions[0].card, "decide", state=STATE, questions=QUESTIONS)
        assert pieces == []
        assert set(answer["answers"]) == set(QUESTIONS)
        chat = provisions[2].card
        error = await failure(backend, chat, "dance")
        assert error.code is Code.NOT_FOUND
        await backend.aclose()


def test_an_ollama_model_without_the_word_is_none() -> None:
    (card,) = model_cards("llama3", {"capabilities": ["completion"]})
    assert card.type == "llm/chat"


@pytest.mark.parametrize("flavour", ["llamacpp", "transformers"])
async def test_questions_reach_the_model_and_answers_come_back(flavour: str) -> None:
    async with served(DecisionServer(flavour=flavour)) as (run, backend):
        answer, _ = await invoke(
            backend, DECISION, "decide", model="jev-latest", state=STATE, questions=QUESTIONS, stream=False,
            atmosphere={"explain": True},
        )
        assert answer["answers"]["team"]["choice"] == "billing"
        assert 0.9 < answer["answers"]["urgent"]["score"] < 1.1
        assert run.log.requests[0]["body"] == {"model": "laya", "state": STATE, "questions": QUESTIONS}


async def test_questions_against_the_contract_do_not_leave() -> None:
    async with served(DecisionServer()) as (run, backend):
        error = await failure(backend, DECISION, "decide", state=STATE, questions={})
        assert error.code is Code.INVALID
        assert run.log.requests == []


@pytest.mark.parametrize("lie", [*LIES, "unasked"])
async def test_a_lie_is_the_backends_error(lie: str) -> None:
    async with served(DecisionServer(lie=lie)) as (_, backend):
        error = await failure(backend, DECISION, "decide", state=STATE, questions=CHOOSE)
        assert error.code is Code.BACKEND
        assert "cannot be believed" in error.message


@pytest.mark.parametrize("status", [400, 422, 429, 500])
async def test_the_servers_own_error_is_kept(status: int) -> None:
    async with served(DecisionServer(status=status)) as (_, backend):
        error = await failure(backend, DECISION, "decide", state=STATE, questions=CHOOSE)
        assert error.code is Code.BACKEND
        assert json.loads(error.details)["status"] == status
        assert error.retryable is (status == 429)


async def test_a_chat_server_stays_one() -> None:
    async with running(OpenAIServer(model="tiny", embed_model="e5-small")) as run:
        backend = OpenAIBackend(run.url)
        assert await types(backend) == [("tiny", "llm/chat"), ("e5-small", "llm/embed")]
        await backend.aclose()
