"""``ask``, ``route`` and ``call`` against a node's answers."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.cli.conftest import ME, OTHER, FakeNode, Invoke, node_json

WENT = {"x-atmosphere-node": OTHER, "x-atmosphere-capability": "abab llm/chat", "x-atmosphere-path": "lan",
        "x-atmosphere-route-ms": "0.4", "x-atmosphere-overhead-ms": "2.1"}


def sse(*events: object, end: str = "[DONE]") -> str:
    return "".join(f"data: {json.dumps(event)}\n\n" for event in events) + (f"data: {end}\n\n" if end else "")


def chunk(text: str) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {"content": text}}]}


def test_ask_streams_the_answer_and_says_where_it_went(node: FakeNode, running: Invoke) -> None:
    usage = {"choices": [], "usage": {"total_tokens": 3}}
    node.answer("POST", "/v1/chat/completions", sse(chunk("Hel"), chunk("lo."), usage), headers=WENT)
    result = running("ask", "say hello", "--type", "llm/chat", "--model", "tiny")
    assert result.exit_code == 0, result.output
    assert result.stdout == "Hello.\n"
    for words in ("server", OTHER[-8:], "lan", "llm/chat", "2.1 ms"):
        assert words in result.stderr
    assert node.requests[0] == ("POST", "/v1/chat/completions", {
        "model": "tiny", "messages": [{"role": "user", "content": "say hello"}], "stream": True,
        "atmosphere": {"constraints": {"type": "llm/chat"}}})


def test_ask_without_a_model_lets_the_router_choose(node: FakeNode, running: Invoke) -> None:
    node.answer("POST", "/v1/chat/completions", sse(chunk("x")), headers=WENT)
    running("ask", "hello")
    assert node.requests[0][2]["model"] == "auto"
    assert "atmosphere" not in node.requests[0][2]


@pytest.mark.parametrize(("body", "words"), [
    (sse(chunk("Hel"), {"error": {"message": "the node server went away", "code": "unavailable"}}), "went away"),
    (sse(chunk("Hel"), end=""), "without its end mark"),
])
def test_a_broken_answer_is_a_failure(node: FakeNode, running: Invoke, body: str, words: str) -> None:
    node.answer("POST", "/v1/chat/completions", body, headers=WENT)
    result = running("ask", "hello")
    assert result.exit_code == 1
    assert words in result.stderr


def test_ask_repeats_the_nodes_reason(node: FakeNode, running: Invoke) -> None:
    error = {"error": {"message": "no node has the model 'huge'", "type": "not_found_error", "code": "model_not_found"}}
    node.answer("POST", "/v1/chat/completions", error, status=404)
    result = running("ask", "hello", "--model", "huge")
    assert result.exit_code == 1
    assert result.stderr == "Error: no node has the model 'huge'\n"


CANDIDATE = {"peer_id": OTHER, "name": "server", "capability": "ab" * 32, "type": "llm/chat", "score": 0.8}
DECISION: dict[str, Any] = {
    "chosen": CANDIDATE,
    "candidates": [{**CANDIDATE, "factors": {"semantic": 0.9, "load": 0.75}}],
    "filtered": {"type": 3, "modality": 0},
    "ms": 0.31,
}


def test_route_shows_factors_and_filters(node: FakeNode, running: Invoke) -> None:
    node.answer("POST", "/v1/mesh/route", DECISION)
    result = running("route", "write a poem")
    assert result.exit_code == 0, result.output
    for words in ("0.800", "server", "semantic 0.9", "filtered by type: 3", "0.31 ms"):
        assert words in result.stdout
    assert "modality" not in result.stdout


def test_route_json_is_the_nodes_decision(node: FakeNode, running: Invoke) -> None:
    node.answer("POST", "/v1/mesh/route", DECISION)
    assert json.loads(running("route", "write a poem", "--json").stdout) == DECISION


def test_route_to_nobody_is_a_failure(node: FakeNode, running: Invoke) -> None:
    node.answer("POST", "/v1/mesh/route", {"chosen": None, "candidates": [], "filtered": {"type": 9}, "ms": 0.1})
    result = running("route", "fly")
    assert result.exit_code == 1
    assert "no node of the mesh" in result.stderr


def test_call_by_type_on_a_named_node(node: FakeNode, running: Invoke) -> None:
    node.answer("POST", "/v1/tools/call", {"result": {"ok": True}}, headers=WENT)
    result = running("call", "system/health", "check", "--node", "server", "--args", '{"deep": true}')
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == {"result": {"ok": True}}
    assert node.requests[-1][2] == {"type": "system/health", "tool": "check", "args": {"deep": True},
                                    "atmosphere": {"constraints": {"node": OTHER}}}


def test_call_by_card(node: FakeNode, running: Invoke) -> None:
    node.answer("POST", "/v1/tools/call", {"result": {}}, headers=WENT)
    running("call", "ab" * 32, "chat")
    assert node.requests[-1][2] == {"capability": "ab" * 32, "tool": "chat", "args": {}}


@pytest.mark.parametrize(("wanted", "words"), [("nobody", "no node is called"), ("twin", "several nodes are called")])
def test_call_on_a_node_that_cannot_be_told(node: FakeNode, running: Invoke, wanted: str, words: str) -> None:
    nodes = [node_json("twin", ME), node_json("twin", OTHER)]
    node.answer("GET", "/v1/admin/status", {"nodes": nodes})
    result = running("call", "system/health", "check", "--node", wanted)
    assert result.exit_code == 1
    assert words in result.stderr


@pytest.mark.parametrize("words", [("ask", "x"), ("route", "x"), ("call", "system/health", "check")])
def test_without_a_node_the_error_names_run(cli: Invoke, words: tuple[str, ...]) -> None:
    result = cli(*words)
    assert result.exit_code == 1
    assert "atmosphere-p2p run" in result.stderr
