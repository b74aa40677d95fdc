"""Any server that speaks the OpenAI API: llama.cpp, vLLM, LM Studio, SGLang, llamafile, or one in the cloud.

Every model of ``GET /v1/models`` becomes a capability. Bodies pass through as they came, apart from ``model``, which is
set to the model's name when the request said ``auto`` or nothing, and ``atmosphere``, which is for the mesh.

**What kind of model is it?** The API does not say, so: first what the server adds of its own (``type`` or ``task``,
``capabilities``, ``architecture``), then the name: a name with an embedding family in it is ``llm/embed``; a name of a
speech, image, reranking or moderation model is not offered, because those have no tool here; anything else is
``llm/chat``. A model taken for ``llm/embed`` is offered once it has embedded one word, which also tells its dimensions.
Whether one is ``llm/decide``, beside ``llm/chat`` or in its place, ``adapters/decisions.py`` finds out.
Tools, JSON schemas and streams are part of the API, so every chat model claims them; a server that cannot answers 400
and the caller sees that answer. Images are claimed only where metadata or name say so.
"""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import trio

from atmosphere.capabilities.adapters import AdapterKind, decisions
from atmosphere.capabilities.backend import Backend, BackendGone, BackendSilent, Emit, Provision, ToolCall
from atmosphere.capabilities.card import MAX_CONTEXT_TOKENS, NAME_MAX_BYTES, Card, Tool
from atmosphere.capabilities.decisions import DECIDE_TOOL, DECIDE_TYPE
from atmosphere.capabilities.sse import SseError, SseSplitter
from atmosphere.capabilities.upstream import Answer, Upstream, UpstreamError, UpstreamTimeout
from atmosphere.embedding.embedder import Space
from protocols.call.errors import CallError, Code

DISCOVER_TIMEOUT_S = 2.0  # two of them and a poll of 5 s stay below the 10 s in which a lost backend must be noticed
LINGER_S = 0.02  # for the end of the body after [DONE], with which the connection can be used again
NODE_HEADER = b"x-atmosphere-node"  # every answer of an Atmosphere node has it

_PROBE_GAP_MAX = 64  # polls between attempts with a model that is named like an embedder and does not embed

_EMBEDDING_NAME = re.compile(
    r"embed|(^|[/_.-])(bge|gte|e5|minilm|mpnet|nomic|stella|jina-clip)[_.-]|minilm|sentence-t", re.IGNORECASE
)
_OTHER_NAME = re.compile(
    r"rerank|whisper|(^|[/_.-])tts([_.-]|$)|speech|transcri|dall-e|gpt-image|stable-diffusion|sdxl|flux|moderation|sora",
    re.IGNORECASE,
)
_VISION_NAME = re.compile(r"vision|llava|pixtral|multimodal|(^|[/_.-])(vl|omni|gpt-4o)([_.-]|$)|\dvl", re.IGNORECASE)
_EMBEDDING_WORDS = {"embed", "embedding", "embeddings", "feature-extraction", "text-embedding"}
_CHAT_WORDS = {"llm", "vlm", "chat", "completion", "completions", "text-generation", "image-text-to-text", "generate"}

_MESSAGES = '{"type":"object","properties":{"messages":{"type":"array"}},"required":["messages"]}'
_PROMPT = '{"type":"object","properties":{"prompt":{"type":"string"}},"required":["prompt"]}'
_INPUT = '{"type":"object","properties":{"input":{"type":["string","array"]}},"required":["input"]}'

CHAT_TOOLS = (
    Tool("chat", "Answer a conversation; body of POST /v1/chat/completions", _MESSAGES),
    Tool("complete", "Continue a text; body of POST /v1/completions", _PROMPT),
)
EMBED_TOOLS = (Tool("embed", "Turn texts into vectors; body of POST /v1/embeddings", _INPUT),)
CHAT_EXAMPLES = ("Summarize this document", "Write a short reply to this mail", "Explain this code", "Translate this")

_DECISION_WORDS = {"decision", "decisions", "systemone", "typed-decisions"}
_DECISION_NAME = re.compile(
    r"decision|(^|[/_.:-])(jev|openjev|kev|lev|laya|clef|julia-1|nimble|tev1|decider)([_.:-]|$)", re.IGNORECASE
)
DECIDE_PATH = "/systemone"
_PATHS = {"chat": "/chat/completions", "complete": "/completions", "embed": "/embeddings"}


