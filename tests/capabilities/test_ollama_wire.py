"""Translation between OpenAI's wire and Ollama's: tables of bodies in and out."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atmosphere.capabilities.adapters.ollama_wire import (
    AnswerWriter,
    chat_request,
    created,
    embed_answer,
    embed_request,
    generate_request,
)
from protocols.call import CallError, Code

HI = [{"role": "user", "content": "hi"}]
TOOLS = [{"type": "function", "function": {"name": "weather"}}]
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}
PNG = "iVBORw0KGgo="


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, {}),
        ({"stream": True}, {"stream": True}),
        ({"temperature": 0, "top_p": 0.5, "seed": 7}, {"options": {"temperature": 0, "top_p": 0.5, "seed": 7}}),
        ({"max_tokens": 5}, {"options": {"num_predict": 5}}),
        ({"max_tokens": 5, "max_completion_tokens": 6}, {"options": {"num_predict": 6}}),
        ({"stop": "x"}, {"options": {"stop": ["x"]}}),
        ({"stop": ["x", "y"]}, {"options": {"stop": ["x", "y"]}}),
        ({"options": {"num_ctx": 512, "seed": 1}, "seed": 2}, {"options": {"num_ctx": 512, "seed": 2}}),
        ({"temperature": None, "stop": None, "tools": None, "n": None, "response_format": None}, {}),
        ({"response_format": {"type": "text"}}, {}),
        ({"response_format": {"type": "json_object"}}, {"format": "json"}),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA}}},
         {"format": SCHEMA}),
        ({"tools": TOOLS}, {"tools": TOOLS}),
        ({"tools": TOOLS, "tool_choice": "auto"}, {"tools": TOOLS}),
        ({"tools": TOOLS, "tool_choice": "none"}, {}),
        ({"reasoning_effort": "high"}, {"think": "high"}),
        ({"reasoning_effort": "none"}, {"think": False}),
        ({"think": True, "keep_alive": "5m"}, {"think": True, "keep_alive": "5m"}),
        ({"user": "u", "metadata": {}, "logit_bias": {}, "parallel_tool_calls": True}, {}),
    ],
    ids=str,
)
def test_fields_of_a_chat(given: dict[str, Any], expected: dict[str, Any]) -> None:
    plain = {"model": "m", "stream": False, "messages": [{"role": "user", "content": "hi"}]}
    assert chat_request({"messages": HI, **given}, "m") == plain | expected


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ({"role": "developer", "content": "be short"}, {"role": "system", "content": "be short"}),
        ({"role": "assistant", "content": None}, {"role": "assistant", "content": ""}),
        ({"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
         {"role": "user", "content": "a\nb"}),
        ({"role": "user", "content": [{"type": "text", "text": "what?"},
                                      {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}}]},
         {"role": "user", "content": "what?", "images": [PNG]}),
        ({"role": "assistant", "tool_calls": [{"id": "1", "type": "function",
                                               "function": {"name": "f", "arguments": '{"a": 1}'}}]},
         {"role": "assistant", "content": "", "tool_calls": [{"id": "1",
                                                              "function": {"name": "f", "arguments": {"a": 1}}}]}),
        ({"role": "tool", "tool_call_id": "9", "name": "f", "content": "3"},
         {"role": "tool", "content": "3", "tool_call_id": "9", "tool_name": "f"}),
        ({"role": "assistant", "content": "4", "reasoning": "2+2"},
         {"role": "assistant", "content": "4", "thinking": "2+2"}),
    ],
    ids=str,
)
def test_messages(message: dict[str, Any], expected: dict[str, Any]) -> None:
    assert chat_request({"messages": [message]}, "m")["messages"] == [expected]


def test_a_tool_result_learns_its_function_from_the_call() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": ""}}
    messages = [*HI, {"role": "assistant", "tool_calls": [call]},
                {"role": "tool", "tool_call_id": "c1", "content": "rain"}]
    translated = chat_request({"messages": messages}, "m")["messages"]
    assert translated[1]["tool_calls"][0]["function"] == {"name": "weather", "arguments": {}}
    assert translated[2]["tool_name"] == "weather"


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"messages": []},
        {"messages": "hi"},
        {"messages": ["hi"]},
        {"messages": [{"content": "hi"}]},
        {"messages": [{"role": "user", "content": 7}]},
        {"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]},
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://x/y.png"}}]}]},
        {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
        {"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{"}}]}]},
        {"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "[]"}}]}]},
        {"messages": [{"role": "assistant", "tool_calls": ["f"]}]},
        {"messages": HI, "n": 2},
        {"messages": HI, "tools": TOOLS, "tool_choice": "required"},
        {"messages": HI, "tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "weather"}}},
        {"messages": HI, "response_format": {"type": "grammar"}},
        {"messages": HI, "response_format": {"type": "json_schema"}},
    ],
    ids=str,
)
def test_what_would_change_the_meaning_is_refused(body: dict[str, Any]) -> None:
    with pytest.raises(CallError) as caught:
        chat_request(body, "m")
    assert caught.value.code is Code.INVALID


def test_completions() -> None:
    assert generate_request({"prompt": ["a"], "max_tokens": 3, "suffix": "z"}, "m") == {
        "model": "m", "stream": False, "prompt": "a", "suffix": "z", "options": {"num_predict": 3},
    }
    for bad in ({"prompt": [1, 2]}, {"prompt": ["a", "b"]}, {"prompt": "a", "echo": True}, {"best_of": 2}):
        with pytest.raises(CallError):
            generate_request(bad, "m")


def test_embeddings() -> None:
    assert embed_request({"input": "a", "dimensions": 2, "user": "u"}, "m") == {
        "model": "m", "input": ["a"], "dimensions": 2,
    }
    for bad in ({}, {"input": []}, {"input": [1, 2]}, {"input": [[1], [2]]}):
        with pytest.raises(CallError):
            embed_request(bad, "m")
    answer = embed_answer({"embeddings": [[1.0, -2.0]], "prompt_eval_count": 3}, "m", "base64")
    assert answer["data"][0]["embedding"] == "AACAPwAAAMA="
    assert answer["usage"] == {"prompt_tokens": 3, "total_tokens": 3}
    with pytest.raises(ValueError):
        embed_answer({}, "m", "float")


def part(text: str = "", **more: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": text} | more.pop("message", {})
    return {"created_at": "2025-01-01T00:00:01.123456789Z", "message": message, "done": False} | more


LAST = {"done": True, "done_reason": "stop", "prompt_eval_count": 2, "eval_count": 3}
CALL = {"function": {"name": "f", "arguments": {"a": "é"}}}


def stream(parts: list[dict[str, Any]], *, usage: bool = False) -> list[dict[str, Any]]:
    writer = AnswerWriter("m", "id", chat=True, usage=usage)
    chunks = [chunk for part in parts for chunk in writer.chunks(part)]
    assert writer.done
    return chunks


def test_a_streamed_chat() -> None:
    chunks = stream([part("a"), part("b"), part("", **LAST)], usage=True)
    assert [chunk["choices"][0]["delta"] for chunk in chunks[:-1]] == [
        {"role": "assistant", "content": "a"}, {"content": "b"}, {},
    ]
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks[:-1]] == [None, None, "stop"]
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"] == {"prompt_tokens": 2, "completion_tokens": 3, "total_tokens": 5}
    assert {(chunk["id"], chunk["object"], chunk["created"], chunk["model"]) for chunk in chunks} == {
        ("chatcmpl-id", "chat.completion.chunk", 1735689601, "m")
    }


def test_streamed_tool_calls_are_numbered_and_finish_as_such() -> None:
    chunks = stream([part(message={"tool_calls": [CALL]}), part(message={"tool_calls": [CALL | {"id": "own"}]}),
                     part("", **LAST)])
    calls = [call for chunk in chunks for call in chunk["choices"][0]["delta"].get("tool_calls", [])]
    assert [(call["index"], call["id"]) for call in calls] == [(0, "call_id_0"), (1, "own")]
    assert calls[0]["function"] == {"name": "f", "arguments": '{"a": "é"}'}
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"


def test_thinking_is_kept_apart_from_the_answer() -> None:
    chunks = stream([part(message={"thinking": "hm"}), part("4"), part("", **LAST)])
    assert [chunk["choices"][0]["delta"] for chunk in chunks] == [
        {"role": "assistant", "reasoning": "hm"}, {"content": "4"}, {},
    ]


@pytest.mark.parametrize(
    ("reason", "finish"), [("stop", "stop"), ("length", "length"), ("load", "stop"), (None, "stop")]
)
def test_why_an_answer_ended(reason: str | None, finish: str) -> None:
    assert stream([part("", **LAST | {"done_reason": reason})])[-1]["choices"][0]["finish_reason"] == finish


def test_a_whole_chat() -> None:
    whole = AnswerWriter("m", "id", chat=True, usage=False).whole
    answer = whole(part("ab", **LAST))
    assert answer["object"] == "chat.completion"
    assert answer["choices"] == [
        {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "ab"}}
    ]
    assert answer["usage"]["total_tokens"] == 5
    message = whole(part(message={"tool_calls": [CALL]}, **LAST))["choices"][0]["message"]
    assert message["content"] is None
    assert "index" not in message["tool_calls"][0]
    assert whole(part("", **LAST))["choices"][0]["message"]["content"] == ""


def test_a_completion() -> None:
    writer = AnswerWriter("m", "id", chat=False, usage=False)
    chunks = writer.chunks({"response": "a", "done": False}) + writer.chunks({"response": "", **LAST})
    assert [(chunk["object"], chunk["choices"][0]["text"]) for chunk in chunks] == [
        ("text_completion", "a"), ("text_completion", ""),
    ]
    assert AnswerWriter("m", "id", chat=False, usage=False).whole({"response": "ab", **LAST})["choices"][0] == {
        "index": 0, "finish_reason": "stop", "text": "ab",
    }


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("2023-08-04T08:52:19.385406455-07:00", 1691164339), ("2025-01-01T00:00:00Z", 1735689600), ("soon", 0), (None, 0)],
)
def test_times(text: str | None, seconds: int) -> None:
    assert created({"created_at": text}) == seconds


WORDS = ["role", "content", "type", "text", "image_url", "url", "tool_calls", "function", "name", "arguments", "schema"]
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=4),
    max_leaves=12,
)
FIELDS = ["messages", "n", "tools", "tool_choice", "response_format", "options", "stop", "prompt", "best_of", "input"]


@given(st.dictionaries(st.sampled_from(FIELDS), anything, max_size=5))
def test_any_body_is_translated_or_refused_never_a_crash(body: dict[str, Any]) -> None:
    for translate in (chat_request, generate_request, embed_request):
        with suppress(CallError):
            translate(body, "m")
