"""The OpenAI adapter against a stand-in server over real loopback sockets."""

from __future__ import annotations

import json
import struct
from base64 import b64decode
from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio

from atmosphere.capabilities.adapters.openai import OpenAIBackend, chat_card, guess_type
from atmosphere.capabilities.backend import BackendGone, ToolCall
from atmosphere.capabilities.card import Card
from protocols.call import CallError, Code
from tests.backends.http_server import Log, Reply, Request
from tests.backends.openai_server import DIMENSIONS, OpenAIServer, vector_of
from tests.backends.running import Running, running
from tests.capabilities.calls import failure, invoke, user

CHAT = chat_card("tiny")


@pytest.fixture
async def server() -> AsyncIterator[tuple[OpenAIServer, Running]]:
    handler = OpenAIServer(embed_model="tiny-embed")
    async with running(handler) as run:
        yield handler, run


@pytest.fixture
async def backend(server: tuple[OpenAIServer, Running]) -> AsyncIterator[OpenAIBackend]:
    backend = OpenAIBackend(server[1].url)
    yield backend
    await backend.aclose()


async def cards(backend: OpenAIBackend) -> dict[str, Card]:
    return {provision.card.model: provision.card for provision in await backend.discover()}


async def test_every_model_is_a_capability_of_the_right_type(backend: OpenAIBackend) -> None:
    found = await cards(backend)
    assert found["tiny"].type == "llm/chat"
    assert [tool.name for tool in found["tiny"].tools] == ["chat", "complete"]
    assert found["tiny-embed"].type == "llm/embed"
    assert found["tiny-embed"].space == f"tiny-embed:{DIMENSIONS}"


async def test_two_servers_with_the_same_model_have_the_same_card(backend: OpenAIBackend) -> None:
    async with running(OpenAIServer(embed_model="tiny-embed")) as other:
        second = OpenAIBackend(other.url + "/v1")
        assert await cards(second) == await cards(backend)
        await second.aclose()


async def test_an_answer_comes_back_byte_for_byte(backend: OpenAIBackend) -> None:
    answer, pieces = await invoke(backend, CHAT, "chat", messages=user("hi"))
    assert pieces == []
    assert answer["choices"][0]["message"]["content"] == "".join(f"tiny-{n} " for n in range(5))
    assert answer["usage"]["completion_tokens"] == 5


async def test_the_body_goes_through_untouched(
    backend: OpenAIBackend, server: tuple[OpenAIServer, Running]
) -> None:
    """Unknown fields stay; ``model`` is named; what is for the mesh is taken out."""
    body = {"messages": user("hi"), "future_field": [1, {"a": None}], "temperature": 0.5}
    await invoke(backend, CHAT, "chat", **body, model="auto", atmosphere={"prefer": "local"})
    await invoke(backend, CHAT, "chat", **body, model="tiny")
    assert [request["body"] for request in server[1].log.requests] == [{**body, "model": "tiny"}] * 2


async def test_a_stream_gives_one_chunk_per_event_as_it_arrives(
    backend: OpenAIBackend, server: tuple[OpenAIServer, Running]
) -> None:
    server[0].token_delay_s = 0.01
    generated_when_seen: list[int] = []
    texts: list[str] = []

    async def emit(piece: bytes) -> None:
        generated_when_seen.append(server[1].log.generated)
        texts.append(json.loads(piece)["choices"][0]["delta"].get("content", ""))

    args = json.dumps({"messages": user("hi"), "stream": True}).encode()
    assert await backend.invoke(CHAT, ToolCall("chat", args), emit) == b""
    assert texts == [*(f"tiny-{n} " for n in range(5)), ""]
    assert generated_when_seen[0] < 5, "the first token was here before the last was made"


async def test_the_usage_chunk_comes_through(backend: OpenAIBackend) -> None:
    _, pieces = await invoke(
        backend, CHAT, "chat", messages=user("hi"), stream=True, stream_options={"include_usage": True}
    )
    assert pieces[-1]["choices"] == []
    assert pieces[-1]["usage"]["completion_tokens"] == 5


