"""The commands of trust on real nodes: what one machine's owner types, and what another machine then sees."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from atmosphere.identity import Keyring
from tests.cli.test_run import QUIET, run_once
from tests.processes import (
    COMMAND,
    READY_S,
    Node,
    NodeFailed,
    Nodes,
    command,
    environment,
    eventually,
    free_port,
    invite,
    nodes,
    wait_for_capability,
)

pytestmark = pytest.mark.e2e


@pytest.fixture
def group() -> Iterator[Nodes]:
    with nodes() as group:
        yield group


def ask(node: Node, *words: str) -> Any:
    return json.loads(node.command(*words, "--json"))


def address(node: Node) -> str:
    return str(ask(node, "status")["me"]["addresses"][0])


@contextmanager
def started_join(home: Path, text: str) -> Iterator[subprocess.Popen[str]]:
    """A running ``join``, killed if it is still there at the end. It minds Ctrl-C even where these tests do not."""
    joining = subprocess.Popen(
        [COMMAND, "--home", home, "join", text, "--name", "B"], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, env=environment(), preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        yield joining
    finally:
        joining.kill()
        joining.communicate()


def wait_for_request(node: Node) -> dict[str, Any]:
    waiting: list[dict[str, Any]] = eventually(
        "somebody waits to be let in", 15, lambda: ask(node, "join", "requests")["requests"] or None)
    assert len(waiting) == 1
    return waiting[0]


def test_approval_with_an_interruption(group: Nodes) -> None:
    """Ctrl-C while waiting loses nothing: the same command, as the same peer, gets the answer."""
    a = group.start("A", options=QUIET)
    text = ask(a, "invite", "--approval")["invite"]
    home = group.folder / "B"
    with started_join(home, text) as joining:
        request = wait_for_request(a)
        assert request["name"] == "B"
        assert "1 to be let in" in a.command("status")
        joining.send_signal(signal.SIGINT)
        _, said = joining.communicate(timeout=10)
    assert joining.returncode == 1
    assert "Ctrl-C is safe" in said
    assert request["peer_id"] in said, "so that the owner can compare"
    assert "Traceback" not in said
    assert not Keyring(home).has_mesh
    assert request["peer_id"] in a.command("join", "approve", "B")
    assert "Joined mesh A" in command(home, "join", text)
    b = group.run(home, options=QUIET)
    assert ask(b, "status")["me"]["peer_id"] == request["peer_id"]
    assert "Nobody waits" in a.command("join", "requests")


def test_a_refusal_reaches_the_one_who_waits(group: Nodes) -> None:
    a = group.start("A", options=QUIET)
    with started_join(group.folder / "B", ask(a, "invite", "--approval")["invite"]) as joining:
        a.command("join", "refuse", wait_for_request(a)["peer_id"])
        _, said = joining.communicate(timeout=20)
    assert joining.returncode == 1
    assert "A refuses" in said
    assert ask(a, "audit", "--kind", "approval")["entries"][0]["outcome"] == "refused"


def test_a_revoked_node_is_out_and_told_why(group: Nodes) -> None:
    a = group.start("A", options=QUIET)
    b = group.start("B", invite=invite(a), options=QUIET)
    mine, peer = (ask(node, "status")["me"]["peer_id"] for node in (a, b))
    wait_for_capability(a, "system/health", {"B"})
    with pytest.raises(NodeFailed, match="'revoke'"):
        b.command("revoke", mine, "--yes")
    assert peer in a.command("revoke", "B", "--reason", "lost", "--yes")
    with pytest.raises(NodeFailed):
        a.command("call", "system/health", "check", "--node", peer)
    eventually("B is told why", 15, lambda: "revoked" in b.log or None)
    noted = eventually("A has noted it", 5, lambda: {"join", "revoked", "expelled"} <= kinds_of(a) or None)
    assert noted
    chain = str(b.home / "membership.chain")
    verdict = subprocess.run([COMMAND, "--home", a.home, "auth", "verify", chain], capture_output=True, text=True,
                             check=False, env=environment())
    assert verdict.returncode == 1
    assert "FAILED  revocation" in verdict.stdout


def kinds_of(node: Node) -> set[str]:
    return {entry["kind"] for entry in ask(node, "audit")["entries"]}


def test_an_issuer_lets_others_in_while_the_inviter_is_off(group: Nodes) -> None:
    """B, once appointed, redeems an invite of A's for C, and makes its own for D."""
    a = group.start("A", options=QUIET)
    b = group.start("B", invite=invite(a), options=QUIET)
    with pytest.raises(NodeFailed, match="may not issue"):
        b.command("invite")
    wait_for_capability(a, "system/health", {"B"})
    assert "is an issuer now" in a.command("issuer", "add", "B", "--expires", "30d")
    eventually("B can invite", 10, lambda: can_invite(b))
    peer = ask(b, "status")["me"]["peer_id"]
    assert peer in [view["peer_id"] for view in ask(a, "issuer", "list")["issuers"]]
    text, way = invite(a), address(b)
    a.stop()
    command(group.folder / "C", "join", text, "--via", way)
    command(group.folder / "D", "join", invite(b))
    assert Keyring(group.folder / "C").load().mesh == Keyring(group.folder / "D").load().mesh
    assert peer in a.command("issuer", "list"), "the list from the files"


