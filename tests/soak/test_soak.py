"""A node holds no more after a hundred thousand requests and dozens of deaths around it than before: nothing leaks.

A takes the requests, B and C serve them; C is killed and started again all the time. ``make soak`` has the long form;
the short one, 3,000 requests, runs with the other tests.
"""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections import Counter
from dataclasses import dataclass, fields
from pathlib import Path

import psutil
import pytest

from tests.e2e.backends import Backend, openai_server
from tests.e2e.watch import control
from tests.processes import (
    SOAK,
    Node,
    NodeFailed,
    Nodes,
    command,
    eventually,
    free_port,
    invite,
    nodes,
    wait_for_capability,
)

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(3600 if SOAK else 420)]

MODEL = "soaked"
REQUESTS = 100_000 if SOAK else 3_000
WARM_UP = 20_000 if SOAK else 1_000
LIVE_FOR, DEAD_FOR = (1_500, 500) if SOAK else (500, 250)
"""Requests from a start to the next death, and from there to the next start."""
CLIENTS = 8
STREAMED_EVERY = 4
RSS_GROWTH = 0.05
STABLE_S, SETTLE_S = 4, 60


@dataclass(frozen=True)
class Held:
    """What a process holds when it has nothing to do."""

    descriptors: int
    """Without the connections that are kept open to the backend: how many of those are left is chance, up to 32."""
    tasks: int
    connections: int
    streams: int
    running: int
    """Work that was begun there, calls that it makes and serves."""

    @classmethod
    def of(cls, node: Node, backend: Backend) -> Held:
        process = psutil.Process(node.process.pid)
        with control(node.home) as client:
            client.get("/v1/admin/statistics")  # the connection of this client is part of both
            told = client.get("/v1/admin/statistics").raise_for_status().json()
            kept = [one for one in process.net_connections("tcp") if one.raddr and one.raddr.port == backend.port]
            descriptors = process.num_fds() - len(kept)
        host = told["host"]
        running = told["work"]["running"] + told["registry"]["running"] + told["registry"]["waiting"]
        return cls(descriptors, host["tasks"], host["connections"], host["streams"], running)

    def against(self, before: Held) -> str:
        return ", ".join(f"{item.name} {getattr(before, item.name)} -> {getattr(self, item.name)}"
                         for item in fields(self))


def at_rest(backend: Backend, *watched: Node) -> dict[str, Held]:
    """What each node holds once that has not changed for a while."""
    seen: list[dict[str, Held]] = []

    def stable() -> dict[str, Held] | None:
        seen.append({node.name: Held.of(node, backend) for node in watched})
        time.sleep(1)
        return seen[-1] if seen[-STABLE_S:].count(seen[-1]) == STABLE_S else None

    return eventually(f"{', '.join(node.name for node in watched)} at rest", SETTLE_S, stable)


def rss(node: Node) -> float:
    return float(psutil.Process(node.process.pid).memory_info().rss / 1e6)


class Load:
    """Requests to a node, closed loop; how each ended."""

    def __init__(self, node: Node, count: int) -> None:
        self.ended: Counter[str] = Counter()
        self._node, self._left = node, count
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._run) for _ in range(CLIENTS)]
        for thread in self._threads:
            thread.start()

    @property
    def done(self) -> int:
        return sum(self.ended.values())

    @property
    def running(self) -> bool:
        return any(thread.is_alive() for thread in self._threads)

    def _take(self) -> int:
        with self._lock:
            self._left -= 1
            return self._left

    def _run(self) -> None:
        connection = http.client.HTTPConnection(self._node.http, timeout=60)
        while (number := self._take()) >= 0:
            ended = ask(connection, streamed=number % STREAMED_EVERY == 0)
            with self._lock:
                self.ended[ended] += 1
        connection.close()


