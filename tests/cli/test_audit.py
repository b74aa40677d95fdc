"""``audit``: what the node noted, from the running node or from its files."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import parse_qs

import pytest

from atmosphere.audit import AuditKind, note
from atmosphere.env import SystemEnv
from atmosphere.store import Store
from tests.cli.conftest import OTHER, FakeNode, Invoke

ENTRY = {"at": 1.8e9, "kind": "served", "peer": OTHER, "subject": "llm/chat/chat", "outcome": "ok", "detail": "12 ms"}


def test_the_files_are_read_without_a_node(home: Path, cli: Invoke) -> None:
    cli("init")
    cli("keys", "add", "phone")
    store, env = Store(home / "node.db", SystemEnv()), SystemEnv()
    store.write_now(lambda connection: note(connection, env.now() - 7200, AuditKind.REVOKED, OTHER, "learned"))
    store.close()

    def kinds(*words: str) -> list[str]:
        return [entry["kind"] for entry in json.loads(cli("audit", "--json", *words).stdout)["entries"]]

    assert sorted(kinds()) == ["key_added", "revoked"]
    assert kinds("--since", "1h") == ["key_added"]
    assert kinds("--kind", "revoked") == ["revoked"]
    assert kinds("--kind", "served") == []
    assert len(kinds("--limit", "1")) == 1
    assert "phone" in cli("audit").stdout


def test_a_running_node_is_asked_for_just_that(node: FakeNode, running: Invoke) -> None:
    node.answer("GET", "/v1/admin/audit", {"entries": [ENTRY]})
    before = SystemEnv().now() - 3600
    shown = running("audit", "--since", "1h", "--kind", "served", "--limit", "7")
    assert shown.exit_code == 0, shown.output
    for words in ("served", OTHER[-8:], "llm/chat/chat", "ok", "12 ms"):
        assert words in shown.stdout
    query = parse_qs(node.queries[-1])
    assert (query["kind"], query["limit"]) == (["served"], ["7"])
    assert float(query["since"][0]) == pytest.approx(before, abs=60)
    assert json.loads(running("audit", "--json").stdout) == {"entries": [ENTRY]}
    assert "kind" not in parse_qs(node.queries[-1])


def test_nothing_noted_is_said(home: Path, cli: Invoke) -> None:
    assert "Nothing was noted" in cli("audit").stdout
    assert not (home / "node.db").exists(), "a look makes no database"


def test_an_unknown_kind_is_a_usage_error_that_names_the_known(cli: Invoke) -> None:
    result = cli("audit", "--kind", "gossip")
    assert result.exit_code == 2
    assert "join_refused" in result.stderr
