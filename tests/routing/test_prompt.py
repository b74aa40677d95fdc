"""Length and beginning of a request."""

from __future__ import annotations

from typing import Any

import pytest

from atmosphere.routing.prompt import MEDIA_TOKENS, MESSAGE_TOKENS, MIN_TOKENS, chat_prompt, count_tokens

SYSTEM = {"role": "system", "content": "You are a careful librarian. " * 20}
TOOLS = [{"type": "function", "function": {"name": "find", "parameters": {"type": "object"}}}]


def say(text: str, role: str = "user") -> dict[str, Any]:
    return {"role": role, "content": text}


def keys(*messages: dict[str, Any], **body: Any) -> tuple[bytes, ...]:
    return chat_prompt({"messages": list(messages), **body}).prefixes


@pytest.mark.parametrize(("text", "least", "most"), [
    ("", 0, 0),
    ("word " * 400, 400, 600),                  # 401 under GPT-2's tokenizer
    ("def f(x):\n    return x + 1\n" * 50, 250, 800),
    ("日本語の文章です。" * 100, 500, 1000),
    ("Größe und Maß über alles " * 40, 200, 500),
    ("🙂" * 100, 60, 300),
])
def test_counted_from_characters(text: str, least: int, most: int) -> None:
    assert least <= count_tokens(text) <= most


def test_everything_that_takes_room_counts() -> None:
    parts = [{"type": "text", "text": "a" * 400}, {"type": "image_url", "image_url": {"url": "data:" + "A" * 9000}}]
    body = {"messages": [say("b" * 40), {"role": "user", "content": parts}, {"role": "assistant", "content": None}]}
    plain = chat_prompt(body).tokens
    assert plain == 10 + 100 + MEDIA_TOKENS + 3 * MESSAGE_TOKENS
    assert chat_prompt({**body, "tools": TOOLS}).tokens > plain


def test_the_next_turn_begins_like_the_first() -> None:
    first = keys(SYSTEM, say("Where is Moby Dick?"))
    second = keys(SYSTEM, say("Where is Moby Dick?"), say("On shelf 3.", "assistant"), say("And Walden?"))
    assert len(first) == 2
    assert first == second


def test_another_conversation_shares_system_prompt_and_tools_only() -> None:
    one, other = keys(SYSTEM, say("one"), tools=TOOLS), keys(SYSTEM, say("two"), tools=TOOLS)
    assert one[0] != other[0]
    assert one[1] == other[1]
    assert keys(SYSTEM, say("one"))[1] != one[1], "the tools are part of what is computed"
    assert keys(say("Another system. " * 30, "system"), say("one"), tools=TOOLS)[1] != one[1]


def test_a_named_conversation_is_that_one_whatever_it_begins_with() -> None:
    one = keys(SYSTEM, say("one"), prompt_cache_key="k")
    assert one[0] == keys(say("two " * 100), prompt_cache_key="k")[0]
    assert one[0] != keys(SYSTEM, say("one"), prompt_cache_key="l")[0]


def test_short_requests_are_nobodys() -> None:
    assert keys(say("hello")) == ()
    long = say("x" * 4 * MIN_TOKENS)
    assert len(keys(long)) == 1, "no system prompt: the conversation alone"
    assert keys(SYSTEM) != (), "no user's words: the system prompt alone"
