"""``join``: an invite, or a word of those who decide; parsing and the requests."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from atmosphere.cli import main
from atmosphere.config import load
from atmosphere.identity import Keyring
from tests.cli.conftest import ME, OTHER, FakeNode, Invoke
from tests.cli.test_membership import other_mesh

ROUTE = "/v1/admin/join-requests"
REQUEST = {"peer_id": OTHER, "name": "phone", "asked_at": 1.8e9, "invite": "cd" * 32, "state": "pending"}


@pytest.mark.parametrize("words", [("{}", "--name", "phone"), ("--name", "phone", "{}"), ("--name=phone", "{}")])
def test_options_of_an_invite_may_stand_anywhere(
    tmp_path: Path, home: Path, cli: Invoke, words: tuple[str, ...]
) -> None:
    text = other_mesh(tmp_path / "other", offline=True)
    result = cli("join", *(word.format(text) for word in words))
    assert result.exit_code == 0, result.output
    assert Keyring(home).load().name == "phone"


def test_help_names_both_sides() -> None:
    text = CliRunner().invoke(main, ["join", "--help"]).output
    for words in ("Usage: main join [OPTIONS] INVITE|@FILE", "--name", "--via", "requests", "approve", "refuse"):
        assert words in text
    by_invite = CliRunner().invoke(main, ["join", "ATM1A", "--nonsense"])
    assert by_invite.output.startswith("Usage: main join INVITE|@FILE [OPTIONS]\n")
    assert CliRunner().invoke(main, ["join", "approve", "--help"]).output.startswith("Usage: main join approve")


@pytest.mark.parametrize("words", [(), ("--nonsense",), ("ATM1A", "extra"), ("requests", "extra"), ("approve",),
                                   ("ATM1A", "--via", "/ip4/127.0.0.1/tcp/1")])
def test_wrong_words_are_usage_errors(home: Path, cli: Invoke, words: tuple[str, ...]) -> None:
    result = cli("join", *words)
    assert result.exit_code == 2, result.output
    assert "Usage: main join" in result.output
    assert not Keyring(home).has_mesh


def test_other_issuers_are_kept_as_ways_into_the_mesh(tmp_path: Path, home: Path, cli: Invoke) -> None:
    via = f"/ip4/192.0.2.8/tcp/4001/p2p/{OTHER}"
    assert cli("join", other_mesh(tmp_path / "other", offline=True), "--via", via).exit_code == 0
    assert load(home).bootstrap[-1] == via


def test_requests_are_listed(node: FakeNode, running: Invoke) -> None:
    assert "Nobody waits" in running("join", "requests").stdout
    node.answer("GET", ROUTE, {"requests": [REQUEST]})
    shown = running("join", "requests").stdout
    for words in ("phone", OTHER, "cdcdcdcdcdcd"):
        assert words in shown
    assert json.loads(running("join", "requests", "--json").stdout) == {"requests": [REQUEST]}


@pytest.mark.parametrize(("word", "approve"), [("approve", True), ("refuse", False)])
@pytest.mark.parametrize("who", ["phone", OTHER, OTHER[-8:]])
def test_the_owners_word_is_sent(node: FakeNode, running: Invoke, word: str, approve: bool, who: str) -> None:
    node.answer("GET", ROUTE, {"requests": [REQUEST, {**REQUEST, "invite": "ef" * 32}, {**REQUEST, "peer_id": ME,
                                                                                       "name": "tablet"}]})
    node.answer("POST", ROUTE, {"peer": OTHER, "approved": approve})
    result = running("join", word, who)
    assert result.exit_code == 0, result.output
    assert node.requests[-1] == ("POST", ROUTE, {"peer": OTHER, "approve": approve})


def test_two_that_call_themselves_the_same_are_told_apart(node: FakeNode, running: Invoke) -> None:
    node.answer("GET", ROUTE, {"requests": [REQUEST, {**REQUEST, "peer_id": ME}]})
    result = running("join", "approve", "phone")
    assert result.exit_code == 1
    assert "whole peer id" in result.stderr
    assert all(method == "GET" for method, _, _ in node.requests)


def test_requests_need_a_running_node(cli: Invoke) -> None:
    cli("init")
    result = cli("join", "requests")
    assert result.exit_code == 1
    assert "atmosphere-p2p run" in result.stderr
