"""``status``: the promised JSON, and one screen for people."""

from __future__ import annotations

import json

import pytest

from tests.cli.conftest import ME, OTHER, STATUS, FakeNode, Invoke


def test_json_is_what_the_node_says(running: Invoke) -> None:
    assert json.loads(running("status", "--json").stdout) == STATUS


def test_the_screen_shows_every_node_with_its_facts(running: Invoke) -> None:
    result = running("status")
    assert result.exit_code == 0, result.output
    for words in ("Home", ME, "/ip4/127.0.0.1/tcp/4001", "server", OTHER[-8:], "1.5 ms", "25%", "tiny", "lan"):
        assert words in result.stdout
    assert "No other node" not in result.stdout


def test_a_lonely_node_is_told_how_to_invite(node: FakeNode, running: Invoke) -> None:
    node.answer("GET", "/v1/admin/status", {**STATUS, "nodes": STATUS["nodes"][:1]})
    assert "atmosphere-p2p invite" in running("status").stdout


def test_without_a_mesh_it_says_how_to_begin(cli: Invoke) -> None:
    result = cli("status")
    assert result.exit_code == 1
    for words in ("atmosphere-p2p run", "atmosphere-p2p join"):
        assert words in result.stderr


def test_without_a_node_it_shows_the_files(cli: Invoke) -> None:
    assert cli("init", "--name", "laptop").exit_code == 0
    data = json.loads(cli("status", "--json").stdout)
    assert set(data) == {"mesh", "me", "nodes"}
    assert set(data["mesh"]) == {"id", "name"}
    assert set(data["me"]) == {"peer_id", "name", "addresses", "membership"}
    assert data["me"]["name"] == "laptop"
    assert set(data["me"]["membership"]) == set(STATUS["me"]["membership"])
    assert data["nodes"] == []
    assert "not running" in cli("status").stdout


def membership(**values: object) -> dict[str, object]:
    me = STATUS["me"]
    return {**STATUS, "me": {**me, "membership": {**me["membership"], **values}}}


@pytest.mark.parametrize(("values", "words"), [
    ({"renewal": "failing: no issuer is within reach", "expires_in_s": 3.2 * 86400}, ("no issuer", "3 days left")),
    ({"renewal": "due", "expires_in_s": 7200}, ("due", "2 hours left")),
    ({"revoked": True}, ("REVOKED", "leave")),
    ({"renewal": "failing: nobody", "expires_in_s": -5}, ("EXPIRED", "nobody", "no time left")),
])
def test_a_membership_in_trouble_is_told(
    node: FakeNode, running: Invoke, values: dict[str, object], words: tuple[str, ...]
) -> None:
    node.answer("GET", "/v1/admin/status", membership(**values))
    shown = running("status").stdout
    assert all(word in shown for word in words), shown


def test_a_membership_in_order_is_one_line(running: Invoke) -> None:
    shown = running("status").stdout
    for word in ("Renewal", "REVOKED", "EXPIRED", "Waiting"):
        assert word not in shown


def test_those_who_wait_to_be_let_in_are_counted(node: FakeNode, running: Invoke) -> None:
    node.answer("GET", "/v1/admin/join-requests", {"requests": [{}, {}]})
    assert "2 to be let in: `atmosphere-p2p join requests`" in running("status").stdout