async def test_tool_calls_and_schemas_come_through(backend: OpenAIBackend) -> None:
    tools = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]
    _, pieces = await invoke(backend, CHAT, "chat", messages=user("[[tool]]"), tools=tools, stream=True)
    calls = [piece["choices"][0]["delta"].get("tool_calls", [{}])[0] for piece in pieces[:-1]]
    assert calls[0]["function"]["name"] == "weather"
    assert json.loads("".join(call["function"]["arguments"] for call in calls)) == {"city": "Oslo"}
    answer, _ = await invoke(backend, CHAT, "chat", messages=user("x"), response_format={"type": "json_object"})
    assert json.loads(answer["choices"][0]["message"]["content"]) == {"ok": True}


async def test_completions_and_embeddings(backend: OpenAIBackend) -> None:
    found = await cards(backend)
    answer, _ = await invoke(backend, CHAT, "complete", prompt="once")
    assert answer["choices"][0]["text"].startswith("tiny-0")
    _, pieces = await invoke(backend, CHAT, "complete", prompt="once", stream=True)
    assert [piece["choices"][0]["text"] for piece in pieces][:2] == ["tiny-0 ", "tiny-1 "]
    answer, _ = await invoke(backend, found["tiny-embed"], "embed", input=["a", "b"])
    assert [item["embedding"] for item in answer["data"]] == [vector_of("a"), vector_of("b")]
    answer, _ = await invoke(backend, found["tiny-embed"], "embed", input="a", encoding_format="base64")
    floats = struct.unpack(f"<{DIMENSIONS}f", b64decode(answer["data"][0]["embedding"]))
    assert floats == pytest.approx(vector_of("a"))


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("status", "retryable", "wait"), [(400, False, 0), (429, True, 2000), (500, False, 0)])
async def test_an_http_error_keeps_the_servers_own_answer(
    backend: OpenAIBackend, status: int, retryable: bool, wait: int, stream: bool
) -> None:
    error = await failure(backend, CHAT, "chat", messages=user(f"[[status {status}]]"), stream=stream)
    assert (error.code, error.retryable, error.retry_after_ms) == (Code.BACKEND, retryable, wait)
    details = json.loads(error.details)
    assert details["status"] == status
    assert details["body"]["error"]["message"] == f"asked for {status}"
    assert f"asked for {status}" in error.message


@pytest.mark.parametrize("words", ["[[break after 3]]", "[[end after 3]]", "[[error after 3]]"])
async def test_a_stream_that_breaks_is_never_silent(backend: OpenAIBackend, words: str) -> None:
    pieces: list[bytes] = []

    async def emit(piece: bytes) -> None:
        pieces.append(piece)

    args = json.dumps({"messages": user(words), "stream": True}).encode()
    with pytest.raises(Exception, match="the stream broke") as caught:
        await backend.invoke(CHAT, ToolCall("chat", args), emit)
    assert len(pieces) == 3
    assert caught.value.code is Code.BACKEND  # type: ignore[attr-defined]
    assert not caught.value.retryable  # type: ignore[attr-defined]


async def test_broken_before_the_first_token_may_be_tried_elsewhere(backend: OpenAIBackend) -> None:
    error = await failure(backend, CHAT, "chat", messages=user("[[break after 0]]"), stream=True)
    assert (error.code, error.retryable) == (Code.BACKEND, True)


ODD: list[tuple[str, bytes, bool]] = [
    # content type, body, streamed
    ("text/html", b"<html>hello</html>", False),
    ("application/json", b"", False),
    ("application/json", b'{"choices": [', False),
    ("application/json", b"[1, 2]", False),
    ("application/json", b"null", False),
    ("application/json", b"\x1f\x8b\x08\x00", False),
    ("text/event-stream", b'data: {"choices": []}\n\ndata: [DONE]\n\n', False),
    ("text/event-stream", b"data: not json\n\ndata: [DONE]\n\n", True),
    ("text/event-stream", b"data: \n\ndata: [DONE]\n\n", True),
]


