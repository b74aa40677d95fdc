"""Calling a backend in tests: collect the pieces, or the error."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio

from atmosphere.capabilities.backend import Backend, ToolCall
from atmosphere.capabilities.card import Card
from protocols.call import CallError


async def invoke(backend: Backend, card: Card, tool: str, **body: Any) -> tuple[Any, list[Any]]:
    """(result, pieces), parsed."""
    pieces: list[Any] = []

    async def emit(piece: bytes) -> None:
        await trio.lowlevel.checkpoint()
        pieces.append(json.loads(piece))

    result = await backend.invoke(card, ToolCall(tool, json.dumps(body).encode()), emit)
    return json.loads(result) if result else None, pieces


async def failure(backend: Backend, card: Card, tool: str, **body: Any) -> CallError:
    with pytest.raises(CallError) as caught:
        await invoke(backend, card, tool, **body)
    return caught.value


def user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]
