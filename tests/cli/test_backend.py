"""``backend``: config.yaml without a node, the control socket with one."""

from __future__ import annotations

import json
from pathlib import Path

from atmosphere.cli.home import Home
from atmosphere.config import BackendConfig, load
from tests.cli.conftest import FakeNode, Invoke

URL = "http://127.0.0.1:8080/v1"


def test_a_backend_is_kept_listed_and_removed(home: Path, cli: Invoke) -> None:
    assert cli("backend", "add", URL + "/", "--kind", "ollama", "--key-env", "KEY").exit_code == 0
    assert load(home).backends == (BackendConfig(URL, "ollama", "KEY"),)
    assert json.loads(cli("backend", "list", "--json").stdout) == {
        "backends": [{"url": URL, "kind": "ollama", "configured": True, "up": None, "models": [],
                      "reason": "the node is not running"}]}
    assert URL in cli("backend", "list").stdout
    assert cli("backend", "remove", URL).exit_code == 0
    assert load(home).backends == ()


def test_the_same_backend_twice_is_refused(cli: Invoke) -> None:
    cli("backend", "add", URL)
    result = cli("backend", "add", URL)
    assert result.exit_code == 1
    assert f"backend remove {URL}" in result.stderr


def test_removing_what_is_not_there_is_a_failure(cli: Invoke) -> None:
    result = cli("backend", "remove", URL)
    assert result.exit_code == 1
    assert "not in config.yaml" in result.stderr


def test_a_running_node_is_told_and_the_file_keeps_it(home: Path, node: FakeNode, running: Invoke) -> None:
    node.answer("POST", "/v1/admin/backends", {"added": URL})
    node.answer("DELETE", "/v1/admin/backends", {"removed": URL})
    words = ("--key-env", "KEY", "--continuation", "--price", "0.03", "--label", "cloud")
    assert running("backend", "add", URL, *words).exit_code == 0
    assert load(home).backends == (BackendConfig(URL, "openai", "KEY", True, 30_000, ("cloud",)),)
    assert running("backend", "remove", URL).exit_code == 0
    assert load(home).backends == ()
    assert node.requests == [
        ("POST", "/v1/admin/backends", {"url": URL, "kind": "openai", "key_env": "KEY", "continuation": True,
                                        "price_micros": 30_000, "labels": ["cloud"]}),
        ("DELETE", "/v1/admin/backends", {"url": URL}),
    ]


def test_what_the_node_refuses_is_not_kept(home: Path, node: FakeNode, running: Invoke) -> None:
    node.answer("POST", "/v1/admin/backends", {"error": {"message": "no such kind", "code": "invalid"}}, status=400)
    result = running("backend", "add", URL)
    assert result.exit_code == 1
    assert "no such kind" in result.stderr
    assert load(home).backends == ()


def test_the_nodes_view_is_shown(node: FakeNode, running: Invoke) -> None:
    view = {"url": URL, "kind": "openai", "configured": False, "up": True, "models": ["tiny"], "reason": ""}
    node.answer("GET", "/v1/admin/backends", {"backends": [view]})
    (row,) = [line.split() for line in running("backend", "list").stdout.splitlines() if URL in line]
    assert row == [URL, "openai", "found", "up", "tiny"]
    assert json.loads(running("backend", "list", "--json").stdout) == {"backends": [view]}


def test_a_broken_config_names_the_file(home: Path, cli: Invoke) -> None:
    home.mkdir()
    (home / "config.yaml").write_text("bakends: []\n")
    result = cli("backend", "list")
    assert result.exit_code == 1
    assert "config.yaml" in result.stderr
    assert "bakends" in result.stderr


def test_a_home_in_use_is_refused_with_its_process(home: Path, cli: Invoke) -> None:
    """Somebody holds the home and does not answer: neither the node nor the files can be used."""
    with Home(home).locked():
        result = cli("backend", "add", URL)
    assert result.exit_code == 1
    assert "does not answer" in result.stderr
