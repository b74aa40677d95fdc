"""Ollama: every model a capability, by what ``/api/show`` says it can do.

``completion`` makes it ``llm/chat`` (with ``tools`` and ``vision`` as features), ``embedding`` makes it ``llm/embed``
(its dimensions come from the model's metadata, so that nothing is loaded by looking), ``decision`` makes it
``llm/decide``, also beside ``llm/chat``. ``/api/show`` is asked once per model and digest. Context: Ollama runs a model
with less than it was made for unless told otherwise, so none is claimed. Bodies are translated in
:mod:`atmosphere.capabilities.adapters.ollama_wire`.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import trio

from atmosphere.capabilities.adapters import AdapterKind, decisions, ollama_wire
from atmosphere.capabilities.adapters.openai import (
    DISCOVER_TIMEOUT_S,
    LINGER_S,
    NODE_HEADER,
    chat_card,
    embed_card,
)
from atmosphere.capabilities.backend import Backend, BackendGone, BackendSilent, Emit, Provision, ToolCall
from atmosphere.capabilities.card import NAME_MAX_BYTES, Card
from atmosphere.capabilities.decisions import DECIDE_TOOL
from atmosphere.capabilities.sse import EVENT_MAX_BYTES
from atmosphere.capabilities.upstream import Answer, Upstream, UpstreamError, UpstreamTimeout
from atmosphere.embedding.embedder import Space
from protocols.call.errors import CallError, Code

T = TypeVar("T")

DECIDE_PATH = "/v1/systemone"


class OllamaBackend(Backend):
    """One Ollama daemon. Cancelling a call closes its connection, at which Ollama stops generating."""

    def __init__(self, url: str, key: str = "", concurrency: int = 4) -> None:
        """*url*: without ``/api``. Raises ValueError for something that is no http(s) URL."""
        self._upstream = Upstream(url.rstrip("/"), key=key)
        self._concurrency = concurrency
        self._cards: dict[tuple[str, str], tuple[Card, ...]] = {}  # (model, digest): only models that are there now
        self.name = f"ollama {url.rstrip('/')}"

    def __repr__(self) -> str:
        return f"<OllamaBackend {self._upstream.url}: {len(self._cards)} models>"

    async def discover(self) -> Sequence[Provision]:
        models = (await self._ask(b"GET", "/api/tags")).get("models")
        if not isinstance(models, list):
            raise BackendGone(f"{self._upstream.url}/api/tags is no list of models; is this an Ollama server?")
        known: dict[tuple[str, str], tuple[Card, ...]] = {}
        for model in models:
            name = model.get("model") or model.get("name") if isinstance(model, dict) else None
            if isinstance(name, str) and len(name.encode("utf-8", "replace")) <= NAME_MAX_BYTES:
                key = (name, str(model.get("digest", "")))
                known[key] = self._cards[key] if key in self._cards else await self._look_at(name)
        self._cards = known
        return [Provision(card, self._concurrency) for cards in known.values() for card in cards]

    async def _look_at(self, name: str) -> tuple[Card, ...]:
        try:
            show = await self._ask(b"POST", "/api/show", {"model": name})
        except BackendSilent:
            raise
        except BackendGone:
            return ()  # this model is damaged or was just deleted; the others are not
        return model_cards(name, show)

    async def _ask(self, method: bytes, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        content = b"" if body is None else json.dumps(body).encode()
        try:
            answer = await self._upstream.exchange(method, path, content, timeout_s=DISCOVER_TIMEOUT_S)
        except UpstreamTimeout as error:
            raise BackendSilent(str(error)) from error
        except UpstreamError as error:
            raise BackendGone(str(error)) from error
        if NODE_HEADER in answer.headers:
            raise BackendGone(f"{self._upstream.url} is an Atmosphere node, not a backend; join its mesh instead")
        try:
            parsed = answer.json()
        except ValueError:
            parsed = None
        if answer.status != 200 or not isinstance(parsed, dict):
            raise BackendGone(f"{self._upstream.url}{path} answered {answer.status}; is this an Ollama server?")
        return parsed

    async def invoke(self, card: Card, call: ToolCall, emit: Emit) -> bytes:
        body = call.arguments()
        if call.tool == "embed":
            return await self._embed(card.model, body)
        if call.tool == DECIDE_TOOL:
            return await decisions.decide(self._upstream, DECIDE_PATH, card, call, self.name)
        chat = call.tool == "chat"
        if not chat and call.tool != "complete":
            raise CallError(Code.NOT_FOUND, f"{self.name} has no tool {call.tool!r}")
        translate = ollama_wire.chat_request if chat else ollama_wire.generate_request
        request = _encode(translate(body, card.model))
        path = "/api/chat" if chat else "/api/generate"
        stream_options = body.get("stream_options")
        usage = isinstance(stream_options, dict) and bool(stream_options.get("include_usage"))
        identity = hashlib.sha256(call.trace_id + request).hexdigest()[:24]
        writer = ollama_wire.AnswerWriter(card.model, identity, chat=chat, usage=usage)
        if body.get("stream"):
            await self._stream(path, request, writer, emit)
            return b""
        answer = await self._post(path, request)
        return _encode(self._translate(writer.whole, answer.body))

    async def _embed(self, model: str, body: dict[str, Any]) -> bytes:
        request = _encode(ollama_wire.embed_request(body, model))
        answer = await self._post("/api/embed", request)
        encoding = str(body.get("encoding_format") or "float")
        return _encode(self._translate(lambda part: ollama_wire.embed_answer(part, model, encoding), answer.body))

    async def _post(self, path: str, request: bytes) -> Answer:
        try:
            answer = await self._upstream.post(path, request)
        except UpstreamError as error:
            raise error.as_call_error(answered=False) from error
        if answer.status != 200:
            raise answer.call_error(self.name)
        return answer

    async def _stream(self, path: str, request: bytes, writer: ollama_wire.AnswerWriter, emit: Emit) -> None:
        emitted = False
        try:
            async with self._upstream.stream(path, request) as answer:
                if answer.status != 200:
                    raise Answer(answer.status, answer.headers, await answer.read()).call_error(self.name)
                held = b""
                while not writer.done and (piece := await answer.next()) is not None:
                    *lines, held = (held + piece).split(b"\n")
                    if len(held) > EVENT_MAX_BYTES:
                        raise CallError(Code.BACKEND, f"{self.name}: the stream broke: a line without end")
                    for line in lines:
                        if line.strip():
                            for chunk in self._translate(writer.chunks, line):
                                await emit(_encode(chunk))
                                emitted = True
                if writer.done:
                    with trio.move_on_after(LINGER_S):
                        await answer.next()
        except UpstreamError as error:
            raise error.as_call_error(answered=emitted) from error
        if not writer.done:
            message = f"{self.name}: the stream broke: it ended before the answer was finished"
            raise CallError(Code.BACKEND, message, retryable=not emitted)

    def _translate(self, translate: Callable[[dict[str, Any]], T], line: bytes) -> T:
        """*translate* one JSON object of an answer; one of another shape than documented is the backend's error."""
        part = self._parse(line)
        try:
            return translate(part)
        except (TypeError, ValueError, AttributeError, LookupError, struct.error) as error:
            raise CallError(Code.BACKEND, f"{self.name}: its answer has an unknown shape: {error}") from error

    def _parse(self, line: bytes) -> dict[str, Any]:
        """One JSON object of an answer; an error in it is raised."""
        try:
            part = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise CallError(Code.BACKEND, f"{self.name}: the stream broke: not JSON: {error}") from error
        if not isinstance(part, dict):
            raise CallError(Code.BACKEND, f"{self.name}: the stream broke: not a JSON object")
        if part.get("error"):
            said = str(part["error"])[:500]
            details = _encode({"status": 500, "body": {"error": said}})
            raise CallError(Code.BACKEND, f"{self.name}: the stream broke: {said}", details=details)
        return part

    async def aclose(self) -> None:
        await self._upstream.aclose()


