"""SPEC "Trust": with the owner's machine off for good, an appointed issuer renews memberships and lets others in."""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path

import pytest

from atmosphere.config import load, save
from tests.processes import Node, command, eventually, invite, nodes

pytestmark = pytest.mark.e2e

LIFETIME_S = 60
"""Of memberships in this mesh; renewed at three quarters of it."""
QUIET = ("--no-probe",)


def membership(node: Node) -> dict[str, object]:
    return dict(json.loads(node.command("status", "--json"))["me"]["membership"])


def short_lived(home: Path) -> None:
    """What this node issues ends soon."""
    save(home, dataclasses.replace(load(home), membership_s=float(LIFETIME_S)))


def online(node: Node) -> set[str]:
    return {n["name"] for n in json.loads(node.command("status", "--json"))["nodes"] if n["state"] == "online"}


def test_the_mesh_lives_on_without_its_owner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATMOSPHERE_PASSPHRASE", "a long enough passphrase")
    with nodes() as group:
        home = group.folder / "A"
        command(home, "init", "--name", "A")
        short_lived(home)
        a = group.run(home, options=QUIET)
        text = invite(a, uses=2)
        issuer_home, member_home = group.folder / "I", group.folder / "M"
        for each, name in ((issuer_home, "I"), (member_home, "M")):
            command(each, "join", text, "--name", name)
        short_lived(issuer_home)
        issuer = group.run(issuer_home, options=QUIET)
        issuer_peer = json.loads(issuer.command("status", "--json"))["me"]["peer_id"]
        eventually("A knows I", 10, lambda: "I" in online(a) or None)
        a.command("issuer", "add", issuer_peer, "--scopes", "call:*,serve,invite")
        eventually("I may issue", 10, lambda: issuer_peer in issuer.command("issuer", "list", "--json") or None)
        member = group.run(member_home, options=QUIET)
        eventually("I knows M", 10, lambda: "M" in online(issuer) or None)

        a.command("owner", "export", str(tmp_path / "owner.key"), "--remove")
        assert not (home / "owner.key").exists()
        a.kill()  # for good

        before = membership(member)
        began = time.perf_counter()
        assert int(str(before["expires_in_s"])) <= LIFETIME_S

        eventually("M has been renewed by I", LIFETIME_S, lambda: (
            membership(member)["serial"] != before["serial"] or None))
        renewed = membership(member)
        assert renewed["issuer"] == issuer_peer
        assert renewed["renewal"] == "ok"
        print(f"\nM was renewed by the issuer {time.perf_counter() - began:.0f} s later, with the owner's machine off")

        new = group.start("N", invite=invite(issuer), options=QUIET)
        eventually("N is in", 15, lambda: online(new) >= {"I", "N"} or None)
        eventually("M knows N", 20, lambda: "N" in online(member) or None)
        assert new.command("call", "system/health", "check", "--node", issuer_peer)
