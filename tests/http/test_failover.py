"""Backends that die, through the whole node on real sockets, as the official SDK sees it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import openai
import pytest
import trio

from atmosphere.config import BackendConfig
from atmosphere.routing.models import Aliases
from tests.backends.ollama_server import Model, OllamaServer
from tests.backends.openai_server import OpenAIServer
from tests.backends.running import Running, running
from tests.http.real_work import RealNode, real_node

pytestmark = pytest.mark.filterwarnings("ignore:Async generator '(openai|httpx2|httpcore2):ResourceWarning")

VLLM, OLLAMA = "qwen3-vllm", "qwen3-ollama"
ALIASES: Aliases = {"chat": (VLLM, OLLAMA)}


def user(text: str = "hi") -> Any:
    return [{"role": "user", "content": text}]


def ollama(model: str = OLLAMA, **options: Any) -> OllamaServer:
    return OllamaServer(models=(Model(model, ("completion", "tools")),), **options)


class Pair:
    """One node with a vLLM-like server, which can be killed, and an Ollama."""

    def __init__(self, node: RealNode, client: openai.AsyncOpenAI, vllm: Running, ollama: Running) -> None:
        self.node, self.client, self.vllm, self.ollama = node, client, vllm, ollama

    async def known(self) -> None:
        """Until the node, which a failed call made look, has noticed that the vLLM-like server is gone."""
        news = trio.Event()
        self.node.table.listeners.add(lambda: None if VLLM in self.node.models() else news.set())
        if VLLM in self.node.models():
            with trio.fail_after(5):
                await news.wait()

    async def ask(self, model: str, **options: Any) -> str:
        answer = await self.client.chat.completions.create(model=model, messages=user(), **options)
        return answer.choices[0].message.content or ""


@asynccontextmanager
async def pair() -> AsyncIterator[Pair]:
    async with running(OpenAIServer(VLLM)) as first, running(ollama()) as second:
        backends = [BackendConfig(first.url), BackendConfig(second.url, "ollama")]
        async with real_node(backends, aliases=ALIASES) as (node, client):
            yield Pair(node, client, first, second)


async def test_the_first_of_the_owners_list_answers_under_its_own_name() -> None:
    async with pair() as it:
        assert (await it.ask("chat")).startswith(f"{VLLM}-0")
        assert it.vllm.log.requests[0]["body"]["model"] == VLLM
        assert it.ollama.log.requests == []
        assert [model.id async for model in it.client.models.list()] == [
            "chat", OLLAMA, VLLM, "best-code", "fast", "auto"]


@pytest.mark.parametrize("known", [False, True], ids=["in the next request", "once it is known"])
async def test_when_it_dies_its_equivalent_answers(known: bool) -> None:
    """No request is lost: neither the one that meets the dead server nor those after."""
    async with pair() as it:
        await it.ask("chat")
        await it.vllm.kill()
        if known:
            with pytest.raises(openai.APIStatusError):
                await it.ask(VLLM)
            await it.known()
        explain = {"atmosphere": {"explain": True}}
        raw = await it.client.chat.completions.create(model="chat", messages=user(), extra_body=explain)
        assert (raw.choices[0].message.content or "").startswith(f"{OLLAMA}-0")
        assert it.ollama.log.requests[-1]["body"]["model"] == OLLAMA
        told: Any = raw.model_extra
        assert ["cannot be reached" in attempt["reason"] for attempt in told["atmosphere"]["attempts"]] == (
            [] if known else [True])
        assert (await it.ask("chat")).startswith(f"{OLLAMA}-0")


async def test_a_model_that_was_named_is_not_replaced() -> None:
    """First the truth about the server; when it is known to be gone, what there is instead, to choose from."""
    async with pair() as it:
        await it.vllm.kill()
        with pytest.raises(openai.APIStatusError) as caught:
            await it.ask(VLLM)
        assert caught.value.status_code == 503
        await it.known()
        last = rf"the model '{VLLM}' is not served by any node now \(last served by .+\); served are: {OLLAMA}"
        with pytest.raises(openai.NotFoundError, match=last):
            await it.ask(VLLM)
        assert it.ollama.log.requests == []


async def test_an_error_of_the_backend_itself_is_not_a_death() -> None:
    """What the first one refuses, the second one is not asked."""
    async with pair() as it:
        with pytest.raises(openai.UnprocessableEntityError):
            await it.client.chat.completions.create(model="chat", messages=user("[[status 422]]"))
        assert it.ollama.log.requests == []


@pytest.mark.parametrize("how", ["break", "end", "error"])
@pytest.mark.parametrize("model", [VLLM, OLLAMA])
async def test_a_stream_that_is_lost_midway_ends_in_an_error(model: str, how: str) -> None:
    """The reader has what was said, then an exception; never an end that looks like the answer's."""
    async with pair() as it:
        words: list[str] = []

        async def read() -> None:
            stream = await it.client.chat.completions.create(
                model=model, messages=user(f"[[{how} after 3]]"), stream=True
            )
            async for part in stream:
                words.extend(choice.delta.content or "" for choice in part.choices)

        with pytest.raises(openai.APIError, match="out of memory" if how == "error" else "broke"):
            await read()
        assert "".join(words) == "".join(f"{model}-{n} " for n in range(3))


