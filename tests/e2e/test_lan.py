"""README: nodes of one mesh on one LAN find each other without any address being given (mDNS, here over loopback)."""

from __future__ import annotations

import dataclasses
import time

import pytest

from atmosphere.config import load, save
from tests.processes import command, eventually, invite, nodes

pytestmark = pytest.mark.e2e


def test_two_nodes_without_bootstrap_find_each_other() -> None:
    with nodes() as group:
        a = group.start("A", options=("--no-probe",))
        home = group.folder / "B"
        command(home, "join", invite(a), "--name", "B")
        a.stop()
        save(home, dataclasses.replace(load(home), bootstrap=()))  # nobody tells B where A is
        a = group.run(a.home, mdns=True, options=("--no-probe",))
        b = group.run(home, mdns=True, options=("--no-probe",))
        began = time.perf_counter()

        def found() -> bool | None:
            states = {node["name"]: node["state"] for node in b.get("/v1/mesh/nodes")["nodes"]}
            return True if states.get("A") == "online" else None

        eventually("B has found A", 20, found)
        print(f"\nfound each other {time.perf_counter() - began:.2f} s after the second was ready")
