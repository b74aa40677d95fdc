"""``invite``: kinds of invites, from files and through the node; codes that can be read back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from atmosphere.config import Config, save
from atmosphere.identity import invite_qr, parse_invite
from tests.cli.conftest import FakeNode, Invoke

ADDRESS = "/ip4/192.0.2.7/tcp/4001"


@pytest.fixture
def owner(home: Path, cli: Invoke) -> Invoke:
    cli("init", "--name", "laptop", "--mesh", "Home")
    save(home, Config(listen=(ADDRESS,), name="laptop"))
    return cli


def test_scopes_and_approval_are_in_it(owner: Invoke) -> None:
    result = owner("invite", "--scopes", "call:llm/*", "--approval", "--json")
    assert result.exit_code == 0, result.output
    invite = parse_invite(json.loads(result.stdout)["invite"])
    assert (invite.scopes, invite.approval, invite.offline, invite.uses) == (("call:llm/*",), True, False, 1)
    assert "join requests" in owner("invite", "--approval").stderr


def test_an_offline_invite_needs_no_node_and_says_whom_it_lets_in(owner: Invoke) -> None:
    result = owner("invite", "--offline", "--expires", "2h")
    assert result.exit_code == 0, result.output
    assert parse_invite(result.stdout).offline
    assert "every node that gets a copy" in result.stderr
    assert "not running" not in result.stderr


@pytest.mark.parametrize("words", [("--uses", "2"), ("--approval",)])
def test_an_offline_invite_can_neither_be_counted_nor_approved(owner: Invoke, words: tuple[str, ...]) -> None:
    assert owner("invite", "--offline", *words).exit_code == 2


def test_the_running_node_gets_what_was_asked_for(node: FakeNode, running: Invoke) -> None:
    node.answer("POST", "/v1/admin/invite", {"error": {"message": "no", "code": "cannot_invite"}}, status=409)
    assert running("invite", "--approval", "--scopes", "call:llm/*,serve").exit_code == 1
    assert running("invite", "--offline").exit_code == 1
    assert [body for _, _, body in node.requests] == [
        {"uses": 1, "expires_s": 3600.0, "approval": True, "scopes": ["call:llm/*", "serve"]},
        {"uses": 1, "expires_s": 3600.0, "offline": True}]


def test_the_png_is_that_invites_and_for_its_owner_only(tmp_path: Path, owner: Invoke) -> None:
    """That a camera can read it is the identity room's test."""
    file, expected = tmp_path / "invite.png", tmp_path / "expected.png"
    text = owner("invite", "--png", str(file)).stdout.strip()
    invite_qr.png(parse_invite(text), expected)
    assert file.read_bytes() == expected.read_bytes()
    assert file.stat().st_mode & 0o777 == 0o600


def test_a_file_that_cannot_be_written_is_a_failure(tmp_path: Path, owner: Invoke) -> None:
    result = owner("invite", "--png", str(tmp_path / "no" / "invite.png"))
    assert result.exit_code == 1
    assert "--png" in result.stderr
