"""``init``, ``invite``, ``join``, ``leave`` on files and against a (fake) running node."""

from __future__ import annotations

import json
from pathlib import Path

import httpx2
import pytest
from click.testing import CliRunner

from atmosphere.cli import main
from atmosphere.config import Config, load, save
from atmosphere.env import SystemEnv
from atmosphere.identity import Keyring, parse_invite
from atmosphere.store import Store
from protocols.records.records_pb2 import Kind
from tests.cli.conftest import FakeNode, Invoke

ADDRESS = "/ip4/192.0.2.7/tcp/4001"


def other_mesh(folder: Path, *, offline: bool = False, lifetime: float = 3600) -> str:
    """An invite into a mesh of somebody else."""
    env = SystemEnv()
    identity = Keyring(folder).init("inviter", "Elsewhere", env.now(), env.token_bytes)
    create = identity.create_offline_invite if offline else identity.create_invite
    return create([ADDRESS], env.now(), env.token_bytes, lifetime=lifetime).text


def test_init_makes_a_mesh_and_keeps_the_name(home: Path, cli: Invoke) -> None:
    result = cli("init", "--name", "laptop", "--mesh", "Home")
    assert result.exit_code == 0, result.output
    identity = Keyring(home).load()
    assert (identity.name, identity.mesh_name, load(home).name) == ("laptop", "Home", "laptop")
    assert identity.mesh_id in result.output
    assert (home / "owner.key").stat().st_mode & 0o777 == 0o600


def test_init_refuses_to_overwrite(home: Path, cli: Invoke) -> None:
    cli("init")
    before = (home / "mesh.json").read_bytes()
    result = cli("init")
    assert result.exit_code == 1
    assert "atmosphere-p2p leave" in result.stderr
    assert (home / "mesh.json").read_bytes() == before


@pytest.mark.parametrize("name", ["", "two\nlines", "x" * 65, "é" * 33])
def test_names_that_cannot_travel_are_refused(cli: Invoke, name: str) -> None:
    assert cli("init", "--name", name).exit_code == 2


def test_a_long_node_name_is_cut_for_the_mesh(home: Path, cli: Invoke) -> None:
    assert cli("init", "--name", "é" * 32).exit_code == 0
    assert Keyring(home).load().mesh_name == "é" * 16


def test_an_invite_needs_an_address(cli: Invoke) -> None:
    cli("init")
    result = cli("invite")
    assert result.exit_code == 1
    assert "atmosphere-p2p run" in result.stderr


def test_an_invite_from_the_files(home: Path, cli: Invoke) -> None:
    cli("init", "--mesh", "Home")
    save(home, Config(listen=(ADDRESS,)))
    result = cli("invite", "--uses", "3", "--expires", "30m", "--json")
    assert result.exit_code == 0, result.output
    made = json.loads(result.stdout)
    assert set(made) == {"invite", "expires_at", "uses"}
    invite = parse_invite(made["invite"])
    assert (invite.mesh_name, invite.uses, invite.expires) == ("Home", 3, made["expires_at"])
    assert invite.addresses == (f"{ADDRESS}/p2p/{Keyring(home).load().peer_id}",)
    text = cli("invite")
    assert text.stdout.startswith("ATM1")
    assert len(text.stdout.splitlines()) == 1, "piped output is the invite alone"
    assert "not running" in text.stderr


def test_a_running_node_makes_the_invite(tmp_path: Path, node: FakeNode, running: Invoke) -> None:
    made = {"invite": other_mesh(tmp_path / "other"), "expires_at": 1_900_000_000.0, "uses": 2}
    node.answer("POST", "/v1/admin/invite", made)
    svg = tmp_path / "invite.svg"
    result = running("invite", "--uses", "2", "--expires", "2h", "--json", "--svg", str(svg))
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == made
    assert node.requests == [("POST", "/v1/admin/invite", {"uses": 2, "expires_s": 7200.0})]
    assert svg.read_text().count("<svg") == 1


