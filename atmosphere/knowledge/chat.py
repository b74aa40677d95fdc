"""The OpenAI chat shape around a quoted answer: what of a request can be served, and how the answer is written."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from atmosphere.knowledge.card import TYPE
from protocols.call import CallError, Code

MAX_MESSAGES = 1_000


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """The part of a chat.completions body that matters here."""

    question: str
    """The last user message."""
    prompt: str
    """All texts of the conversation: for the usage figures."""
    stream: bool
    include_usage: bool


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts in the embedder's tokens: no language model runs."""

    prompt: int
    completion: int

    def plain(self) -> dict[str, int]:
        return {
            "prompt_tokens": self.prompt,
            "completion_tokens": self.completion,
            "total_tokens": self.prompt + self.completion,
        }


def parse(body: dict[str, Any]) -> ChatRequest:
    """Read a request body. Raises :class:`CallError` (``invalid``) for what quoting documents cannot do.

    Sampling settings and unknown fields are ignored: they have no meaning for quotations.
    """
    for name in ("tools", "functions"):
        if body.get(name):
            raise _invalid(f"{name}: {TYPE} quotes documents and calls no tools; name a chat model")
    response_format = body.get("response_format")
    if response_format is not None and response_format != {"type": "text"}:
        raise _invalid(f"response_format: {TYPE} answers in plain text only; name a chat model, or leave it out")
    if body.get("n") not in (None, 1):
        raise _invalid(f"n: {TYPE} gives one answer; leave it out")
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages or len(messages) > MAX_MESSAGES:
        raise _invalid(f"messages must be a list of 1 to {MAX_MESSAGES} messages")
    texts, question = [], None
    for message in messages:
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise _invalid("messages: each must be an object with a role and a content")
        text = _text(message.get("content"))
        texts.append(text)
        if message["role"] == "user":
            question = text
    if question is None or not question.strip():
        raise _invalid("messages: the last user message is the question, and there is none with text")
    options = body.get("stream_options")
    return ChatRequest(
        question,
        "\n".join(texts),
        body.get("stream") is True,
        isinstance(options, dict) and options.get("include_usage") is True,
    )


def completion(answer_id: str, created: int, text: str, usage: Usage) -> bytes:
    """A chat.completion object."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "logprobs": None, "finish_reason": "stop"}
    return _json(
        {
            "id": answer_id,
            "object": "chat.completion",
            "created": created,
            "model": TYPE,
            "choices": [choice],
            "usage": usage.plain(),
        }
    )


def chunks(answer_id: str, created: int, pieces: list[str], usage: Usage, include_usage: bool) -> list[bytes]:
    """The same as chat.completion.chunk objects: role, one per piece, end, and usage if it was asked for."""

    def chunk(choices: list[dict[str, Any]], **more: Any) -> bytes:
        head = {"id": answer_id, "object": "chat.completion.chunk", "created": created, "model": TYPE}
        return _json({**head, "choices": choices, **more})

    def choice(delta: dict[str, str], finish_reason: str | None = None) -> list[dict[str, Any]]:
        return [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}]

    no_usage: dict[str, Any] = {"usage": None} if include_usage else {}
    parts = [choice({"role": "assistant", "content": ""}), *(choice({"content": piece}) for piece in pieces)]
    written = [chunk(part, **no_usage) for part in [*parts, choice({}, "stop")]]
    return [*written, chunk([], usage=usage.plain())] if include_usage else written


def _text(content: Any) -> str:
    if content is None:  # an assistant's message that only called tools
        return ""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise _invalid("messages: content must be a text or a list of parts")
    texts = []
    for part in content:
        if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
            raise _invalid(f"messages: {TYPE} reads text parts only, no images or sound; name a model that does")
        texts.append(part["text"])
    return "\n".join(texts)


def _invalid(message: str) -> CallError:
    return CallError(Code.INVALID, message)


def _json(value: dict[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "replace")
