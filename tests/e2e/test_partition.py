"""SPEC "Trust": what is said in one half of a parted mesh is in force in the other as soon as they meet again.

Four hosts in network namespaces, two on each side of a cable that the test pulls: A (the owner's) and B on the left, I
(an appointed issuer) and M on the right.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.namespaces import Switch, switch
from tests.processes import COMMAND, END_S, NodeFailed, environment, eventually

pytestmark = pytest.mark.e2e

PORT = 4001
PARTED_S = 45.0
"""Until both halves have given up the connections between them: two pings without an answer."""
HEALED_S = 45.0
"""Until one side dials again; its back-off has grown while the cable was out."""
ENFORCED_S = 2.0


@dataclass
class Host:
    """A node in a namespace. Its commands reach it through its control socket."""

    name: str
    namespace: str
    address: str
    home: Path
    process: subprocess.Popen[bytes] | None = None
    peer: str = ""

    def command(self, *words: str) -> str:
        done = subprocess.run(
            ["ip", "netns", "exec", self.namespace, COMMAND, "--home", self.home, *words],
            capture_output=True, text=True, timeout=60, check=False, env=environment(),
        )
        if done.returncode:
            raise NodeFailed(f"{self.name}: `{' '.join(words[:2])}` failed: {(done.stderr or done.stdout).strip()}")
        return done.stdout

    def status(self) -> Any:
        return json.loads(self.command("status", "--json"))

    def online(self) -> set[str]:
        """The names that this node can send work to now."""
        return {node["name"] for node in self.status()["nodes"] if node["state"] == "online"}

    def start(self) -> None:
        with self.home.with_suffix(".log").open("ab") as log:
            self.process = subprocess.Popen(
                ["ip", "netns", "exec", self.namespace, COMMAND, "--home", self.home, "run", "--no-mdns", "--no-probe",
                 "--listen", f"/ip4/{self.address}/tcp/{PORT}"],
                stdout=log, stderr=subprocess.STDOUT, start_new_session=True, env=environment(),
            )
        self.peer = eventually(f"{self.name} runs", 20, self._running)

    def _running(self) -> str | None:
        if not (self.home / "control.sock").exists():
            return None
        try:
            return str(self.status()["me"]["peer_id"])
        except NodeFailed:
            return None


@dataclass
class World:
    """Hosts on a switch."""

    network: Switch
    folder: Path
    hosts: list[Host] = field(default_factory=list)

    def add(self, name: str, side: str, *join: str) -> Host:
        """A running node: it founds the mesh, or joins with *join* (an invite)."""
        host = self.prepared(name, side)
        host.command(*(("join", *join) if join else ("init",)), "--name", name)
        host.start()
        return host

    def prepared(self, name: str, side: str) -> Host:
        namespace, address = self.network.host(side)
        host = Host(name, namespace, address, self.folder / name)
        self.hosts.append(host)
        return host


@contextmanager
def world(folder: Path) -> Iterator[World]:
    with switch() as network:
        made = World(network, folder)
        try:
            yield made
        finally:
            for host in made.hosts:
                if host.process is not None:
                    host.process.terminate()
            for host in made.hosts:
                if host.process is not None:
                    host.process.wait(timeout=END_S)


def invitation(host: Host, uses: int = 1) -> str:
    return str(json.loads(host.command("invite", "--uses", str(uses), "--json"))["invite"])


def test_what_one_half_said_is_in_force_in_the_other_when_they_meet(tmp_path: Path) -> None:
    with world(tmp_path) as here:
        a = here.add("A", "left")
        text = invitation(a, uses=3)
        b, issuer, m = here.add("B", "left", text), here.add("I", "right", text), here.add("M", "right", text)
        a.command("issuer", "add", issuer.peer, "--scopes", "call:*,serve,invite")
        everybody = {"A", "B", "I", "M"}
        eventually("everybody knows everybody", 30, lambda: all(h.online() == everybody for h in here.hosts) or None)
        eventually("I is an issuer everywhere", 10, lambda: all(
            issuer.peer in h.command("issuer", "list", "--json") for h in here.hosts) or None)
        single = invitation(a)

        here.network.part()
        began = time.perf_counter()
        eventually("the halves have given each other up", PARTED_S, lambda: (
            a.online() == b.online() == {"A", "B"} and issuer.online() == m.online() == {"I", "M"}) or None)
        print(f"\nboth halves noticed after {time.perf_counter() - began:.0f} s")

        # The left half revokes M; the single-use invite of A is redeemed in both halves, on the right by the issuer.
        a.command("revoke", m.peer, "--reason", "while parted", "--yes")
        here.add("L", "left", single)
        right = here.prepared("R", "right")
        right.command("join", single, "--via", f"/ip4/{issuer.address}/tcp/{PORT}/p2p/{issuer.peer}", "--name", "R")
        right.start()
        eventually("L is let in on the left", 20, lambda: "L" in b.online() or None)
        eventually("R is let in on the right", 20, lambda: "R" in issuer.online() or None)
        assert "M" in issuer.online()

        here.network.heal()
        healed = time.perf_counter()

        def met() -> bool | None:
            return True if issuer.online() & {"A", "B", "L"} else None

        eventually("the halves meet again", HEALED_S, met)
        first = time.perf_counter()
        eventually("the right half has put M out", ENFORCED_S, lambda: "M" not in issuer.online() or None)
        print(f"first link {first - healed:.1f} s after the heal, M put out {time.perf_counter() - first:.2f} s later")
        eventually("one of L and R is left, the same for everybody", 10, lambda: all(
            host.online() & {"L", "R"} == {"L"} for host in (a, b, issuer)) or None)
        print(f"the same members everywhere {time.perf_counter() - first:.1f} s after the first link")