def ask(connection: http.client.HTTPConnection, *, streamed: bool) -> str:
    body = {"model": MODEL, "messages": [{"role": "user", "content": "count"}], "stream": streamed}
    connection.request("POST", "/v1/chat/completions", json.dumps(body), {"content-type": "application/json"})
    response = connection.getresponse()
    data = response.read()
    if response.status != 200:
        return f"{response.status} {data[:200].decode(errors='replace')}"
    if not streamed:
        return "whole" if json.loads(data)["choices"] else "empty"
    if data.endswith(b"data: [DONE]\n\n"):
        return "streamed"
    return "broken off with an error event" if b'"error"' in data.rsplit(b"data: ", 1)[-1] else "cut short"


class Fragile:
    """A node that is killed and started again."""

    def __init__(self, group: Nodes, home: Path) -> None:
        self.deaths = 0
        self._group, self._home = group, home
        self._options = ("--no-probe", "--listen", f"/ip4/127.0.0.1/tcp/{free_port()}")
        self._node: Node | None = None

    @property
    def runs(self) -> bool:
        return self._node is not None

    def start(self) -> None:
        self._node = self._group.run(self._home, options=self._options)

    def kill(self) -> None:
        assert self._node is not None
        self._node.kill()
        self._node = None
        self.deaths += 1


def drive(node: Node, count: int, fragile: Fragile) -> Counter[str]:
    """*count* requests through *node* while *fragile* dies and comes back; it is dead at the end."""
    fragile.start()
    wait_for_capability(node, "llm/chat", {"C"})
    load, turn = Load(node, count), LIVE_FOR
    while load.running:
        if load.done >= turn:
            if fragile.runs:
                fragile.kill()
                turn = load.done + DEAD_FOR
            else:
                fragile.start()
                turn = load.done + LIVE_FOR
        time.sleep(0.02)
    if fragile.runs:
        fragile.kill()
    return load.ended


def test_nothing_leaks_whatever_dies_around_a_node() -> None:
    with nodes() as group, openai_server(MODEL, tokens=5, token_delay_ms=4) as backend:
        a = group.start("A", options=("--no-probe",))
        invitation = invite(a, uses=2)
        for name in "BC":
            command(group.folder / name, "join", invitation, "--name", name)
            command(group.folder / name, "backend", "add", backend.url)
        b = group.run(group.folder / "B", options=("--no-probe",))
        fragile = Fragile(group, group.folder / "C")

        # Measured with C dead: A and B then have the one connection that they always had.
        warm = drive(a, WARM_UP, fragile)
        held = at_rest(backend, a, b)
        memory = {node.name: rss(node) for node in (a, b)}
        deaths = fragile.deaths
        began = time.perf_counter()
        ended = drive(a, REQUESTS, fragile)
        took = time.perf_counter() - began
        deaths = fragile.deaths - deaths
        print(f"\nafter {WARM_UP} to warm up ({dict(warm)}): {REQUESTS} requests in {took:.0f} s "
              f"({REQUESTS / took:.0f}/s), {deaths} deaths: {dict(ended)}")
        now = settled(held, backend, a, b)
        growth = {node.name: rss(node) / memory[node.name] - 1 for node in (a, b)}
        for node in (a, b):
            name = node.name
            print(f"{name}: RSS {memory[name]:.1f} -> {rss(node):.1f} MB ({growth[name]:+.1%}); "
                  f"{now[name].against(held[name])}")
        assert sum(ended.values()) == REQUESTS
        assert deaths >= REQUESTS // (LIVE_FOR + DEAD_FOR) / 2
        assert set(ended) <= {"whole", "streamed", "broken off with an error event"}, ended
        assert ended["broken off with an error event"] <= CLIENTS * deaths
        assert now == held
        assert max(growth.values()) < RSS_GROWTH


def settled(before: dict[str, Held], backend: Backend, *watched: Node) -> dict[str, Held]:
    """What the nodes hold when it is what they held *before*, or what they still hold after a while."""
    try:
        return eventually("as before", SETTLE_S, lambda: now if (now := at_rest(backend, *watched)) == before else None)
    except NodeFailed:
        return {node.name: Held.of(node, backend) for node in watched}
