"""Continuation: what the next node is asked, what the reader is told, and what cannot be continued."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atmosphere.capabilities.card import Card
from atmosphere.work.continuation import MAX_SAID_BYTES, Said, continues

USER = {"role": "user", "content": "tell me"}
CHAT = {"model": "m", "messages": [USER], "stream": True, "temperature": 0.5}


def piece(text: str | None = None, *, index: int = 0, finish: str | None = None, **delta: Any) -> bytes:
    delta |= {} if text is None else {"content": text}
    choice = {"index": index, "delta": delta, "finish_reason": finish}
    return json.dumps({"id": "c1", "created": 5, "model": "m", "object": "chat.completion.chunk",
                       "choices": [choice]}).encode()


def word(text: str) -> bytes:
    return json.dumps({"id": "c1", "object": "text_completion", "choices": [{"index": 0, "text": text}]}).encode()


def said(body: Any, *pieces: bytes, tool: str = "chat") -> Said:
    said = Said(tool, json.dumps(body).encode())
    for one in pieces:
        said.add(one)
    return said


def test_a_chat_goes_on_as_vllm_documents_it() -> None:
    resumption = said(CHAT, piece(role="assistant"), piece("Once "), piece("upon")).resume("pi")
    assert resumption is not None
    assert json.loads(resumption.args) == {
        **CHAT, "messages": [USER, {"role": "assistant", "content": "Once upon"}],
        "continue_final_message": True, "add_generation_prompt": False,
    }
    assert json.loads(resumption.mark) == {
        "id": "c1", "created": 5, "model": "m", "object": "chat.completion.chunk", "choices": [],
        "atmosphere": {"continued_on": "pi", "after_chars": 9},
    }


def test_a_completion_goes_on_behind_its_prompt() -> None:
    for prompt in ("Say: ", ["Say: "]):
        resumption = said({"prompt": prompt, "stream": True}, word("a"), word("b"), tool="complete").resume("pi")
        assert resumption is not None
        assert json.loads(resumption.args) == {"prompt": "Say: ab", "stream": True}
        assert json.loads(resumption.mark)["object"] == "text_completion"


def test_what_the_client_had_begun_itself_grows() -> None:
    """A request that was a continuation already has one open message, not two."""
    begun = {"messages": [USER, {"role": "assistant", "content": "Once"}], "continue_final_message": True}
    resumption = said(begun, piece(" upon")).resume("pi")
    assert resumption is not None
    assert json.loads(resumption.args)["messages"] == [USER, {"role": "assistant", "content": "Once upon"}]


def test_the_second_break_gives_the_whole_text() -> None:
    """Marks of an earlier continuation are pieces like others and add nothing."""
    first = said(CHAT, piece("a"))
    resumption = first.resume("one")
    assert resumption is not None
    first.add(resumption.mark)
    first.add(piece("b"))
    again = first.resume("two")
    assert again is not None
    assert json.loads(again.args)["messages"][-1] == {"role": "assistant", "content": "ab"}
    assert json.loads(again.mark)["atmosphere"] == {"continued_on": "two", "after_chars": 2}


def test_the_limit_on_tokens_is_what_is_left_of_it() -> None:
    for name in ("max_tokens", "max_completion_tokens"):
        for limit, left in ((10, 8), (2, 1)):
            resumption = said({**CHAT, name: limit}, piece("a"), piece("b")).resume("pi")
            assert resumption is not None
            assert json.loads(resumption.args)[name] == left


def test_nothing_said_yet_is_the_same_request() -> None:
    resumption = said(CHAT, piece(role="assistant")).resume("pi")
    assert resumption is not None
    assert json.loads(resumption.args) == CHAT


NOT_CONTINUABLE = {
    "a tool call": (CHAT, piece(tool_calls=[{"index": 0, "function": {"name": "look", "arguments": "{"}}])),
    "reasoning": (CHAT, piece(reasoning_content="hm")),
    "a second answer": (CHAT, piece("x", index=1)),
    "finished": (CHAT, piece("x", finish="stop")),
    "n": ({**CHAT, "n": 2}, piece("x")),
    "a JSON answer": ({**CHAT, "response_format": {"type": "json_object"}}, piece("{")),
    "a grammar": ({**CHAT, "guided_regex": "a*"}, piece("a")),
    "a last message that was no beginning": ({"messages": [USER, {"role": "assistant", "content": "x"}]}, piece("y")),
    "parts as a beginning": ({"messages": [{"role": "assistant", "content": [{"type": "text", "text": "x"}]}],
                              "continue_final_message": True}, piece("y")),
    "no messages": ({"messages": []}, piece("y")),
    "no JSON": (CHAT, b"..."),
    "no object": (CHAT, b"[1]"),
    "too long": (CHAT, piece("x" * MAX_SAID_BYTES)),
    "a bad limit": ({**CHAT, "max_tokens": "many"}, piece("x")),
}


@pytest.mark.parametrize("name", NOT_CONTINUABLE)
def test_what_cannot_be_continued(name: str) -> None:
    body, broken = NOT_CONTINUABLE[name]
    assert said(body, broken).resume("pi") is None


@pytest.mark.parametrize("more", [{"prompt": [1, 2]}, {"prompt": ["a", "b"]}, {"echo": True}, {"suffix": "!"},
                                  {"best_of": 2}])
def test_completions_that_cannot_be_continued(more: dict[str, Any]) -> None:
    assert said({"prompt": "a", **more}, word("x"), tool="complete").resume("pi") is None


def test_only_chats_and_completions_are_texts() -> None:
    assert said({"query": "x"}, piece("x"), tool="search").resume("pi") is None


@given(st.binary(max_size=40), st.lists(st.binary(max_size=40), max_size=3))
def test_no_bytes_make_it_fail(args: bytes, pieces: list[bytes]) -> None:
    """Pieces come from another node: whatever they are, the break stays the break."""
    one = Said("chat", args)
    for piece in pieces:
        one.add(piece)
    one.resume("pi")


def test_the_card_says_it() -> None:
    assert continues(Card("llm/chat", "", features=("continue", "stream")))
    assert not continues(Card("llm/chat", "", features=("stream",)))