def can_invite(node: Node) -> str | None:
    try:
        return invite(node)
    except NodeFailed:
        return None


def test_the_owner_key_leaves_a_running_node_and_the_mesh_goes_on(
    group: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ATMOSPHERE_PASSPHRASE", "correct horse battery")
    a = group.start("A", options=QUIET)
    sealed = group.folder / "owner.sealed"
    a.command("owner", "export", str(sealed), "--remove")
    assert not (a.home / "owner.key").exists()
    command(group.folder / "B", "join", invite(a))
    assert Keyring(group.folder / "B").has_mesh


def test_the_owner_takes_the_mesh_back_from_a_stolen_first_node(
    group: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A had every right that an issuer can have. The copy of the owner key strikes it all the same, from B."""
    monkeypatch.setenv("ATMOSPHERE_PASSPHRASE", "correct horse battery")
    sealed = str(group.folder / "owner.sealed")
    a = group.start("A", options=QUIET)
    a.command("owner", "export", sealed, "--remove")
    home, stolen = group.folder / "B", ask(a, "status")["me"]["peer_id"]
    command(home, "join", invite(a), "--name", "B")
    with pytest.raises(NodeFailed, match="owner import"):
        command(home, "owner", "revoke", stolen, "--issuer", "--yes")
    command(home, "owner", "import", sealed)
    command(home, "owner", "renew")
    command(home, "owner", "revoke", stolen, "--issuer", "--yes")
    b = group.run(home, options=QUIET)
    assert not ask(b, "status")["me"]["membership"]["revoked"]
    eventually("B has refused A", 15, lambda: "this node refused" in b.log or None)
    late = invite(a)
    command(group.folder / "C", "join", invite(b), "--name", "C")
    c = group.run(group.folder / "C", options=QUIET)
    wait_for_capability(b, "system/health", {"C"})
    assert not ask(c, "status")["me"]["membership"]["revoked"]
    command(group.folder / "D", "join", late, "--name", "D")  # the thief's friend
    group.run(group.folder / "D", options=(*QUIET, "--bootstrap", address(b)))
    eventually("B has refused D", 15, lambda: b.log.count("this node refused") >= 2 or None)


def test_other_addresses_need_a_key_and_a_revoked_one_is_none(group: Nodes) -> None:
    home = group.folder / "A"
    command(home, "init", "--name", "A")
    listen = ("--listen", "/ip4/127.0.0.1/tcp/0")
    port = free_port()
    refused = run_once(home, *listen, "--http", f"0.0.0.0:{port}")
    assert refused.returncode == 1
    assert "keys add" in refused.stderr
    assert "Traceback" not in refused.stderr
    key = json.loads(command(home, "keys", "add", "phone", "--json"))
    with home.with_suffix(".log").open("wb") as log:
        process = subprocess.Popen(
            [COMMAND, "--home", home, "run", "--no-mdns", *QUIET, *listen, "--http", f"0.0.0.0:{port}"],
            stdout=log, stderr=log, env=environment())
    node = Node("A", home, f"127.0.0.1:{port}", process, 0.0)
    group.running.append(node)

    def models(key: str | None) -> int:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        return httpx2.get(f"http://127.0.0.1:{port}/v1/models", headers=headers, timeout=10).status_code

    assert eventually("the node answers", READY_S, lambda: models(None)) == 401
    assert models(key["key"]) == 200
    node.command("keys", "revoke", key["id"])
    assert models(key["key"]) == 401
    assert {"key_added", "key_revoked"} <= kinds_of(node)
