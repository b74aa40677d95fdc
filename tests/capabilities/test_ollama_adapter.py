"""The Ollama adapter against a stand-in daemon over real loopback sockets."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest
import trio

from atmosphere.capabilities.adapters.ollama import OllamaBackend, model_cards
from atmosphere.capabilities.backend import BackendGone, ToolCall
from atmosphere.capabilities.card import Card
from protocols.call import CallError, Code
from tests.backends.http_server import Log, Reply, Request
from tests.backends.ollama_server import DEFAULT_MODELS, Model, OllamaServer
from tests.backends.openai_server import OpenAIServer, vector_of
from tests.backends.running import Running, running
from tests.capabilities.calls import failure, invoke, user

PNG = "data:image/png;base64,iVBORw0KGgo="


@pytest.fixture
async def server() -> AsyncIterator[tuple[OllamaServer, Running]]:
    handler = OllamaServer()
    async with running(handler) as run:
        yield handler, run


@pytest.fixture
async def backend(server: tuple[OllamaServer, Running]) -> AsyncIterator[OllamaBackend]:
    backend = OllamaBackend(server[1].url)
    yield backend
    await backend.aclose()


async def cards(backend: OllamaBackend) -> dict[str, Card]:
    return {provision.card.model: provision.card for provision in await backend.discover()}


async def test_every_model_is_a_capability_of_the_right_type(backend: OllamaBackend) -> None:
    found = await cards(backend)
    assert {name: card.type for name, card in found.items()} == {
        "llama3.2:latest": "llm/chat", "llava:7b": "llm/chat", "nomic-embed-text:latest": "llm/embed",
    }
    assert found["llama3.2:latest"].features == ("json_schema", "stream", "tools")
    assert found["llava:7b"].features == ("json_schema", "stream", "vision")
    assert found["llava:7b"].inputs == ("image", "text")
    assert found["nomic-embed-text:latest"].space == "nomic-embed-text:latest:8"


async def test_a_model_is_described_once_and_forgotten_when_it_goes(
    backend: OllamaBackend, server: tuple[OllamaServer, Running]
) -> None:
    handler, _ = server
    await cards(backend)
    await cards(backend)
    assert len(handler.shows) == 3
    handler.models = DEFAULT_MODELS[:1]
    assert list(await cards(backend)) == ["llama3.2:latest"]
    handler.models = (*DEFAULT_MODELS[:1], Model("new:1b", ("completion", "thinking")), Model("odd", ("audio",)))
    assert list(await cards(backend)) == ["llama3.2:latest", "new:1b"]
    assert handler.shows[3:] == ["new:1b", "odd"]


async def test_chat_streamed_and_whole_say_the_same(backend: OllamaBackend) -> None:
    card = (await cards(backend))["llama3.2:latest"]
    whole, _ = await invoke(backend, card, "chat", messages=user("hi"))
    _, pieces = await invoke(
        backend, card, "chat", messages=user("hi"), stream=True, stream_options={"include_usage": True}
    )
    text = "".join(piece["choices"][0]["delta"].get("content", "") for piece in pieces[:-1])
    assert text == whole["choices"][0]["message"]["content"] == "".join(f"llama3.2:latest-{n} " for n in range(5))
    assert pieces[-2]["choices"][0]["finish_reason"] == whole["choices"][0]["finish_reason"] == "stop"
    assert pieces[-1]["usage"] == whole["usage"]


async def test_options_images_and_schemas_reach_the_model(
    backend: OllamaBackend, server: tuple[OllamaServer, Running]
) -> None:
    card = (await cards(backend))["llava:7b"]
    parts = [{"type": "text", "text": "what?"}, {"type": "image_url", "image_url": {"url": PNG}}]
    answer, _ = await invoke(
        backend, card, "chat", messages=[{"role": "user", "content": parts}], max_tokens=2, stop="z",
        response_format={"type": "json_object"},
    )
    assert answer["choices"][0]["finish_reason"] == "length"
    assert json.loads(answer["choices"][0]["message"]["content"]) == {"ok": True}
    (request,) = server[1].log.requests
    assert request["body"]["options"] == {"num_predict": 2, "stop": ["z"]}


@pytest.mark.parametrize("stream", [False, True])
async def test_tool_calls(backend: OllamaBackend, stream: bool) -> None:
    found = await cards(backend)
    tools = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]
    answer, pieces = await invoke(
        backend, found["llama3.2:latest"], "chat", messages=user("[[tool]]"), tools=tools, stream=stream
    )
    choice = pieces[0]["choices"][0]["delta"] if stream else answer["choices"][0]["message"]
    (call,) = choice["tool_calls"]
    assert (call["function"]["name"], json.loads(call["function"]["arguments"])) == ("weather", {"city": "Oslo"})
    last = pieces[-1] if stream else answer
    assert last["choices"][0]["finish_reason"] == "tool_calls"
    error = await failure(backend, found["llava:7b"], "chat", messages=user("x"), tools=tools, stream=stream)
    assert "does not support tools" in error.message


async def test_complete_and_embed(backend: OllamaBackend) -> None:
    found = await cards(backend)
    answer, _ = await invoke(backend, found["llama3.2:latest"], "complete", prompt="once")
    assert answer["choices"][0]["text"].startswith("llama3.2:latest-0")
    _, pieces = await invoke(backend, found["llama3.2:latest"], "complete", prompt="once", stream=True)
    assert [piece["choices"][0]["text"] for piece in pieces][1] == "llama3.2:latest-1 "
    answer, _ = await invoke(backend, found["nomic-embed-text:latest"], "embed", input=["a", "b"])
    assert [item["embedding"] for item in answer["data"]] == [vector_of("a"), vector_of("b")]


@pytest.mark.parametrize("stream", [False, True])
async def test_errors_keep_the_daemons_own_answer(backend: OllamaBackend, stream: bool) -> None:
    card = (await cards(backend))["llama3.2:latest"]
    error = await failure(backend, card, "chat", messages=user("[[status 500]]"), stream=stream)
    assert error.code is Code.BACKEND
    assert json.loads(error.details) == {"status": 500, "body": {"error": "asked for 500"}}


@pytest.mark.parametrize("words", ["[[break after 3]]", "[[end after 3]]", "[[error after 3]]"])
async def test_a_stream_that_breaks_is_never_silent(backend: OllamaBackend, words: str) -> None:
    card = (await cards(backend))["llama3.2:latest"]
    pieces: list[bytes] = []

    async def emit(piece: bytes) -> None:
        pieces.append(piece)

    args = json.dumps({"messages": user(words), "stream": True}).encode()
    with pytest.raises(CallError, match="the stream broke") as caught:
        await backend.invoke(card, ToolCall("chat", args), emit)
    assert len(pieces) == 3
    assert (caught.value.code, caught.value.retryable) == (Code.BACKEND, False)


async def test_cancelling_stops_the_generation(backend: OllamaBackend, server: tuple[OllamaServer, Running]) -> None:
    handler, run = server
    card = (await cards(backend))["llama3.2:latest"]
    handler.tokens, handler.token_delay_s = 10_000, 0.005
    with trio.move_on_after(0.1):
        await invoke(backend, card, "chat", messages=user("hi"), stream=True)
    with trio.fail_after(0.5):
        while run.log.running:  # noqa: ASYNC110 - the other end of a real socket
            await trio.sleep(0.005)
    assert run.log.disconnects == 1
    assert run.log.generated < 100


async def test_connections_are_used_again(backend: OllamaBackend, server: tuple[OllamaServer, Running]) -> None:
    card = (await cards(backend))["llama3.2:latest"]
    for stream in (False, True, True, False):
        await invoke(backend, card, "chat", messages=user("hi"), stream=stream)
    assert server[1].log.connections == 1


async def test_what_is_no_ollama_is_gone(backend: OllamaBackend) -> None:
    nobody = OllamaBackend("http://127.0.0.1:1")
    with pytest.raises(BackendGone, match="cannot be reached"):
        await nobody.discover()
    card = (await cards(backend))["llama3.2:latest"]
    assert (await failure(nobody, card, "chat", messages=user("hi"))).code is Code.UNAVAILABLE
    async with running(OpenAIServer()) as other:
        stranger = OllamaBackend(other.url)
        with pytest.raises(BackendGone, match="is this an Ollama server"):
            await stranger.discover()
        await stranger.aclose()


def test_an_old_server_without_capabilities() -> None:
    embeds = {"model_info": {"general.architecture": "bert", "bert.pooling_type": 1, "bert.embedding_length": 384}}
    chats = {"model_info": {"general.architecture": "llama", "llama.embedding_length": 4096}}
    (card,) = model_cards("all-minilm", embeds)
    assert card is not None
    assert (card.type, card.space) == ("llm/embed", "all-minilm:384")
    (card,) = model_cards("llama3", chats)
    assert card is not None
    assert card.type == "llm/chat"


@pytest.mark.parametrize("answer", [b"[]", b"{", b'{"message": 1}', b'{"embeddings": [["a"]]}', b'{"embeddings": [1]}'])
@pytest.mark.parametrize("tool", ["chat", "embed"])
async def test_an_answer_of_another_shape_is_the_backends_error(answer: bytes, tool: str) -> None:
    async def odd(_request: Request, reply: Reply, _log: Log) -> None:
        await reply.bytes(answer, content_type="application/json")

    async with running(odd) as run:
        backend = OllamaBackend(run.url)
        (card,) = model_cards("m", {"capabilities": ["completion"]})
        assert card is not None
        error = await failure(backend, card, tool, messages=user("x"), input="x", encoding_format="base64")
        assert error.code is Code.BACKEND
        await backend.aclose()
