"""``issuer``: appoint through the running node; the list also from files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from atmosphere.env import SystemEnv
from atmosphere.identity import Keyring
from atmosphere.store import Store
from protocols.records.records_pb2 import Kind
from tests.cli.conftest import ME, OTHER, FakeNode, Invoke
from transports.peer_id import PeerId

ROUTE = "/v1/admin/issuers"
VIEW = {"peer_id": OTHER, "name": "server", "scopes": ["call:*", "invite"], "not_after": 1_900_000_000,
        "appointed_by": ME}


@pytest.mark.parametrize(("words", "scopes", "expires_s"), [
    ((), ["call:*", "serve", "invite"], 365 * 86400),
    (("--scopes", "call:llm/*,revoke", "--expires", "30d"), ["call:llm/*", "revoke"], 30 * 86400),
])
def test_add_appoints(
    node: FakeNode, running: Invoke, words: tuple[str, ...], scopes: list[str], expires_s: float
) -> None:
    node.answer("POST", ROUTE, {"appointed": OTHER})
    result = running("issuer", "add", "server", *words)
    assert result.exit_code == 0, result.output
    assert node.requests[-1] == ("POST", ROUTE, {"peer": OTHER, "scopes": scopes, "expires_s": expires_s})
    assert OTHER in result.stdout


def test_add_of_nobody_sends_nothing(node: FakeNode, running: Invoke) -> None:
    assert running("issuer", "add", "nobody").exit_code == 1
    assert all(method == "GET" for method, _, _ in node.requests)


def test_list(node: FakeNode, running: Invoke) -> None:
    node.answer("GET", ROUTE, {"issuers": [VIEW]})
    assert json.loads(running("issuer", "list", "--json").stdout) == {"issuers": [VIEW]}
    shown = running("issuer", "list").stdout
    for words in ("server", OTHER, "call:*, invite", ME[-8:]):
        assert words in shown
    node.answer("GET", ROUTE, {"issuers": []})
    assert "No issuer" in running("issuer", "list").stdout


def test_before_its_first_start_a_node_knows_itself(home: Path, cli: Invoke) -> None:
    cli("init")
    (listed,) = json.loads(cli("issuer", "list", "--json").stdout)["issuers"]
    assert (listed["peer_id"], listed["appointed_by"]) == (str(Keyring(home).load().peer_id), "owner")


def test_the_list_from_the_files_has_the_same_form(home: Path, cli: Invoke) -> None:
    cli("init")
    env, identity = SystemEnv(), Keyring(home).load()
    chain = identity.appoint_issuer(PeerId.parse(OTHER), ("call:*", "invite"), env.now(), env.token_bytes, 86400)
    store = Store(home / "node.db", env)
    store.write_now(lambda connection: connection.execute(
        "INSERT INTO trust VALUES (?, ?, ?, ?)", (Kind.KIND_ISSUER, b"digest", chain, env.now())))
    store.close()
    known = json.loads(cli("issuer", "list", "--json").stdout)["issuers"]
    listed = next(view for view in known if view["peer_id"] == OTHER)
    assert set(listed) == set(VIEW)
    assert listed["appointed_by"] == str(identity.peer_id)
    assert OTHER in cli("issuer", "list").stdout