def test_join_by_an_offline_invite_asks_nobody(tmp_path: Path, home: Path, cli: Invoke) -> None:
    text = other_mesh(tmp_path / "other", offline=True)
    result = cli("join", text, "--name", "phone")
    assert result.exit_code == 0, result.output
    identity = Keyring(home).load()
    assert (identity.mesh_name, identity.name) == ("Elsewhere", "phone")
    assert load(home).bootstrap == parse_invite(text).addresses
    assert "atmosphere-p2p run" in result.output


def test_join_from_a_file(tmp_path: Path, home: Path, cli: Invoke) -> None:
    file = tmp_path / "invite.txt"
    file.write_text(other_mesh(tmp_path / "other", offline=True) + "\n")
    assert cli("join", f"@{file}").exit_code == 0
    assert Keyring(home).has_mesh


def test_join_on_a_home_with_a_mesh_names_leave(tmp_path: Path, cli: Invoke) -> None:
    cli("init")
    result = cli("join", other_mesh(tmp_path / "other", offline=True))
    assert result.exit_code == 1
    assert "atmosphere-p2p leave" in result.stderr


@pytest.mark.parametrize(("text", "words"), [("hello", "ATM1"), ("ATM1AAAA", "invite"), ("@/no/such/file", "/no/such")])
def test_what_is_no_invite_is_refused(home: Path, cli: Invoke, text: str, words: str) -> None:
    result = cli("join", text)
    assert result.exit_code == 1
    assert words in result.stderr
    assert not Keyring(home).has_mesh


def test_leave_asks_and_forgets(home: Path, cli: Invoke) -> None:
    cli("init")
    save(home, Config(bootstrap=(ADDRESS,), name="laptop"))
    asked = CliRunner().invoke(main, ["--home", str(home), "leave"], input="n\n")
    assert asked.exit_code == 1
    assert "owner.key" in asked.output
    assert Keyring(home).has_mesh
    assert cli("leave", "--yes").exit_code == 0
    assert not Keyring(home).has_mesh
    assert not (home / "node.key").exists()
    assert load(home) == Config(name="laptop")


def test_what_was_heard_in_one_mesh_does_not_follow_into_the_next(
    home: Path, tmp_path: Path, cli: Invoke
) -> None:
    cli("init")
    env, identity = SystemEnv(), Keyring(home).load()
    chain = identity.appoint_issuer(identity.peer_id, ("call",), env.now(), env.token_bytes, 60)
    store = Store(home / "node.db", env)
    store.write_now(lambda connection: connection.execute(
        "INSERT INTO trust VALUES (?, ?, ?, ?)", (Kind.KIND_ISSUER, b"digest", chain, env.now())))
    store.close()
    assert cli("leave", "--yes").exit_code == 0
    assert cli("join", other_mesh(tmp_path / "other", offline=True)).exit_code == 0
    assert json.loads(cli("issuer", "list", "--json").stdout) == {"issuers": []}


def test_leave_goes_through_the_running_node(home: Path, cli: Invoke, node: FakeNode, running: Invoke) -> None:
    cli("init")
    node.answer("POST", "/v1/admin/leave", {"left": True})
    result = running("leave", "--yes")
    assert result.exit_code == 0, result.output
    assert node.requests == [("POST", "/v1/admin/leave", {})]
    assert not Keyring(home).has_mesh


def test_leave_keeps_the_keys_if_the_node_refuses(home: Path, cli: Invoke, node: FakeNode, running: Invoke) -> None:
    cli("init")
    node.routes["POST", "/v1/admin/leave"] = lambda _: httpx2.Response(500, json={"error": {"message": "disk full"}})
    result = running("leave", "--yes")
    assert result.exit_code == 1
    assert "disk full" in result.stderr
    assert Keyring(home).has_mesh
