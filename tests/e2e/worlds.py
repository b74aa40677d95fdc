"""Nodes on hosts of their own: one process per network namespace, reached through its control socket."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from tests.e2e.watch import control
from tests.processes import COMMAND, END_S, NodeFailed, check_log, environment, eventually

PORT = 4001


class Network(Protocol):
    """Where hosts come from."""

    def host(self, side: str) -> tuple[str, str]:
        """A new host: its namespace and its address."""


@dataclass
class Host:
    """A node in a namespace. Its commands reach it through its control socket."""

    name: str
    namespace: str
    address: str
    home: Path
    process: subprocess.Popen[bytes] | None = None
    peer: str = ""
    revoked: bool = False
    """The test revokes it."""

    def command(self, *words: str) -> str:
        done = subprocess.run(
            ["ip", "netns", "exec", self.namespace, COMMAND, "--home", self.home, *words],
            capture_output=True, text=True, timeout=60, check=False, env=environment(),
        )
        if done.returncode:
            raise NodeFailed(f"{self.name}: `{' '.join(words[:2])}` failed: {(done.stderr or done.stdout).strip()}")
        return done.stdout

    def status(self) -> Any:
        """What the command ``status --json`` prints, without the half second of a command."""
        with control(self.home) as client:
            return client.get("/v1/admin/status").raise_for_status().json()

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
        self.peer = eventually(f"{self.name} runs", 20, lambda: str(self.status()["me"]["peer_id"]))


@dataclass
class World:
    """Hosts on a network."""

    network: Network
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
def world(network: Network, folder: Path) -> Iterator[World]:
    """A world on *network*; its processes end with the block. Raises NodeFailed if a log tells of an error."""
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
    for host in made.hosts:
        if host.process is not None:
            check_log(host.home, revoked=host.revoked)


def invitation(host: Host, uses: int = 1) -> str:
    """A fresh invite into the mesh of *host*."""
    return str(json.loads(host.command("invite", "--uses", str(uses), "--json"))["invite"])