@dataclass(slots=True)
class _Space:
    """What is known of an embedding model's vectors."""

    name: str = ""
    gap: int = 1
    ask_again: int = 0
    """The poll at which to try again."""


class OpenAIBackend(Backend):
    """One OpenAI-compatible server. Cancelling a call closes its connection, at which such servers stop generating."""

    def __init__(self, url: str, key: str = "", concurrency: int = 4) -> None:
        """*url*: with or without the ``/v1`` at its end. Raises ValueError for something that is no http(s) URL."""
        path = urlsplit(url).path.rstrip("/")
        self._upstream = Upstream(url.rstrip("/") + ("" if re.search(r"/v\d+(beta)?$", path) else "/v1"), key=key)
        self._concurrency = concurrency
        self._spaces: dict[str, _Space] = {}
        self._decisions = decisions.Finder(self._upstream, DECIDE_PATH)
        self._polls = 0
        self.name = f"openai {url.rstrip('/')}"

    def __repr__(self) -> str:
        return f"<OpenAIBackend {self._upstream.url}>"

    async def discover(self) -> Sequence[Provision]:
        try:
            answer = await self._upstream.get("/models", timeout_s=DISCOVER_TIMEOUT_S)
        except UpstreamTimeout as error:
            raise BackendSilent(str(error)) from error
        except UpstreamError as error:
            raise BackendGone(str(error)) from error
        if NODE_HEADER in answer.headers:
            raise BackendGone(f"{self._upstream.url} is an Atmosphere node, not a backend; join its mesh instead")
        models = _models(answer, self._upstream.url)
        self._polls += 1
        self._spaces = {name: space for name, space in self._spaces.items() if any(m["id"] == name for m in models)}
        self._decisions.poll(model["id"] for model in models)
        provisions = []
        for model in models:
            cards = await self._cards(model, loaded=len(models) == 1 or _loaded(model))
            provisions += [Provision(card, self._concurrency) for card in cards]
        return provisions

    async def _cards(self, model: dict[str, Any], *, loaded: bool) -> list[Card]:
        """What *model* can be used as. *loaded*: asking it something small costs nothing but that."""
        name, context = model["id"], _context(model)
        kind = guess_type(model)
        if kind == "llm/embed":
            space = await self._space(name)
            return [embed_card(name, space, context_tokens=context)] if space else []
        if kind == DECIDE_TYPE:
            return [decisions.decide_card(name, vision=_sees(model), context_tokens=context)]
        if kind != "llm/chat":
            return []
        chat = chat_card(name, vision=_sees(model), context_tokens=context)
        declared = bool(_words(model) & _DECISION_WORDS)
        if not declared and not (loaded and await self._decisions.decides(name)):
            return [chat]
        dedicated = model.get("owned_by") == "llamacpp" or bool(_DECISION_NAME.search(name))
        decide = decisions.decide_card(
            name, vision=declared and _sees(model), dedicated=declared or dedicated, context_tokens=context
        )
        return [chat, decide] if declared or not dedicated else [decide]

    async def _space(self, model: str) -> str:
        """The model's space; "" while it does not embed. Known ones are not asked again, failing ones ever rarer."""
        found = self._spaces.get(model)
        if found is None:
            found = self._spaces[model] = _Space()
        if not found.name and self._polls >= found.ask_again:
            found.name = await self._probe_space(model)
            found.gap = min(found.gap * 2, _PROBE_GAP_MAX)
            found.ask_again = self._polls + found.gap
        return found.name

    async def _probe_space(self, model: str) -> str:
        """Embed one word; "" when that does not work (yet)."""
        body = json.dumps({"model": model, "input": "hello"}).encode()
        try:
            answer = await self._upstream.exchange(b"POST", "/embeddings", body, timeout_s=DISCOVER_TIMEOUT_S)
            vector = answer.json()["data"][0]["embedding"]
        except (UpstreamError, ValueError, LookupError, TypeError):
            return ""
        # llama.cpp without pooling answers one vector per token: that is no embedding of a text.
        flat = isinstance(vector, list) and all(isinstance(value, int | float) for value in vector)
        return Space.of(model, len(vector)).name if flat and vector else ""

    async def invoke(self, card: Card, call: ToolCall, emit: Emit) -> bytes:
        arguments = call.arguments()
        path = _PATHS.get(call.tool)
        if path is None:
            if call.tool == DECIDE_TOOL:
                return await decisions.decide(self._upstream, DECIDE_PATH, card, call, self.name)
            raise CallError(Code.NOT_FOUND, f"{self.name} has no tool {call.tool!r}")
        body = call.args
        if arguments.get("model") != card.model or "atmosphere" in arguments:
            arguments = {name: value for name, value in arguments.items() if name != "atmosphere"}
            arguments["model"] = card.model
            body = json.dumps(arguments, separators=(",", ":")).encode()
        if arguments.get("stream") and call.tool != "embed":
            await self._stream(path, body, emit)
            return b""
        try:
            answer = await self._upstream.post(path, body)
        except UpstreamError as error:
            raise error.as_call_error(answered=False) from error
        if answer.status != 200:
            raise answer.call_error(self.name)
        if not (_opens_object(answer.body[:64]) and answer.body[-64:].rstrip().endswith(b"}")):
            message = f"{self.name} answered {path} with something else than a JSON object; is this its address?"
            raise CallError(Code.BACKEND, message, retryable=True)
        return answer.body

    async def _stream(self, path: str, body: bytes, emit: Emit) -> None:
        emitted = False
        last: deque[bytes] = deque(maxlen=3)  # the finish is in the last chunk, or before the usage chunk
        try:
            async with self._upstream.stream(path, body) as answer:
                if answer.status != 200:
                    content = await answer.read()
                    raise Answer(answer.status, answer.headers, content).call_error(self.name)
                kind = answer.headers.get(b"content-type", b"")
                if not kind.startswith(b"text/event-stream"):
                    message = f"{self.name} answered {kind.decode('latin-1')!r}, not a stream; ask without stream"
                    raise CallError(Code.BACKEND, message)
                splitter = SseSplitter()
                while (piece := await answer.next()) is not None:
                    for data in splitter.feed(piece):
                        if data == b"[DONE]":
                            with trio.move_on_after(LINGER_S):
                                await answer.next()
                            return
                        if not _opens_object(data):
                            raise SseError("an event is no JSON object")
                        if b'"error"' in data[:16]:
                            self._raise_if_error(data)
                        await emit(data)
                        emitted = True
                        last.append(data)
        except UpstreamError as error:
            raise error.as_call_error(answered=emitted) from error
        except SseError as error:
            message = f"{self.name}: the stream broke: {error}"
            raise CallError(Code.BACKEND, message, retryable=not emitted) from error
        if not any(_finishes(data) for data in last):
            message = f"{self.name}: the stream broke: it ended before the answer was finished"
            raise CallError(Code.BACKEND, message, retryable=not emitted)

    def _raise_if_error(self, data: bytes) -> None:
        """A server that fails while it generates says so in an event; it must not pass for a piece of the answer."""
        try:
            error = json.loads(data).get("error")
        except (ValueError, AttributeError, RecursionError):
            return
        if error:
            said = error.get("message") if isinstance(error, dict) else error
            details = data if len(data) < 12_000 else b""
            raise CallError(Code.BACKEND, f"{self.name}: the stream broke: {str(said)[:500]}", details=details)

    async def aclose(self) -> None:
        await self._upstream.aclose()


