"""README: a node that dies is known to be dead within ten seconds, one that is only slow is not; what works is found.

Seven real processes. ``make soak`` has the long forms: 20 deaths instead of 3, a minute of silence instead of 20 s.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest

from tests.e2e.backends import Backend, openai_server
from tests.e2e.watch import Watch
from tests.processes import SOAK, Node, Nodes, command, free_port, invite, nodes, strained, wait_for_capability

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1800 if SOAK else 420)]

NAMES = "ABCDEFG"
WORKERS = "BCD"
"""Those that have the model."""
MODEL = "seven"
DEATHS = 20 if SOAK else 3
LIMIT_S = 10.0
"""From the kill until every other node's status says offline."""
LOOK_S = 0.2
"""How much later than the fact a look may come: the watch's period and its own wait."""
STALL_S = 3.0
AFTER_STALL_S = 12.0 if SOAK else 6.0
"""Watched after a stall: a death that was decided upon late would show."""
SILENCE_S = 60.0 if SOAK else 20.0
BACK_S = 2.0
CLIENTS = 8
BEFORE_S, AFTER_S = 1.0, 4.0


@dataclass
class Mesh:
    """Seven nodes that keep their addresses."""

    group: Nodes
    running: dict[str, Node]
    listen: dict[str, str]
    peers: dict[str, str]

    def watch(self, *without: str) -> Watch:
        return Watch({name: node.home for name, node in self.running.items() if name not in without})

    def whole(self) -> None:
        """Return when everybody says of everybody that it is online."""
        with self.watch() as watch:
            watch.wait("online", 30, *NAMES)

    @contextmanager
    def kill(self, name: str) -> Iterator[float]:
        """End *name* as a power failure would, for the length of the block; gives the time."""
        try:
            killed = time.perf_counter()
            self.running[name].kill()
            yield killed
        finally:
            self.run(name)

    def run(self, name: str) -> None:
        home = self.group.folder / name
        self.running[name] = self.group.run(home, options=("--no-probe", "--listen", self.listen[name]))


@pytest.fixture(scope="module")
def backend() -> Iterator[Backend]:
    with openai_server(MODEL, tokens=5, token_delay_ms=20) as server:
        yield server


@pytest.fixture(scope="module")
def mesh(backend: Backend) -> Iterator[Mesh]:
    with nodes() as group:
        made = Mesh(group, {}, {name: f"/ip4/127.0.0.1/tcp/{free_port()}" for name in NAMES}, {})
        command(group.folder / "A", "init", "--name", "A")
        made.run("A")
        invitation = invite(made.running["A"], uses=len(NAMES) - 1)
        for name in NAMES[1:]:
            command(group.folder / name, "join", invitation, "--name", name)
            if name in WORKERS:
                command(group.folder / name, "backend", "add", backend.url)
            made.run(name)
        made.whole()
        made.peers = {view["name"]: view["peer_id"] for view in made.running["A"].get("/v1/mesh/nodes")["nodes"]}
        yield made


def test_an_idle_node_that_is_killed_is_offline_everywhere_within_ten_seconds(mesh: Mesh) -> None:
    print()
    worst = max(death_of(NAMES[run % len(NAMES)], mesh) for run in range(DEATHS))
    print(f"worst of {DEATHS}: offline everywhere after {worst:.2f} s")
    assert worst <= strained(LIMIT_S + LOOK_S)


def death_of(victim: str, mesh: Mesh) -> float:
    """Kill *victim* and start it again; seconds until all said that it was offline."""
    with mesh.watch(victim) as watch:
        watch.wait("online", 5, victim)
        with mesh.kill(victim) as killed:
            watch.wait("offline", LIMIT_S + 10, victim)
            suspected = watch.first(victim, "suspect", since=killed)
            declared = watch.first(victim, "offline", since=killed)
            witness = mesh.running["A" if victim != "A" else "B"]
            line = next(line for line in witness.command("status").splitlines() if line.startswith(f"{victim} "))
        began = time.perf_counter()
        mesh.whole()
        others = [seen for seen in watch.said("suspect", "offline") if seen.subject != victim]
    print(f"{victim} killed: suspect after {span(suspected)}, offline after {span(declared)}; others doubted: "
          f"{len(others)}; back everywhere {time.perf_counter() - began:.2f} s after it was ready again")
    assert set(suspected) == set(declared) == set(NAMES) - {victim}
    assert all(suspected[name] <= declared[name] for name in declared), (suspected, declared)
    assert "offline" in line, line
    assert not others, [str(seen) for seen in others]
    return max(declared.values())


def span(seconds: dict[str, float]) -> str:
    return f"{min(seconds.values()):.2f} to {max(seconds.values()):.2f} s"


