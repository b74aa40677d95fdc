"""``keys``: API keys in the files without a node, through the node with one."""

from __future__ import annotations

import json
from pathlib import Path

import httpx2
import pytest

from atmosphere.env import SystemEnv
from atmosphere.identity.api_keys import ApiKey, ApiKeys
from atmosphere.store import Store
from tests.cli.conftest import FakeNode, Invoke


def check(home: Path, text: str) -> ApiKey | None:
    """What a node started on *home* makes of the key *text*."""
    store = Store(home / "node.db", SystemEnv())
    try:
        return ApiKeys(store, SystemEnv()).check(text)
    finally:
        store.close()


def test_a_key_is_printed_once_works_and_ends(home: Path, cli: Invoke) -> None:
    cli("init")
    added = cli("keys", "add", "phone", "--scopes", "call:llm/*")
    assert added.exit_code == 0, added.output
    text = added.stdout.strip()
    assert len(added.stdout.splitlines()) == 1, "piped output is the key alone"
    key = check(home, text)
    assert key is not None
    assert (key.name, key.scopes) == ("phone", ("call:llm/*",))
    listed = cli("keys", "list")
    assert "phone" in listed.stdout
    assert text not in listed.stdout
    assert cli("keys", "revoke", key.id).exit_code == 0
    assert check(home, text) is None
    assert "revoked" in cli("keys", "list").stdout


def test_json_shapes(cli: Invoke) -> None:
    cli("init")
    added = json.loads(cli("keys", "add", "phone", "--json").stdout)
    assert set(added) == {"key", "id", "name", "scopes"}
    assert added["key"].startswith(f"atm_{added['id']}_")
    (listed,) = json.loads(cli("keys", "list", "--json").stdout)["keys"]
    assert {name: listed[name] for name in ("id", "name", "scopes", "revoked_at")} == {
        "id": added["id"], "name": "phone", "scopes": ["call:*"], "revoked_at": None}


def test_no_key_yet_says_how(home: Path, cli: Invoke) -> None:
    assert "keys add NAME" in cli("keys", "list").stdout
    assert not (home / "node.db").exists(), "a look makes no database"


@pytest.mark.parametrize("words", [("add", "phone", "--scopes", "serve"), ("add", " "), ("revoke", "nothing")])
def test_what_cannot_be_done_is_a_failure_that_says_why(cli: Invoke, words: tuple[str, ...]) -> None:
    cli("init")
    result = cli("keys", *words)
    assert result.exit_code == 1
    assert "Traceback" not in result.output
    assert len(result.stderr) > 30


def test_a_running_node_keeps_its_keys_itself(home: Path, node: FakeNode, running: Invoke) -> None:
    key = {"id": "abcdefgh", "name": "phone", "scopes": ["call:*"], "created_at": 1.8e9, "revoked_at": None}
    node.answer("POST", "/v1/admin/keys", {**key, "key": "atm_abcdefgh_secret"})
    node.answer("GET", "/v1/admin/keys", {"keys": [key]})
    node.routes["DELETE", "/v1/admin/keys"] = lambda _: httpx2.Response(
        404, json={"error": {"message": "no key 'x' is in force", "code": "key_not_found"}})
    assert running("keys", "add", "phone").stdout == "atm_abcdefgh_secret\n"
    assert node.requests == [("POST", "/v1/admin/keys", {"name": "phone", "scopes": ["call:*"]})]
    assert "in force" in running("keys", "list").stdout
    refused = running("keys", "revoke", "x")
    assert refused.exit_code == 1
    assert "no key 'x'" in refused.stderr
    assert node.requests[-1] == ("DELETE", "/v1/admin/keys", {"id": "x"})
    assert not (home / "node.db").exists()