def chat_card(model: str, *, description: str = "", vision: bool = False, tools: bool = True,
              context_tokens: int = 0) -> Card:
    """The card of a chat model. It names the model and what it can take, never the server: two servers, one card."""
    return Card(
        type="llm/chat",
        description=description or f"{model}: a language model that chats, writes, explains and answers questions",
        model=model,
        examples=CHAT_EXAMPLES,
        inputs=("image", "text") if vision else ("text",),
        features=("json_schema", "stream", *(["tools"] if tools else []), *(["vision"] if vision else [])),
        context_tokens=context_tokens,
        tools=CHAT_TOOLS,
    )


def embed_card(model: str, space: str, *, description: str = "", context_tokens: int = 0) -> Card:
    """The card of an embedding model; *space* is ``model:dimensions``."""
    return Card(
        type="llm/embed",
        description=description or f"{model}: turns texts into vectors for search and comparison",
        model=model,
        outputs=("vector",),
        context_tokens=context_tokens,
        space=space,
        tools=EMBED_TOOLS,
    )


def guess_type(model: dict[str, Any]) -> str:
    """``llm/chat``, ``llm/embed``, ``llm/decide``, or "" for a model that has no tool here.

    The module's docstring says how.
    """
    words = _words(model)
    if words & _CHAT_WORDS:
        return "llm/chat"
    if words & _DECISION_WORDS:
        return DECIDE_TYPE
    if words & _EMBEDDING_WORDS:
        return "llm/embed"
    outputs = _modalities(model, "output_modalities")
    if outputs and "text" not in outputs:
        return "llm/embed" if outputs & _EMBEDDING_WORDS else ""
    name = model["id"]
    if _OTHER_NAME.search(name):
        return ""
    return "llm/embed" if _EMBEDDING_NAME.search(name) else "llm/chat"