@dataclass(frozen=True)
class Request:
    """One request through A: when it ran, who answered, who was tried before."""

    began: float
    ended: float
    status: int
    node: str
    tried: tuple[str, ...]


def test_a_node_that_is_killed_at_work_is_not_chosen_a_second_time(mesh: Mesh) -> None:
    shim = mesh.running["A"]
    wait_for_capability(shim, "llm/chat", set(WORKERS))
    names = {peer: name for name, peer in mesh.peers.items()}
    done: list[Request] = []
    stop = threading.Event()

    def ask(client: httpx2.Client) -> Request:
        body: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "count"}],
                                "atmosphere": {"explain": True}}
        began = time.perf_counter()
        answer = client.post(f"{shim.base_url}/chat/completions", json=body, timeout=30)
        ended = time.perf_counter()
        tried = tuple(names[item["peer_id"]] for item in answer.json().get("atmosphere", {}).get("attempts", ()))
        return Request(began, ended, answer.status_code, names.get(answer.headers.get("x-atmosphere-node"), ""), tried)

    def work() -> None:
        with httpx2.Client() as client:
            while not stop.is_set():
                done.append(ask(client))

    threads = [threading.Thread(target=work) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    time.sleep(BEFORE_S)
    victim = done[-1].node
    assert victim in WORKERS
    with mesh.kill(victim) as killed:
        time.sleep(AFTER_S)
        stop.set()
        for thread in threads:
            thread.join()
    mesh.whole()

    hit = [request for request in done if victim in request.tried]
    first = min((request.ended for request in hit), default=killed)
    later = [request for request in done if request.began > first]
    again = [request for request in later if victim in (request.node, *request.tried)]
    answered = {name: sum(request.node == name for request in later) for name in WORKERS}
    slowest = max(request.ended - request.began for request in done if request.ended > killed)
    print(f"\n{len(done)} requests, {victim} killed after {sum(r.ended < killed for r in done)}: {len(hit)} moved on "
          f"from it{f', the first {first - killed:.2f} s after the kill' if hit else ''}; of {len(later)} begun after "
          f"that {len(again)} tried it again; answered then: {answered}; slowest {slowest:.2f} s")
    assert {request.status for request in done} == {200}
    assert len(later) > CLIENTS
    assert not again


def test_a_node_that_stalls_for_three_seconds_is_not_declared_dead(mesh: Mesh) -> None:
    victim = "E"
    with mesh.watch() as watch:
        watch.wait("online", 5, *NAMES)
        mesh.running[victim].process.send_signal(signal.SIGSTOP)
        time.sleep(STALL_S)
        mesh.running[victim].process.send_signal(signal.SIGCONT)
        time.sleep(AFTER_STALL_S)
    suspects, dead = watch.said("suspect"), watch.said("offline")
    print(f"\n{victim} stopped for {STALL_S:g} s: {len(suspects)} suspicions, {len(dead)} deaths declared, in "
          f"{min(watch.looks.values())} to {max(watch.looks.values())} looks at each of {len(NAMES)} nodes")
    assert min(watch.looks.values()) > AFTER_STALL_S / LOOK_S / 2
    assert not dead, [str(seen) for seen in dead]
    assert all(watch.all_say(name, "online") for name in NAMES)


def test_a_node_that_is_silent_for_long_is_declared_dead_and_is_back_at_once(mesh: Mesh) -> None:
    victim = "F"
    with mesh.watch() as watch:
        watch.wait("online", 5, *NAMES)
        stopped = time.perf_counter()
        mesh.running[victim].process.send_signal(signal.SIGSTOP)
        try:
            time.sleep(SILENCE_S)
        finally:
            mesh.running[victim].process.send_signal(signal.SIGCONT)
        woken = time.perf_counter()
        declared = watch.first(victim, "offline", since=stopped)
        assert set(declared) == set(NAMES) - {victim}, "not everybody noticed"
        watch.wait("online", BACK_S + 10, victim)
        back = watch.first(victim, "online", since=woken)
        time.sleep(AFTER_STALL_S / 2)
    its_own = [seen for seen in watch.said("offline") if seen.observer == victim]
    wrong = [seen for seen in watch.said("offline") if seen.subject != victim]
    print(f"\n{victim} stopped for {SILENCE_S:g} s: offline after {span(declared)}, online again {span(back)} after "
          f"SIGCONT; it declared {len(its_own)} others dead when it woke up")
    assert max(declared.values()) <= strained(LIMIT_S + LOOK_S)
    assert max(back.values()) <= strained(BACK_S + LOOK_S)
    assert not wrong, [str(seen) for seen in wrong]
