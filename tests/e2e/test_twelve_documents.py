"""The example of the first sketches: twelve documents are embedded on three nodes, a fourth searches, a fifth sums up.

The plan is ``docs/examples/twelve-documents.json``, run with ``plan run`` on a node that has none of it. Once with the
service times of the sketches (embed 500 ms, search 300 ms, language model 2,500 ms), stated by stand-ins; once with
what a fresh install has: the built-in embedder, and for want of a language model the knowledge's quoting ``chat``.
"Sequential" is the same plan with one unit in flight, so both go the same way.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.backends import Backend
from tests.processes import (
    COMMAND,
    Node,
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

PLAN = Path(__file__).parents[2] / "docs" / "examples" / "twelve-documents.json"
EMBED_MS, SEARCH_MS, LLM_MS = 500.0, 300.0, 2500.0
EMBEDDER, LLM = "embed-500ms", "chat-2500ms"
EMBEDDING = ("A", "B", "C")
STATED_SEQUENTIAL_MS = 12 * EMBED_MS + SEARCH_MS + LLM_MS
STATED_PARALLEL_MS = EMBED_MS + SEARCH_MS + LLM_MS
STRATEGY = """# Strategy of the last quarter

## Goals

Grow sales by five percent in both regions. Bring the waiting time of support below fifteen minutes.

## Priorities

Reliability comes before new features. A second supplier for batteries must be found. Costs per parcel may not rise.
"""


@dataclass
class World:
    """A mesh of six: three embed, one knows the strategy, one has the language model, one asks."""

    group: Nodes
    asks: Node
    listen: tuple[str, ...]
    """Options of the asking node: it has one address for good."""
    search: Node
    embedders: list[Backend]
    llm: Backend

    def embedded(self) -> int:
        """Requests that the stand-ins for embedding have seen."""
        return sum(len(backend.log()["requests"]) for backend in self.embedders)


@contextmanager
def stand_in(*words: str) -> Iterator[Backend]:
    """A stand-in of a model server, as a process."""
    port = free_port()
    process = subprocess.Popen([sys.executable, "-m", "tests.backends.openai_server", "--port", str(port), *words],
                               env=environment(), stdout=subprocess.DEVNULL)
    backend = Backend(port)
    try:
        eventually("the stand-in answers", 15, lambda: True if backend.log() is not None else None)
        yield backend
    finally:
        process.terminate()
        process.wait(timeout=10)


def member(group: Nodes, name: str, invitation: str, *, backend: Backend | None = None, knows: Path | None = None,
           program: tuple[str | Path, ...] = (COMMAND,)) -> Node:
    home = group.folder / name
    command(home, "join", invitation, "--name", name)
    if backend is not None:
        command(home, "backend", "add", backend.url)
    if knows is not None:
        command(home, "knowledge", "add", str(knows))
    return group.run(home, options=("--no-probe",), program=program)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("knowledge") / "strategy"
    folder.mkdir()
    (folder / "last-quarter.md").write_text(STRATEGY)
    with ExitStack() as stack:
        group = stack.enter_context(nodes())
        listen = ("--no-probe", "--listen", f"/ip4/127.0.0.1/tcp/{free_port()}")
        asks = group.start("asks", options=listen)
        invitation = invite(asks, uses=5)
        backends = []
        for name in EMBEDDING:
            embedder = stack.enter_context(
                stand_in("--model", "", "--embed-model", EMBEDDER, "--embed-delay-ms", str(EMBED_MS)))
            member(group, name, invitation, backend=embedder)
            backends.append(embedder)
        program = (sys.executable, "-m", "tests.e2e.stated_search_node", str(SEARCH_MS))
        search = member(group, "D", invitation, knows=folder, program=program)
        llm = stack.enter_context(stand_in("--model", LLM, "--tokens", "5", "--token-delay-ms", str(LLM_MS / 5)))
        member(group, "E", invitation, backend=llm)
        wait_for_capability(asks, "llm/chat", {"E"})
        wait_for_capability(asks, "knowledge/answer", {"D"})
        eventually("all three embedders are known", 30, lambda: True if embedders(asks) == set(EMBEDDING) else None)
        yield World(group, asks, listen, search, backends, llm)


def embedders(at: Node) -> set[str]:
    """Which nodes offer the stand-in's embedding model."""
    return {node["name"] for node in at.get("/v1/mesh/nodes")["nodes"] if node["state"] == "online"
            if any(item["model"] == EMBEDDER for item in node["capabilities"])}


def document(*, stated: bool, in_flight: int | None = None) -> dict[str, Any]:
    """The example; *stated*: with the stand-ins' models by name, else with what every install has."""
    plan: dict[str, Any] = json.loads(PLAN.read_text())
    steps = {step["id"]: step for step in plan["units"]}
    if stated:
        steps["embed"]["model"], steps["summary"]["model"] = EMBEDDER, LLM
    else:
        steps["summary"]["type"] = "knowledge/answer"
    return plan | ({} if in_flight is None else {"in_flight": in_flight})


