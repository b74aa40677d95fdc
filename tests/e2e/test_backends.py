"""README: what a node offers follows its backends: one that vanishes or comes back is known to the mesh within 10 s."""

from __future__ import annotations

import time

import pytest

from tests.e2e.backends import openai_server
from tests.processes import Node, command, eventually, invite, nodes

pytestmark = pytest.mark.e2e

MODEL = "comes-and-goes"
LIMIT_S = 10.0


def listed(at: Node) -> bool:
    return MODEL in {model["id"] for model in at.get("/v1/models")["data"]}


def test_a_backend_that_vanishes_or_returns_is_known_elsewhere_within_ten_seconds() -> None:
    with nodes() as group:
        a = group.start("A", options=("--no-probe",))
        with openai_server(MODEL) as backend:
            home = group.folder / "B"
            command(home, "join", invite(a), "--name", "B")
            command(home, "backend", "add", backend.url)
            group.run(home, options=("--no-probe",))
            eventually("A hears of B's model", 15, lambda: listed(a) or None)
        began = time.perf_counter()
        eventually("A hears that it is gone", LIMIT_S, lambda: not listed(a) or None)
        gone = time.perf_counter() - began
        with openai_server(MODEL, port=backend.port):
            began = time.perf_counter()
            eventually("A hears that it is back", LIMIT_S, lambda: listed(a) or None)
            back = time.perf_counter() - began
        print(f"\ngone after {gone:.1f} s, back after {back:.1f} s")
