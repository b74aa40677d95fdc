"""What every node has: health, and embeddings by its own embedder."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trio

from atmosphere.capabilities.adapters.embedder import MAX_INPUT_CHARS, MAX_INPUTS, EmbedderBackend
from atmosphere.capabilities.adapters.health import HEALTH_CARD, HealthBackend
from atmosphere.embedding import HashEmbedder
from atmosphere.env import FixedEnv
from protocols.call import Code
from tests.capabilities.calls import failure, invoke


def embedder(dimensions: int = 16) -> EmbedderBackend:
    return EmbedderBackend(HashEmbedder(dimensions), FixedEnv())


async def test_health_tells_the_state_of_the_machine(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    backend = HealthBackend(FixedEnv(), tmp_path)
    assert [provision.card for provision in await backend.discover()] == [HEALTH_CARD]
    await trio.sleep(5)
    answer, _ = await invoke(backend, HEALTH_CARD, "check")
    assert answer["status"] == "ok"
    assert answer["uptime_s"] == pytest.approx(5, abs=0.1)
    assert answer["cpu"]["cores"] >= 1
    assert 0 < answer["memory"]["available_bytes"] <= answer["memory"]["total_bytes"]
    assert 0 < answer["disk"]["free_bytes"] <= answer["disk"]["total_bytes"]
    assert (await failure(backend, HEALTH_CARD, "reboot")).code is Code.NOT_FOUND


async def test_embeddings_are_the_embedders_own_in_order() -> None:
    backend = embedder()
    (provision,) = await backend.discover()
    assert (provision.card.type, provision.card.space) == ("llm/embed", "hashed-words:16")
    texts = [f"text number {n}" for n in range(20)]
    answer, _ = await invoke(backend, provision.card, "embed", input=texts, model="auto", encoding_format="float")
    assert answer["space"] == "hashed-words:16"
    assert [item["index"] for item in answer["data"]] == list(range(20))
    vectors = [np.frombuffer(base64.b64decode(item["embedding"]), "<f4") for item in answer["data"]]
    assert np.array_equal(vectors, HashEmbedder(16).embed(texts))
    assert answer["usage"]["prompt_tokens"] == sum(map(HashEmbedder(16).count_tokens, texts))
    single, _ = await invoke(backend, provision.card, "embed", input=texts[3])
    assert single["data"][0]["embedding"] == answer["data"][3]["embedding"]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({}, Code.INVALID),
        ({"input": []}, Code.INVALID),
        ({"input": [1, 2, 3]}, Code.INVALID),
        ({"input": [[1, 2]]}, Code.INVALID),
        ({"input": ["a", 1]}, Code.INVALID),
        ({"input": "a", "dimensions": 8}, Code.INVALID),
        ({"input": ["a"] * (MAX_INPUTS + 1)}, Code.INVALID),
        ({"input": "a" * (MAX_INPUT_CHARS + 1)}, Code.TOO_LARGE),
    ],
    ids=["nothing", "empty", "tokens", "token lists", "mixed", "dimensions", "too many", "too long"],
)
async def test_what_cannot_be_embedded_is_refused(body: dict[str, Any], code: Code) -> None:
    backend = embedder()
    error = await failure(backend, backend.card, "embed", **body)
    assert error.code is code
    assert len(error.message) > 20


async def test_a_long_list_can_be_cancelled_between_slices() -> None:
    calls = 0

    class Counting(HashEmbedder):
        def embed(self, texts: Any) -> Any:
            nonlocal calls
            calls += 1
            scope.cancel()
            return super().embed(texts)

    class Cancellable(FixedEnv):
        async def run_blocking(self, function: Any) -> Any:
            await trio.lowlevel.checkpoint()
            return function()

    backend = EmbedderBackend(Counting(16), Cancellable())
    with trio.CancelScope() as scope:
        await invoke(backend, backend.card, "embed", input=["a"] * 1000)
    assert scope.cancelled_caught
    assert calls == 1
