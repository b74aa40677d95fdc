"""Aliases on their way to a backend: the candidate's own model name, put in one place, and nothing else touched."""

from __future__ import annotations

import json

import pytest

from atmosphere.capabilities.card import Card
from atmosphere.routing.decision import Candidate
from atmosphere.routing.intent import Intent
from atmosphere.routing.models import args_for, resolve_alias, same_model
from protocols.call.errors import CallError, Code
from tests.mesh.people import OTHER

ALIASES = {"chat": ("qwen3-vllm", "qwen3-ollama"), "small": ("tiny",)}


def candidate(model: str) -> Candidate:
    return Candidate(OTHER, "there", bytes(32), Card("llm/chat", "", model=model), 1.0, {}, "lan", None)


def test_each_candidate_gets_its_own_models_name() -> None:
    intent = resolve_alias(Intent(tool="chat", model="chat"), ALIASES)
    sent = b'{"model": "chat", "messages": [], "x": [1.5, "\\u00e4", null]}'
    for model in ALIASES["chat"]:
        assert json.loads(args_for(candidate(model), intent, sent)) == {**json.loads(sent), "model": model}


@pytest.mark.parametrize("intent", [Intent(tool="chat", model="tiny"), Intent(tool="chat", model="auto"),
                                    Intent(tool="chat")])
def test_without_an_alias_not_a_byte_is_touched_or_read(intent: Intent) -> None:
    sent = b'{ "model": "tiny" , not even JSON'
    assert resolve_alias(intent, ALIASES) is intent
    assert args_for(candidate("tiny"), intent, sent) is sent


def test_arguments_that_name_the_right_model_already_stay_as_they_are() -> None:
    sent = b'{ "model": "tiny" }'
    assert args_for(candidate("tiny"), resolve_alias(Intent(tool="chat", model="small"), ALIASES), sent) is sent


@pytest.mark.parametrize("sent", [b"", b"[]", b"{", b'{"n": 1e999}'])
def test_arguments_that_cannot_be_rewritten_are_refused(sent: bytes) -> None:
    with pytest.raises(CallError) as caught:
        args_for(candidate("tiny"), resolve_alias(Intent(tool="chat", model="small"), ALIASES), sent)
    assert caught.value.code is Code.INVALID


def test_a_default_tag_may_be_left_out() -> None:
    assert same_model("llama3.2", "llama3.2:latest")
    assert same_model("llama3.2:latest", "llama3.2")
    assert not same_model("llama3.2", "llama3.2:1b")
    assert not same_model("", "")