def run(at: Node, folder: Path, plan: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """Run *plan* through the command line of *at*; what became of it, and what the command shows."""
    file = folder / "plan.json"
    file.write_text(json.dumps(plan))
    shown = at.command("plan", "run", str(file))
    newest = json.loads(at.command("plan", "list", "--json"))["plans"][0]["id"]
    return json.loads(at.command("plan", "show", newest, "--json")), shown


def took_ms(view: dict[str, Any]) -> float:
    return float(view["ended_at"] - view["created_at"]) * 1000


def by_step(view: dict[str, Any], step: str) -> list[dict[str, Any]]:
    return [record for record in view["records"] if record["id"].partition("[")[0] == step]


def test_twelve_documents_in_the_time_of_one(world: World, tmp_path: Path) -> None:
    world.search.process.send_signal(signal.SIGUSR2)
    run(world.asks, tmp_path, document(stated=True))  # connections are made and the models are known
    sequential, _ = run(world.asks, tmp_path, document(stated=True, in_flight=1))
    parallel, shown = run(world.asks, tmp_path, document(stated=True))
    print(f"\n{shown}")
    speedup = took_ms(sequential) / took_ms(parallel)
    print(f"stated service times: sequential {took_ms(sequential):.0f} ms (stated: {STATED_SEQUENTIAL_MS:.0f}), "
          f"parallel {took_ms(parallel):.0f} ms (stated: {STATED_PARALLEL_MS:.0f}), speed-up {speedup:.2f} of at most "
          f"{STATED_SEQUENTIAL_MS / STATED_PARALLEL_MS:.2f}")
    assert sequential["state"] == parallel["state"] == "ok"
    embeds = by_step(parallel, "embed")
    assert len(embeds) == 12
    assert {record["node"] for record in embeds} == set(EMBEDDING)
    assert [record["node"] for record in by_step(parallel, "strategy")] == ["D"]
    assert [record["node"] for record in by_step(parallel, "summary")] == ["E"]
    (search,), (summary,) = by_step(parallel, "strategy"), by_step(parallel, "summary")
    assert search["began_ms"] >= max(record["began_ms"] + record["ms"] for record in embeds) - 1
    assert summary["began_ms"] >= search["began_ms"] + search["ms"] - 1
    asked = world.llm.log()["requests"][-1]["body"]["messages"][-1]["content"]
    texts = [item["text"] for item in json.loads(PLAN.read_text())["values"]["documents"]]
    assert all(text in asked for text in texts), "the language model got every document"
    assert "A second supplier for batteries must be found." in asked, "and what the search found"
    assert parallel["results"]["summary"]["choices"][0]["message"]["content"].startswith(f"{LLM}-0 ")
    assert took_ms(sequential) >= STATED_SEQUENTIAL_MS
    assert speedup >= 2.0


def test_twelve_documents_for_real(world: World, tmp_path: Path) -> None:
    world.search.process.send_signal(signal.SIGUSR1)
    run(world.asks, tmp_path, document(stated=False))
    sequential, _ = run(world.asks, tmp_path, document(stated=False, in_flight=1))
    parallel, shown = run(world.asks, tmp_path, document(stated=False))
    print(f"\n{shown}")
    print(f"no stated times, the built-in embedder of six nodes on this one machine: sequential "
          f"{took_ms(sequential):.0f} ms, parallel {took_ms(parallel):.0f} ms, "
          f"speed-up {took_ms(sequential) / took_ms(parallel):.2f}")
    assert sequential["state"] == parallel["state"] == "ok"
    assert parallel["results"]["summary"]["choices"][0]["message"]["content"]


def test_the_plan_goes_on_after_the_node_that_holds_it_was_killed(world: World, tmp_path: Path) -> None:
    world.search.process.send_signal(signal.SIGUSR2)
    file = tmp_path / "plan.json"
    file.write_text(json.dumps(document(stated=True)))
    before = world.embedded()
    plan = world.asks.command("plan", "run", "--no-wait", str(file)).strip()
    eventually("the search is over and the summary runs", 30, lambda: True if world.asks.get(f"/v1/plans/{plan}")[
        "counts"] == {"ok": 13, "running": 1} else None)
    world.asks.kill()
    world.asks = world.group.run(world.asks.home, options=world.listen)
    eventually("the plan is over", 60,
               lambda: None if world.asks.get(f"/v1/plans/{plan}")["state"] == "running" else True)
    view = world.asks.get(f"/v1/plans/{plan}")
    print(f"\nkilled with 13 of 14 units done and started again: {view['state']} after {took_ms(view):.0f} ms")
    assert view["counts"] == {"ok": 14}
    assert view["results"]["summary"]["choices"][0]["message"]["content"].startswith(f"{LLM}-0 ")
    assert world.embedded() - before == 12, "no document was embedded again"
