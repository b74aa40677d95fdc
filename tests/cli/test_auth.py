"""``auth``: what a membership rests on, from files alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from atmosphere.cli import main
from atmosphere.env import SystemEnv
from atmosphere.identity import Keyring, Target
from atmosphere.store import Store
from protocols.records.records_pb2 import Kind
from tests.cli.conftest import ME, Invoke


def strike(home: Path) -> None:
    """Put a revocation of this node by the owner into its database, as a node does that hears of it."""
    env, keyring = SystemEnv(), Keyring(home)
    record = keyring.revoke_as_owner(Target.PEER, keyring.load().peer_id.public_key, env.now())
    store = Store(home / "node.db", env)
    store.write_now(lambda connection: connection.execute(
        "INSERT INTO trust VALUES (?, ?, ?, ?)", (Kind.KIND_REVOCATION, b"digest", record, env.now())))
    store.close()


def test_show_tells_what_this_node_is(home: Path, cli: Invoke) -> None:
    cli("init", "--name", "laptop", "--mesh", "Home")
    identity = Keyring(home).load()
    data = json.loads(cli("auth", "show", "--json").stdout)
    assert data["mesh"] == {"id": identity.mesh_id, "name": "Home"}
    assert data["membership"]["serial"] == identity.membership.serial.hex()
    assert data["membership"]["issuers"] == [str(identity.peer_id)]
    assert data["issuer"]["scopes"] == ["*"]
    assert (data["owner_key"], data["revoked"]) == (True, False)
    shown = cli("auth", "show").stdout
    for words in ("Home", "laptop", str(identity.peer_id), identity.membership.serial.hex(), "the owner >"):
        assert words in shown
    assert "REVOKED" not in shown


def test_verify_says_everything_it_checked(cli: Invoke) -> None:
    cli("init")
    result = cli("auth", "verify")
    assert result.exit_code == 0, result.output
    for words in ("form", "link 1, signature", "link 2, within link 1", "time", "revocation", "bearer"):
        assert words in result.stdout
    assert result.stdout.splitlines()[-1] == "valid"
    data = json.loads(cli("auth", "verify", "--json").stdout)
    assert set(data) == {"valid", "at", "revocations", "checks"}
    assert data["valid"]
    assert {tuple(check) for check in data["checks"]} == {("what", "ok", "detail", "reason")}


def test_a_chain_in_a_file_or_on_standard_input(home: Path, cli: Invoke) -> None:
    cli("init")
    chain = home / "membership.chain"
    assert cli("auth", "verify", str(chain)).exit_code == 0
    piped = CliRunner().invoke(main, ["--home", str(home), "auth", "verify", "-"], input=chain.read_bytes())
    assert piped.exit_code == 0, piped.output
    assert "prove to have its key" in piped.output
    assert "bearer" not in piped.output


def test_a_flipped_bit_fails_with_its_reason_and_status_1(tmp_path: Path, home: Path, cli: Invoke) -> None:
    cli("init")
    chain = bytearray((home / "membership.chain").read_bytes())
    chain[-1] ^= 1
    (tmp_path / "chain").write_bytes(chain)
    result = cli("auth", "verify", str(tmp_path / "chain"), "--json")
    assert result.exit_code == 1
    data = json.loads(result.stdout)
    assert not data["valid"]
    assert data["checks"][-1]["reason"] == "forged"
    assert "FAILED" in cli("auth", "verify", str(tmp_path / "chain")).stdout


def test_another_mesh_is_named_where_there_is_no_home(tmp_path: Path, home: Path, cli: Invoke) -> None:
    cli("init")
    mesh = Keyring(home).load().mesh_id
    empty = ["--home", str(tmp_path / "empty"), "auth", "verify", str(home / "membership.chain")]
    assert CliRunner().invoke(main, [*empty, "--mesh", mesh]).exit_code == 0
    assert "no mesh" in CliRunner().invoke(main, empty).output
    assert "not a mesh id" in CliRunner().invoke(main, [*empty, "--mesh", "Home"]).output
    assert CliRunner().invoke(main, ["--home", str(tmp_path / "other"), "init"]).exit_code == 0
    foreign = CliRunner().invoke(main, ["--home", str(tmp_path / "other"), *empty[2:]])
    assert foreign.exit_code == 1
    assert "another mesh" in foreign.output


@pytest.mark.parametrize("words", [("auth", "show"), ("status",)])
def test_a_revocation_that_was_heard_of_counts(home: Path, cli: Invoke, words: tuple[str, ...]) -> None:
    cli("init")
    assert "REVOKED" not in cli(*words).stdout
    strike(home)
    verdict = cli("auth", "verify")
    assert verdict.exit_code == 1
    assert "FAILED  revocation" in verdict.stdout
    assert "REVOKED" in cli(*words).stdout


def test_a_file_that_cannot_be_read_is_named(cli: Invoke) -> None:
    result = cli("auth", "verify", "/proc/self/mem", "--mesh", ME)
    assert result.exit_code == 1
    assert "cannot be read" in result.stderr