@pytest.mark.parametrize(("kind", "body", "stream"), ODD)
async def test_what_is_no_answer_does_not_pass_for_one(kind: str, body: bytes, stream: bool) -> None:
    """Whatever its status says; another node may have a server that answers."""

    async def nonsense(request: Request, reply: Reply, log: Log) -> None:
        await reply.bytes(body, content_type=kind)

    async with running(nonsense) as run:
        backend = OpenAIBackend(run.url)
        error = await failure(backend, CHAT, "chat", messages=user("x"), stream=stream)
        assert (error.code, error.retryable) == (Code.BACKEND, True)
        assert "JSON object" in error.message
        await backend.aclose()


DEEP = b'{"x": ' + b"[" * 5000


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("status", "body"), [
    (500, DEEP), (200, b'data: {"error": ' + DEEP + b"\n\n"), (200, b"data: " + DEEP + b"\n\n"),
])
async def test_nesting_without_end_is_an_error_of_the_server(status: int, body: bytes, stream: bool) -> None:
    async def deep(request: Request, reply: Reply, log: Log) -> None:
        await reply.bytes(body, status=status, content_type="text/event-stream")

    async with running(deep) as run:
        backend = OpenAIBackend(run.url)
        args = json.dumps({"messages": user("x"), "stream": stream}).encode()
        pieces: list[bytes] = []

        async def emit(piece: bytes) -> None:
            pieces.append(piece)

        with pytest.raises(CallError) as caught:
            await backend.invoke(CHAT, ToolCall("chat", args), emit)
        assert caught.value.code is Code.BACKEND
        await backend.aclose()


async def test_a_list_of_models_that_is_nested_without_end_is_none() -> None:
    async def deep(request: Request, reply: Reply, log: Log) -> None:
        await reply.bytes(DEEP, content_type="application/json")

    async with running(deep) as run:
        backend = OpenAIBackend(run.url)
        with pytest.raises(BackendGone, match="no list of models"):
            await backend.discover()
        await backend.aclose()


async def test_white_space_around_an_answer_is_fine() -> None:
    async def spaced(request: Request, reply: Reply, log: Log) -> None:
        await reply.bytes(b' \n{"choices": []}\r\n ')

    async with running(spaced) as run:
        backend = OpenAIBackend(run.url)
        assert (await invoke(backend, CHAT, "chat", messages=user("x")))[0] == {"choices": []}
        await backend.aclose()


async def test_a_redirect_is_named_and_not_followed() -> None:
    async def elsewhere(request: Request, reply: Reply, log: Log) -> None:
        await reply.bytes(b"", status=307, headers={"location": "https://elsewhere/v1"})

    async with running(elsewhere) as run:
        backend = OpenAIBackend(run.url)
        error = await failure(backend, CHAT, "chat", messages=user("x"))
        assert "redirect to 'https://elsewhere/v1', which is not followed" in error.message
        await backend.aclose()


async def test_a_stream_that_finishes_without_done_is_whole(backend: OpenAIBackend) -> None:
    """Some servers leave [DONE] out: a finish_reason says that nothing is missing."""
    _, pieces = await invoke(backend, CHAT, "chat", messages=user("[[no done]]"), stream=True)
    assert pieces[-1]["choices"][0]["finish_reason"] == "stop"


async def test_a_refused_connection_is_unavailable(backend: OpenAIBackend) -> None:
    gone = OpenAIBackend("http://127.0.0.1:1")
    error = await failure(gone, CHAT, "chat", messages=user("hi"))
    assert (error.code, error.retryable) == (Code.UNAVAILABLE, True)
    with pytest.raises(BackendGone, match="cannot be reached"):
        await gone.discover()


@pytest.mark.parametrize("words", ["hi", "[[hang]]"])
async def test_cancelling_stops_the_generation(
    backend: OpenAIBackend, server: tuple[OpenAIServer, Running], words: str
) -> None:
    """The server sees its client leave at once, while it generates and while it only thinks."""
    handler, run = server
    handler.tokens, handler.token_delay_s = 10_000, 0.005
    with trio.move_on_after(0.1):
        await invoke(backend, CHAT, "chat", messages=user(words), stream=True)
    with trio.fail_after(0.5):
        while run.log.running:  # noqa: ASYNC110 - the other end of a real socket
            await trio.sleep(0.005)
    assert run.log.disconnects == 1
    assert run.log.generated < 100
    handler.tokens = 2
    await invoke(backend, CHAT, "chat", messages=user("still usable"))


