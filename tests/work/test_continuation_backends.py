"""Continuation against stand-ins that go on as vLLM and Ollama document it: the reader has the whole answer, once."""

from __future__ import annotations

import json
from typing import Any

import pytest

from atmosphere.capabilities.adapters.ollama import OllamaBackend
from atmosphere.capabilities.adapters.openai import OpenAIBackend
from atmosphere.capabilities.backend import Backend, ToolCall
from atmosphere.capabilities.card import Card
from atmosphere.work.continuation import Said
from protocols.call import CallError
from tests.backends.ollama_server import OllamaServer
from tests.backends.openai_server import OpenAIServer
from tests.backends.running import running

MODEL = "llama3.2:latest"
WHOLE = "".join(f"{MODEL}-{n} " for n in range(5))
VLLM = OpenAIServer(MODEL, continues=True)
OLLAMA = OllamaServer()
PLAIN = OpenAIServer(MODEL)


def opened(server: Any, url: str) -> Backend:
    return OllamaBackend(url) if isinstance(server, OllamaServer) else OpenAIBackend(url)


async def text_of(backend: Backend, tool: str, args: bytes, said: Said | None = None) -> str:
    """What a streamed call says; *said* takes its pieces."""
    text = ""

    async def emit(piece: bytes) -> None:
        nonlocal text
        if said is not None:
            said.add(piece)
        for choice in json.loads(piece)["choices"]:
            text += choice.get("text") or choice.get("delta", {}).get("content") or ""

    await backend.invoke(Card("llm/chat", "", model=MODEL), ToolCall(tool, args), emit)
    return text


@pytest.mark.parametrize("tool", ["chat", "complete"])
@pytest.mark.parametrize("second", [VLLM, OLLAMA], ids=["vllm", "ollama"])
@pytest.mark.parametrize("first", [VLLM, OLLAMA], ids=["vllm", "ollama"])
async def test_the_answer_is_whole(first: Any, second: Any, tool: str) -> None:
    words = "tell me [[break after 2]]"
    body: dict[str, Any] = {"stream": True, "max_tokens": 5}
    body |= {"messages": [{"role": "user", "content": words}]} if tool == "chat" else {"prompt": words}
    args = json.dumps(body).encode()
    said = Said(tool, args)
    async with running(first) as one:
        backend = opened(first, one.url)
        with pytest.raises(CallError, match="broke"):
            await text_of(backend, tool, args, said)
        await backend.aclose()
    resumption = said.resume("there")
    assert resumption is not None
    beginning = "".join(f"{MODEL}-{n} " for n in range(2))
    assert json.loads(resumption.mark)["atmosphere"] == {"continued_on": "there", "after_chars": len(beginning)}
    healthy = resumption.args.replace(b"[[break after 2]]", b"")
    async with running(second) as two:
        backend = opened(second, two.url)
        assert beginning + await text_of(backend, tool, healthy) == WHOLE
        assert two.log.generated == 3
        await backend.aclose()


async def test_a_server_that_does_not_know_it_begins_anew() -> None:
    """Why the owner has to say that a backend continues."""
    said = Said("chat", b'{"stream": true, "messages": [{"role": "user", "content": "tell me"}]}')
    said.add(json.dumps({"choices": [{"index": 0, "delta": {"content": f"{MODEL}-0 "}}]}).encode())
    resumption = said.resume("there")
    assert resumption is not None
    async with running(PLAIN) as server:
        backend = OpenAIBackend(server.url)
        assert await text_of(backend, "chat", resumption.args) == WHOLE
        await backend.aclose()
