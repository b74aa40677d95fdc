"""What a chat request tells the router besides its meaning: how long it is, and what it begins with. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

ASCII_PER_TOKEN = 4.0
"""English text under the tokenizers of common models; source code has fewer characters a token, prose a few more."""
OTHERS_PER_TOKEN = 1.5
"""Other scripts: about one and a half characters a token under tokenizers of today."""
MEDIA_TOKENS = 256
"""An image or a recording takes at least as much of the context."""
MESSAGE_TOKENS = 4
"""Around each message."""
MIN_TOKENS = 64
"""A shorter request is read in no time: nobody has to be preferred for having read it before."""
_KEY_BYTES = 16


class Prompt(NamedTuple):
    """Of one request."""

    tokens: int
    """Counted from its characters: the tokenizer is the model's, and that is not chosen yet."""
    prefixes: tuple[bytes, ...]
    """Keys of what it begins with, the most specific first: the conversation, then system prompt and tools."""


def count_tokens(text: str) -> int:
    """About how many tokens *text* is."""
    if text.isascii():
        return round(len(text) / ASCII_PER_TOKEN)
    others = min(len(text), len(text.encode("utf-8", "surrogatepass")) - len(text))  # exact for accents, else at most
    return round((len(text) - others) / ASCII_PER_TOKEN + others / OTHERS_PER_TOKEN)


def chat_prompt(body: Mapping[str, Any]) -> Prompt:
    """Of a chat request in OpenAI's form whose messages are known to be objects with a role.

    ``prompt_cache_key``, where a client sends it, names the conversation; else its first words do.
    """
    tokens = 0
    opening: list[Any] = []  # the system messages that it begins with, then the first of the user
    begun = False
    for message in body["messages"]:
        content = message.get("content")
        tokens += MESSAGE_TOKENS + _content_tokens(content)
        if not begun:
            begun = message["role"] not in ("system", "developer")
            opening.append(content)
    tools = body.get("tools") or body.get("functions")
    described = json.dumps(tools, separators=(",", ":")) if tools else ""
    tokens += count_tokens(described)
    if tokens < MIN_TOKENS:
        return Prompt(tokens, ())
    first = opening.pop() if begun else None
    head = _key(json.dumps(opening), described) if opening or described else b""
    named = body.get("prompt_cache_key")
    if isinstance(named, str) and named:
        session = _key("named", named)
    else:
        session = _key(head.hex(), json.dumps(first)) if begun else b""
    return Prompt(tokens, tuple(filter(None, (session, head))))


def _content_tokens(content: Any) -> int:
    if isinstance(content, str):
        return count_tokens(content)
    if not isinstance(content, list):
        return 0
    texts = (part.get("text") for part in content if isinstance(part, dict))
    return sum(count_tokens(text) if isinstance(text, str) else MEDIA_TOKENS for text in texts)


def _key(*words: str) -> bytes:
    digest = hashlib.blake2b(digest_size=_KEY_BYTES)
    for word in words:
        encoded = word.encode("utf-8", "surrogatepass")
        digest.update(len(encoded).to_bytes(8, "big") + encoded)
    return digest.digest()