def model_cards(name: str, show: dict[str, Any]) -> tuple[Card, ...]:
    """The cards for a model, from the answer of ``/api/show``; none for one that neither chats, embeds nor decides.

    Servers before 0.6.4 give no capabilities; there a model with a pooling type in its metadata embeds.
    """
    info = show.get("model_info")
    info = info if isinstance(info, dict) else {}
    family = str(info.get("general.architecture", ""))
    given = show.get("capabilities")
    if isinstance(given, list):
        capabilities = {str(word) for word in given}
    else:
        capabilities = {"embedding"} if f"{family}.pooling_type" in info else {"completion"}
    details = show.get("details")
    facts = details if isinstance(details, dict) else {}
    about = ", ".join(str(facts[key]) for key in ("family", "parameter_size", "quantization_level") if facts.get(key))
    label = f"{name} ({about})" if about else name
    cards = []
    if "decision" in capabilities:
        cards.append(decisions.decide_card(name, description=label, vision="vision" in capabilities))
    if "completion" in capabilities:
        cards.append(chat_card(
            name,
            description=f"{label}: a language model that chats, writes, explains and answers questions",
            vision="vision" in capabilities,
            tools="tools" in capabilities,
        ))
    dimensions = info.get(f"{family}.embedding_length")
    if not cards and "embedding" in capabilities and isinstance(dimensions, int) and dimensions > 0:
        description = f"{label}: turns texts into vectors for search and comparison"
        cards.append(embed_card(name, Space.of(name, dimensions).name, description=description))
    return tuple(cards)


def _encode(value: dict[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


ADAPTER = AdapterKind(name="ollama", ports=(11434,), open=OllamaBackend)
