"""``cost``, and ``ask --good``: what a node says of itself, and what people say of answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import FakeNode, Invoke
from tests.cli.test_work import CANDIDATE, DECISION, WENT, chunk, sse

COST: dict[str, Any] = {
    "cost_milli": 6120, "told_milli": 6000, "gpus": ["GeForce"],
    "factors": [
        {"name": "battery", "multiplier": 2.0, "why": "on battery, 64 %", "known": True},
        {"name": "metered", "multiplier": 1.0, "why": "only NetworkManager tells this", "known": False},
    ],
    "prices": [{"capability": "ab" * 32, "type": "llm/chat", "model": "gpt", "micros": 30_000}],
}
ID = "ab" * 16
SAID = {"request_id": ID, "feedback": "good", "counted": True, "peer_id": "p", "name": "server", "capability": "abab",
        "model": "tiny", "opinion": 0.25, "taught": True}


def test_cost_shows_factors_what_was_measured_and_what_is_not_known(node: FakeNode, running: Invoke) -> None:
    node.answer("GET", "/v1/admin/cost", COST)
    shown = running("cost").stdout
    for words in ("battery", "2.00", "on battery, 64 %", "cost 6.12; the mesh was told 6.00", "GPU: GeForce",
                  "gpt: 0.03 a call"):
        assert words in shown
    (unknown,) = [line for line in shown.splitlines() if "NetworkManager" in line]
    assert "?" in unknown
    assert json.loads(running("cost", "--json").stdout) == COST


def test_cost_needs_the_running_node(cli: Invoke) -> None:
    result = cli("cost")
    assert result.exit_code == 1
    assert "no node is running" in result.stderr


def test_the_last_answer_is_judged(home: Path, node: FakeNode, running: Invoke) -> None:
    home.mkdir()
    node.answer("POST", "/v1/chat/completions", sse(chunk("x")), headers={**WENT, "x-atmosphere-request-id": ID})
    node.answer("POST", "/v1/mesh/feedback", SAID)
    assert running("ask", "hello", "--prefer", "cheap").exit_code == 0
    assert node.requests[0][2]["atmosphere"] == {"prefer": "cheap"}
    result = running("ask", "--good")
    assert result.stdout == ("noted: tiny on server was good; opinion of it now +0.25\n"
                             "learnt: where requests like this one go\n")
    assert node.requests[-1] == ("POST", "/v1/mesh/feedback", {"request_id": ID, "good": True})
    running("ask", "--bad", "--request", "cdcdcdcd")
    assert node.requests[-1][2] == {"request_id": "cdcdcdcd", "good": False}
    running("ask", "--bad", "--instead", "ab" * 32)
    assert node.requests[-1][2] == {"request_id": ID, "good": False, "instead": "ab" * 32}
    node.answer("POST", "/v1/mesh/feedback", {**SAID, "counted": False, "opinion": None, "taught": False})
    assert running("ask", "--good").stdout == "tiny on server: good had been said before\n"


def test_there_must_be_an_answer_to_judge(running: Invoke) -> None:
    result = running("ask", "--good")
    assert result.exit_code == 1
    assert "nothing was asked yet" in result.stderr


@pytest.mark.parametrize("words", [("hello", "--good"), ("--bad", "--model", "x"), (), ("hello", "--request", "ab"),
                                   ("hello", "--instead", "ab"), ("--good", "--instead", "ab")])
def test_a_verdict_is_said_alone(running: Invoke, words: tuple[str, ...]) -> None:
    assert running("ask", *words).exit_code == 2


def test_route_lists_everything_when_asked(node: FakeNode, running: Invoke) -> None:
    refused = [{"peer_id": "p", "name": "phone", "capability": "cd" * 32, "type": "llm/chat", "model": "small",
                "filter": "modality"}]
    node.answer("POST", "/v1/mesh/route", {**DECISION, "candidates": [{**CANDIDATE, "factors": {}}], "more": 3,
                                           "refused": refused})
    shown = running("route", "write a poem", "--all").stdout
    assert node.requests[-1][2] == {"intent": "write a poem", "all": True}
    for words in ("modality", "phone", "small", "3 more could do it as well"):
        assert words in shown
