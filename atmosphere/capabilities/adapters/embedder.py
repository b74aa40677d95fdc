"""``llm/embed`` by the node's own embedder. Built in, always there.

The answer has OpenAI's shape; every ``embedding`` is base64 of little-endian float32, whatever ``encoding_format``
asks: that is the form that travels the mesh, and the HTTP layer turns it into floats for clients that want them.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from atmosphere.capabilities.adapters.openai import embed_card
from atmosphere.capabilities.backend import Backend, Emit, Provision, ToolCall
from atmosphere.capabilities.card import Card
from atmosphere.embedding.embedder import Embedder
from atmosphere.env import Env
from protocols.call.errors import CallError, Code

MAX_INPUTS = 2048               # the OpenAI API's own limit
MAX_INPUT_CHARS = 1024 * 1024   # of one text; the model reads its beginning only, the tokenizer all of it
SLICE = 8                       # texts per stay in a worker thread, about 30 ms: how long a cancelled call runs on
_CONCURRENCY = 2                # the model has one thread; a second call keeps a long list from blocking a short one


class EmbedderBackend(Backend):
    """Embeds in a worker thread; between slices of a list it can be cancelled."""

    def __init__(self, embedder: Embedder, env: Env) -> None:
        self._embedder = embedder
        self._env = env
        self.name = f"built-in embedder {embedder.space.name}"
        self.card = embed_card(
            embedder.space.model,
            embedder.space.name,
            description=f"{embedder.space.model}: turns texts into vectors for search and comparison, on the processor",
            context_tokens=embedder.max_tokens,
        )

    async def discover(self) -> Sequence[Provision]:
        return [Provision(self.card, _CONCURRENCY)]

    async def invoke(self, card: Card, call: ToolCall, emit: Emit) -> bytes:
        if call.tool != "embed":
            raise CallError(Code.NOT_FOUND, f"{self.name} has no tool {call.tool!r}; it has: embed")
        body = call.arguments()
        texts = _texts(body)
        dimensions = body.get("dimensions")
        if dimensions is not None and dimensions != self._embedder.space.dimensions:
            native = self._embedder.space.dimensions
            message = f"{self._embedder.space.model} has {native} dimensions and no others; leave 'dimensions' out"
            raise CallError(Code.INVALID, message)
        data: list[dict[str, Any]] = []
        tokens = 0
        for start in range(0, len(texts), SLICE):
            part = texts[start : start + SLICE]
            vectors, count = await self._env.run_blocking(lambda part=part: self._embed(part))  # type: ignore[misc]
            tokens += count
            for vector in vectors:
                data.append({"object": "embedding", "index": len(data), "embedding": base64.b64encode(vector).decode()})
        return json.dumps(
            {
                "object": "list",
                "data": data,
                "model": self._embedder.space.model,
                "space": self._embedder.space.name,
                "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
            }
        ).encode()

    def _embed(self, texts: list[str]) -> tuple[list[bytes], int]:
        vectors = np.ascontiguousarray(self._embedder.embed(texts), dtype="<f4")
        return [vector.tobytes() for vector in vectors], sum(map(self._embedder.count_tokens, texts))


def _texts(body: dict[str, Any]) -> list[str]:
    given = body.get("input")
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list) or not texts:
        raise CallError(Code.INVALID, "'input' must be a text or a list of texts, not empty")
    if not all(isinstance(text, str) for text in texts):
        message = "'input' must hold texts; token arrays belong to another model's tokenizer: send the text itself"
        raise CallError(Code.INVALID, message)
    if len(texts) > MAX_INPUTS:
        message = f"'input' has {len(texts)} texts; the limit is {MAX_INPUTS}: send several requests"
        raise CallError(Code.INVALID, message)
    longest = max(len(text) for text in texts)
    if longest > MAX_INPUT_CHARS:
        message = f"a text of 'input' has {longest} characters; the limit is {MAX_INPUT_CHARS}: split it"
        raise CallError(Code.TOO_LARGE, message)
    return texts
