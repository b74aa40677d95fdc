"""``owner``: the key leaves, encrypted, and comes back."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
from click.testing import CliRunner
from nacl.pwhash import argon2id

from atmosphere.cli import main
from atmosphere.cli.owner import VARIABLE
from atmosphere.identity import Keyring
from atmosphere.identity.owner_key import seal
from tests.cli.conftest import OTHER, Invoke

PASSPHRASE = "correct horse battery"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The least work that Argon2id accepts; how much it should be is the identity room's test."""
    cheap = partial(seal, operations=argon2id.OPSLIMIT_MIN, memory=argon2id.MEMLIMIT_MIN)
    monkeypatch.setattr("atmosphere.identity.home.seal", cheap)
    monkeypatch.setenv(VARIABLE, PASSPHRASE)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "owner.sealed"


def test_the_key_leaves_and_comes_back(home: Path, file: Path, cli: Invoke) -> None:
    cli("init")
    seed = (home / "owner.key").read_bytes()
    gone = cli("owner", "export", str(file), "--remove")
    assert gone.exit_code == 0, gone.output
    assert not Keyring(home).has_owner_key
    assert file.stat().st_mode & 0o777 == 0o600
    assert seed not in file.read_bytes()
    assert cli("status").exit_code == 0, "the mesh goes on without it"
    assert cli("owner", "import", str(file)).exit_code == 0
    assert (home / "owner.key").read_bytes() == seed


def test_without_remove_the_key_stays_and_it_says_so(home: Path, file: Path, cli: Invoke) -> None:
    cli("init")
    assert "--remove" in cli("owner", "export", str(file)).stdout
    assert Keyring(home).has_owner_key


def test_the_passphrase_is_asked_twice_unseen(
    home: Path, file: Path, cli: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(VARIABLE)
    cli("init")
    words = ["--home", str(home), "owner", "export", str(file)]
    asked = CliRunner().invoke(main, words, input=f"{PASSPHRASE}\nanother one\n{PASSPHRASE}\n{PASSPHRASE}\n")
    assert asked.exit_code == 0, asked.output
    assert "do not match" in asked.output
    assert PASSPHRASE not in asked.output
    monkeypatch.setenv(VARIABLE, PASSPHRASE)
    assert cli("owner", "import", str(file)).exit_code == 0


def test_without_a_terminal_the_variable_is_named(
    file: Path, cli: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(VARIABLE)
    cli("init")
    result = cli("owner", "export", str(file))
    assert result.exit_code == 1
    assert VARIABLE in result.stderr


def test_a_wrong_passphrase_changes_nothing(
    home: Path, file: Path, cli: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    cli("init")
    cli("owner", "export", str(file), "--remove")
    monkeypatch.setenv(VARIABLE, "another one")
    result = cli("owner", "import", str(file))
    assert result.exit_code == 1
    assert "passphrase" in result.stderr
    assert not Keyring(home).has_owner_key


def test_a_short_passphrase_is_refused_and_the_key_stays(
    home: Path, file: Path, cli: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    cli("init")
    monkeypatch.setenv(VARIABLE, "short")
    assert cli("owner", "export", str(file), "--remove").exit_code == 1
    assert Keyring(home).has_owner_key
    assert not file.exists()


def test_export_never_writes_over_a_file(home: Path, file: Path, cli: Invoke) -> None:
    cli("init")
    file.write_text("somebody's")
    result = cli("owner", "export", str(file), "--remove")
    assert result.exit_code == 1
    assert file.read_text() == "somebody's"
    assert Keyring(home).has_owner_key


def test_export_to_a_name_that_no_disk_takes(cli: Invoke) -> None:
    cli("init")
    result = cli("owner", "export", "x" * 300)
    assert result.exit_code == 1
    assert "too long" in result.stderr


def test_export_where_there_is_no_key_says_where_to_go(file: Path, cli: Invoke) -> None:
    cli("init")
    cli("owner", "export", str(file), "--remove")
    result = cli("owner", "export", str(file.with_suffix(".2")))
    assert result.exit_code == 1
    assert "owner import" in result.stderr


def test_another_meshs_key_is_refused(home: Path, file: Path, tmp_path: Path, cli: Invoke) -> None:
    cli("init")
    before = (home / "owner.key").read_bytes()
    other = str(tmp_path / "other")
    assert CliRunner().invoke(main, ["--home", other, "init"]).exit_code == 0
    assert CliRunner().invoke(main, ["--home", other, "owner", "export", str(file)]).exit_code == 0
    result = cli("owner", "import", str(file))
    assert result.exit_code == 1
    assert "another mesh" in result.stderr
    assert (home / "owner.key").read_bytes() == before


def test_a_key_on_an_empty_home_makes_a_node_of_its_mesh(home: Path, file: Path, tmp_path: Path, cli: Invoke) -> None:
    cli("init")
    cli("owner", "export", str(file))
    second = ["--home", str(tmp_path / "second")]
    assert CliRunner().invoke(main, [*second, "owner", "import", str(file)]).exit_code == 0
    assert CliRunner().invoke(main, [*second, "init"]).exit_code == 0
    ours, theirs = Keyring(home).load(), Keyring(tmp_path / "second").load()
    assert ours.mesh == theirs.mesh
    assert ours.peer_id != theirs.peer_id


@pytest.mark.parametrize("sealed", [(), ("--sealed",)])
def test_renew_gives_a_new_issuer_certificate(home: Path, file: Path, cli: Invoke, sealed: tuple[str, ...]) -> None:
    cli("init")
    before = Keyring(home).load().issuer_chain
    cli("owner", "export", str(file), "--remove")
    refused = cli("owner", "renew")
    assert refused.exit_code == 1
    assert "owner import" in refused.stderr
    assert cli("owner", "import", str(file), *sealed).exit_code == 0
    result = cli("owner", "renew")
    assert result.exit_code == 0, result.output
    after = Keyring(home).load()
    assert after.issuer_chain != before
    assert after.chain.startswith(after.issuer_chain), "the membership rests on it"


def test_the_owner_strikes_even_an_issuer_of_the_first_rank(home: Path, cli: Invoke) -> None:
    """What no node could do to another of its own level; the database is what the node starts from."""
    cli("init")
    me = str(Keyring(home).load().peer_id)
    assert cli("auth", "verify").exit_code == 0
    asked = CliRunner().invoke(main, ["--home", str(home), "owner", "revoke", me, "--issuer"], input="n\n")
    assert asked.exit_code == 1
    assert cli("auth", "verify").exit_code == 0
    result = cli("owner", "revoke", me, "--issuer", "--reason", "stolen", "--yes")
    assert result.exit_code == 0, result.output
    assert "FAILED  revocation" in cli("auth", "verify").stdout


def test_the_owner_needs_the_key_and_a_whole_peer_id(home: Path, file: Path, cli: Invoke) -> None:
    cli("init")
    assert cli("owner", "revoke", "laptop", "--yes").exit_code == 1
    cli("owner", "export", str(file), "--remove")
    result = cli("owner", "revoke", OTHER, "--yes")
    assert result.exit_code == 1
    assert "owner import" in result.stderr
    assert not (home / "node.db").exists()
