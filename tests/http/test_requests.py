"""Bodies and intents: pure functions, no server."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atmosphere.http import intents
from atmosphere.http.errors import HttpError
from atmosphere.http.requests import NO_EXTENSION, Extension, dump_body, parse_body, take_extension
from atmosphere.http.work import chat_job
from atmosphere.routing.intent import Constraints
from tests.http.fake_node import PEER

TEXT_PART = {"type": "text", "text": "what is"}
IMAGE_PART = {"type": "image_url", "image_url": {"url": "data:,"}}
AUDIO_PART = {"type": "input_audio", "input_audio": {"data": "", "format": "wav"}}


def said(content: Any, role: str = "user") -> dict[str, Any]:
    return {"role": role, "content": content}


@pytest.mark.parametrize(("messages", "meant"), [
    ([said("be brief", "system"), said("one"), said("fine", "assistant"), said("two")], "two"),
    ([said("one"), said("fine", "assistant")], "one"),
    ([said([TEXT_PART, IMAGE_PART, {"type": "text", "text": "this?"}])], "what is\nthis?"),
    ([said("one"), {"role": "tool", "tool_call_id": "1", "content": "42"}], "one"),
    ([said("be brief", "system")], ""),
    ([said("x" * 20_000)], "x" * intents.MAX_TEXT),
])
def test_the_intent_is_the_last_user_message(messages: list[Any], meant: str) -> None:
    assert intents.chat({"messages": messages}, NO_EXTENSION).text == meant


@pytest.mark.parametrize(("content", "inputs"), [
    ("x", {"text"}), ([TEXT_PART], {"text"}), ([IMAGE_PART], {"text", "image"}),
    ([TEXT_PART, AUDIO_PART, IMAGE_PART], {"text", "image", "audio"}), ([{"type": "new kind"}], {"text"}),
])
def test_modalities_of_all_messages_count(content: Any, inputs: set[str]) -> None:
    """A picture anywhere in the conversation needs a model that can see."""
    messages = [said(content), said("and now?")]
    assert intents.chat({"messages": messages}, NO_EXTENSION).inputs == inputs


@pytest.mark.parametrize(("more", "features"), [
    ({}, set()), ({"tools": []}, set()), ({"tools": [{}]}, {"tools"}), ({"functions": [{}]}, {"tools"}),
    ({"response_format": {"type": "text"}}, set()),
    ({"response_format": {"type": "json_schema", "json_schema": {}}, "tools": [{}]}, {"tools", "json_schema"}),
    ({"response_format": {"type": "json_object"}}, {"json_object"}),
])
def test_features(more: dict[str, Any], features: set[str]) -> None:
    assert intents.chat({"messages": [said("x")], **more}, NO_EXTENSION).features == features


@pytest.mark.parametrize(("model", "named"), [(None, False), ("", False), ("auto", False), ("tiny", True)])
def test_model(model: str | None, named: bool) -> None:
    """Absent, empty and auto mean: choose; a name is a demand."""
    intent = intents.chat({"messages": [said("x")], "model": model}, NO_EXTENSION)
    assert intent.names_model is named


def test_extension() -> None:
    """All of it is understood, and nothing of it stays in the body."""
    fields = {"type": "llm/*", "node": str(PEER), "card": "0123456789AB", "labels": ["gpu", "site:home"],
              "local_only": True, "max_latency_ms": 12.5, "space": "s:3", "min_context_tokens": 8000}
    body = {"model": "tiny", "atmosphere": {"constraints": fields, "deadline_ms": 2500, "explain": True}}
    wanted = Constraints("llm/*", PEER, "0123456789ab", frozenset({"gpu", "site:home"}), True, 12.5, "s:3", 8000)
    assert take_extension(body) == Extension(wanted, 2.5, True)
    assert body == {"model": "tiny"}


@pytest.mark.parametrize(("value", "named"), [
    (5, "atmosphere"), ([], "atmosphere"), ({"constraint": {}}, "atmosphere.constraint"),
    ({"constraints": []}, "atmosphere.constraints"), ({"constraints": {"labels": "gpu"}}, "labels"),
    ({"constraints": {"labels": [1]}}, "labels"), ({"constraints": {"local_only": "yes"}}, "local_only"),
    ({"constraints": {"max_latency_ms": 0}}, "max_latency_ms"),
    ({"constraints": {"max_latency_ms": True}}, "max_latency_ms"),
    ({"constraints": {"min_context_tokens": -1}}, "min_context_tokens"),
    ({"constraints": {"min_context_tokens": 1.5}}, "min_context_tokens"),
    ({"constraints": {"card": "0123"}}, "card"), ({"constraints": {"card": "x" * 20}}, "card"),
    ({"constraints": {"node": "12D3KooW"}}, "node"), ({"deadline_ms": "5"}, "deadline_ms"),
    ({"deadline_ms": 1e12}, "deadline_ms"), ({"explain": 1}, "explain"),
])
def test_extension_refused(value: Any, named: str) -> None:
    """A wish that is not understood is never ignored: the field is named."""
    with pytest.raises(HttpError) as caught:
        take_extension({"atmosphere": value})
    assert caught.value.status == 400
    assert named in caught.value.message
    assert named in (caught.value.param or "")


JSON_VALUES = st.recursive(st.none() | st.booleans() | st.integers(-2**70, 2**70) | st.floats(allow_nan=False,
                           allow_infinity=False) | st.text(), lambda inner: st.lists(inner, max_size=4)
                           | st.dictionaries(st.text(), inner, max_size=4), max_leaves=12)


@given(st.dictionaries(st.text(), JSON_VALUES, max_size=5))
def test_rewriting_loses_nothing(body: dict[str, Any]) -> None:
    """What has to be written again means the same afterwards, for any JSON."""
    assert parse_body(dump_body(body)) == body


@given(st.binary(max_size=60) | st.text(alphabet='{}[]",:0123456789.eE+-ntfalsru \\', max_size=40).map(str.encode))
def test_any_bytes_are_an_object_or_refused(data: bytes) -> None:
    """No body makes anything but a refusal."""
    outcome: object
    try:
        outcome = parse_body(data)
    except HttpError as error:
        outcome = error.status
    assert outcome == 400 or isinstance(outcome, dict)


@pytest.mark.parametrize(("sent", "same"), [
    (b'{"messages":[{"role":"user","content":"x"}]}', True),
    (b'{"model":"auto" , "messages":[{"role":"user","content":"\\u0061tmosphere"}],"big":1e400}', True),
    (b'{"model": "small","messages":[{"role":"user","content":"x"}]}', True),
    (b'{"\\u0061tmosphere":{},"messages":[{"role":"user","content":"x"}]}', False),
])
def test_bytes_are_kept_unless_they_must_change(sent: bytes, same: bool) -> None:
    args = chat_job(sent).args
    assert (args == sent) is same
    assert "atmosphere" not in json.loads(args)
    assert json.loads(args).get("model") in (None, "auto", "small"), "an alias is the dispatcher's to resolve"


def test_number_out_of_range_is_refused_when_rewritten() -> None:
    with pytest.raises(HttpError, match="range"):
        chat_job(b'{"atmosphere":{},"n":1e400,"messages":[{"role":"user","content":"x"}]}')


def test_parsing_is_pure() -> None:
    """Bodies and intents need neither Trio nor libp2p nor a web framework."""
    code = ("import sys, atmosphere.http.intents, atmosphere.http.requests, atmosphere.http.errors; "
            "print(sorted({'trio', 'libp2p', 'quart', 'hypercorn'} & set(sys.modules)))")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