def _words(model: dict[str, Any]) -> set[str]:
    """What the server says of the model beside its name."""
    words = {str(model.get(key)).lower() for key in ("type", "task", "model_type") if model.get(key)}
    capabilities = model.get("capabilities")
    if isinstance(capabilities, list | dict):
        given = [word for word in capabilities if not isinstance(capabilities, dict) or capabilities[word]]
        words |= {str(word).lower() for word in given}
    return words


def _loaded(model: dict[str, Any]) -> bool:
    """Whether the list says that the model is in memory (llama.cpp's router, LM Studio)."""
    status = model.get("status")
    return (status.get("value") if isinstance(status, dict) else model.get("state")) == "loaded"


def _models(answer: Answer, url: str) -> list[dict[str, Any]]:
    """The usable entries of a model list, each model once. Raises :class:`BackendGone` when this is no model list."""
    if answer.status != 200:
        hint = "; check its API key" if answer.status in (401, 403) else ""
        raise BackendGone(f"{url}/models answered {answer.status}{hint}")
    try:
        parsed = answer.json()
        entries = parsed["data"] if isinstance(parsed, dict) else parsed
    except (ValueError, KeyError):
        entries = None
    if not isinstance(entries, list):
        raise BackendGone(f"{url}/models is no list of models; is this an OpenAI-compatible server?")
    models = {}
    for entry in entries:
        name = entry.get("id") if isinstance(entry, dict) else None
        if isinstance(name, str) and 0 < len(name.encode("utf-8", "replace")) <= NAME_MAX_BYTES:
            models[name] = entry
    return list(models.values())


def _modalities(model: dict[str, Any], key: str) -> set[str]:
    architecture = model.get("architecture")
    found = architecture.get(key) if isinstance(architecture, dict) else model.get(key)
    return {str(word).lower() for word in found} if isinstance(found, list) else set()


def _sees(model: dict[str, Any]) -> bool:
    capabilities = model.get("capabilities")
    if isinstance(capabilities, dict) and isinstance(capabilities.get("vision"), bool):
        return bool(capabilities["vision"])
    if isinstance(capabilities, list) and {"vision", "multimodal"} & {str(word).lower() for word in capabilities}:
        return True
    modalities = _modalities(model, "input_modalities")
    if modalities:
        return "image" in modalities
    return model.get("type") == "vlm" or bool(_VISION_NAME.search(model["id"]))


def _context(model: dict[str, Any]) -> int:
    """The context that the server says it runs the model with; what a model was *trained* with is not that."""
    meta = model.get("meta")
    candidates = [meta.get("n_ctx") if isinstance(meta, dict) else None]
    candidates += [model.get(key) for key in ("max_model_len", "loaded_context_length", "context_window",
                                              "context_length")]
    for value in candidates:
        if isinstance(value, int) and not isinstance(value, bool) and 0 < value <= MAX_CONTEXT_TOKENS:
            return value
    return 0


def _opens_object(data: bytes) -> bool:
    """The cheap part of the question whether *data* is a JSON object: a page or an empty answer is none."""
    return data.startswith(b"{") or data.lstrip().startswith(b"{")


def _finishes(data: bytes) -> bool:
    """Whether a chunk says why the answer ended."""
    try:
        return any(choice.get("finish_reason") for choice in json.loads(data).get("choices", []))
    except (ValueError, AttributeError, TypeError, RecursionError):
        return False


ADAPTER = AdapterKind(
    name="openai",
    # llama.cpp, llamafile and LocalAI; vLLM; LM Studio; Jan; KoboldCpp; SGLang; GPT4All
    ports=(8080, 8000, 1234, 1337, 5001, 30000, 4891),
    open=OpenAIBackend,
)