async def test_a_killed_server_ends_its_stream_in_an_error_event() -> None:
    """On the wire: pieces, then ``data: {"error": ...}``, and no ``[DONE]``."""
    slow = OpenAIServer(VLLM, tokens=1000, token_delay_s=0.01)
    async with running(slow) as server, real_node([BackendConfig(server.url)]) as (_, client):
        events: list[bytes] = []
        body = {"model": VLLM, "messages": user(), "stream": True}
        with trio.fail_after(10):
            async with client._client.stream("POST", "/chat/completions", json=body) as response:
                async for line in response.aiter_lines():
                    if line:
                        events.append(line.encode())
                    if len(events) == 5:
                        await server.kill()
        assert json.loads(events[-1].removeprefix(b"data: "))["error"]["code"] == "backend"
        assert b"[DONE]" not in b"".join(events)


CONTINUED = "the-model"


@pytest.mark.parametrize("second", ["vllm", "ollama"])
@pytest.mark.parametrize("tool", ["chat", "complete"])
async def test_another_node_goes_on_where_the_owner_says_that_it_can(second: str, tool: str) -> None:
    """The reader has the whole answer once, and is told where the other one went on."""
    first = OpenAIServer(CONTINUED, tokens=30, token_delay_s=0.01, continues=True)
    vllm, ollama_too = OpenAIServer(CONTINUED, tokens=30, continues=True), ollama(CONTINUED, tokens=30)
    async with running(first) as here, running(vllm if second == "vllm" else ollama_too) as there:
        kind = "openai" if second == "vllm" else "ollama"
        async with real_node([BackendConfig(here.url, continuation=True)],
                             [BackendConfig(there.url, kind, continuation=True)]) as (_, client):
            text, marks = "", []
            stream: Any = await (
                client.chat.completions.create(model=CONTINUED, messages=user(), stream=True) if tool == "chat"
                else client.completions.create(model=CONTINUED, prompt="go: ", stream=True))
            with trio.fail_after(10):
                async for part in stream:
                    if not part.choices:
                        marks.append((part.atmosphere, len(text)))
                    for choice in part.choices:
                        text += (choice.delta.content if tool == "chat" else choice.text) or ""
                    if text.endswith("-5 "):
                        await here.kill()
            assert text == "".join(f"{CONTINUED}-{n} " for n in range(30))
            ((mark, said),) = marks
            assert mark["after_chars"] == said
            assert mark["continued_on"]
            assert there.log.generated < 25, "it went on; it did not begin again"


async def test_without_the_owners_word_nobody_goes_on() -> None:
    first = OpenAIServer(CONTINUED, tokens=30, token_delay_s=0.01)
    async with (
        running(first) as here,
        running(OpenAIServer(CONTINUED, continues=True)) as there,
        real_node([BackendConfig(here.url)], [BackendConfig(there.url, continuation=True)]) as (_, client),
    ):
        stream = await client.chat.completions.create(model=CONTINUED, messages=user(), stream=True)

        async def read() -> None:
            async for part in stream:
                if part.choices and (part.choices[0].delta.content or "").endswith("-5 "):
                    await here.kill()

        with trio.fail_after(10), pytest.raises(openai.APIError, match="broke"):
            await read()
        assert there.log.requests == []
