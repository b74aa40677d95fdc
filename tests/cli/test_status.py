"""``status``: the promised JSON, and one screen for people."""

from __future__ import annotations

import json

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
    assert set(data["me"]["membership"]) >= {"not_after", "scopes", "issuer"}
    assert data["nodes"] == []
    assert "not running" in cli("status").stdout