async def test_connections_are_used_again(backend: OpenAIBackend, server: tuple[OpenAIServer, Running]) -> None:
    for stream in (False, True, True, False):
        await invoke(backend, CHAT, "chat", messages=user("hi"), stream=stream)
    assert server[1].log.connections == 1


async def test_a_connection_that_the_server_closed_in_between_is_replaced(backend: OpenAIBackend) -> None:
    """A restart of the server between two calls costs a new connection, not an error."""
    async with running(OpenAIServer()) as first:
        again = OpenAIBackend(first.url)
        await invoke(again, CHAT, "chat", messages=user("hi"))
    async with running(OpenAIServer(), port=first.port):
        await invoke(again, CHAT, "chat", messages=user("hi"))
        await again.aclose()


async def test_an_api_key_is_sent_and_its_absence_explained() -> None:
    async with running(OpenAIServer(key="sesame")) as run:
        keyed, bare = OpenAIBackend(run.url, key="sesame"), OpenAIBackend(run.url)
        assert len(await keyed.discover()) == 1
        with pytest.raises(BackendGone, match="401; check its API key"):
            await bare.discover()
        assert "sesame" not in repr(keyed)
        await keyed.aclose()
        await bare.aclose()


async def test_an_atmosphere_node_is_not_a_backend() -> None:
    async with running(OpenAIServer(headers={"x-atmosphere-node": "12D3"})) as run:
        backend = OpenAIBackend(run.url)
        with pytest.raises(BackendGone, match="Atmosphere node"):
            await backend.discover()
        await backend.aclose()


@pytest.mark.parametrize(
    ("model", "kind"),
    [
        ({"id": "llama-3.1-8b-instruct"}, "llm/chat"),
        ({"id": "text-embedding-3-small"}, "llm/embed"),
        ({"id": "BAAI/bge-m3"}, "llm/embed"),
        ({"id": "intfloat/e5-large-v2"}, "llm/embed"),
        ({"id": "sentence-transformers/all-MiniLM-L6-v2"}, "llm/embed"),
        ({"id": "BAAI/bge-reranker-v2-m3"}, ""),
        ({"id": "whisper-1"}, ""),
        ({"id": "gpt-4o-mini-tts"}, ""),
        ({"id": "dall-e-3"}, ""),
        ({"id": "x", "type": "embeddings"}, "llm/embed"),
        ({"id": "my-embedder-that-chats", "type": "llm"}, "llm/chat"),
        ({"id": "x", "capabilities": ["completion", "multimodal"]}, "llm/chat"),
        ({"id": "x", "capabilities": {"completion_chat": True, "embeddings": False}}, "llm/chat"),
        ({"id": "x", "architecture": {"output_modalities": ["image"]}}, ""),
        ({"id": "x", "task": "feature-extraction"}, "llm/embed"),
    ],
    ids=str,
)
def test_what_a_model_is(model: dict[str, Any], kind: str) -> None:
    assert guess_type(model) == kind


@pytest.mark.parametrize(
    ("extra", "context", "inputs"),
    [
        ({}, 0, ("text",)),
        ({"max_model_len": 8192}, 8192, ("text",)),
        ({"meta": {"n_ctx_train": 131072, "n_ctx": 4096}}, 4096, ("text",)),
        ({"meta": {"n_ctx_train": 131072}}, 0, ("text",)),
        ({"context_length": True}, 0, ("text",)),
        ({"architecture": {"input_modalities": ["text", "image"]}}, 0, ("image", "text")),
        ({"capabilities": {"vision": True}}, 0, ("image", "text")),
    ],
    ids=str,
)
async def test_what_the_server_says_of_a_model(extra: dict[str, Any], context: int, inputs: tuple[str, ...]) -> None:
    async with running(OpenAIServer(extra=extra)) as run:
        backend = OpenAIBackend(run.url)
        (card,) = (await cards(backend)).values()
        assert (card.context_tokens, card.inputs) == (context, inputs)
        await backend.aclose()


@pytest.mark.parametrize("url", ["", "ftp://x", "localhost:8080", "http://", "http://x/?q"])
def test_a_bad_address_is_refused(url: str) -> None:
    with pytest.raises(ValueError):
        OpenAIBackend(url)
