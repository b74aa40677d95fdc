"""A command line on a fresh home, with or without a (fake) running node behind it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest
from click.testing import CliRunner, Result

from atmosphere.cli import main
from atmosphere.cli.home import Home

ME = "12D3KooWPjceQrSwdWXPyLLeABRXmuqt69Rg3sBYbU1Nft9HyQ6X"
OTHER = "12D3KooWH3uVF6wv47WnArKHk5p6cvgCJEb74UTmxztmQDc298L3"


def node_json(name: str, peer: str, **values: Any) -> dict[str, Any]:
    return {"name": name, "peer_id": peer, "state": "online", "path": "lan", "rtt_ms": 1.5, "load": 0.25,
            "capabilities": [{"id": "ab" * 32, "type": "llm/chat", "model": "tiny"}], "last_seen_s": 0.5, **values}


STATUS: dict[str, Any] = {
    "mesh": {"id": "12D3KooWMesh", "name": "Home"},
    "me": {"peer_id": ME, "name": "laptop", "addresses": ["/ip4/127.0.0.1/tcp/4001/p2p/" + ME],
           "membership": {"not_after": 1_900_000_000, "expires_in_s": 500_000, "renew_at": 1_899_000_000,
                          "renewal": "ok", "revoked": False, "scopes": ["call"], "issuer": ME, "serial": "ab" * 16}},
    "nodes": [node_json("laptop", ME, path="local", rtt_ms=None), node_json("server", OTHER)],
}


@dataclass
class FakeNode:
    """Answers the control socket's routes: ``(method, path) -> function of the body``. Unknown routes are 404."""

    routes: dict[tuple[str, str], Callable[[Any], httpx2.Response]] = field(default_factory=dict)
    requests: list[tuple[str, str, Any]] = field(default_factory=list)
    queries: list[str] = field(default_factory=list)
    """What follows the ``?`` in the path of each request."""

    def answer(self, method: str, path: str, body: Any, status: int = 200,
               headers: dict[str, str] | None = None) -> None:
        if isinstance(body, str):
            self.routes[method, path] = lambda _: httpx2.Response(status, text=body, headers=headers)
        else:
            self.routes[method, path] = lambda _: httpx2.Response(status, json=body, headers=headers)

    def handle(self, request: httpx2.Request) -> httpx2.Response:
        body = json.loads(request.content) if request.content else None
        key = (request.method, request.url.path)
        self.requests.append((*key, body))
        self.queries.append(request.url.query.decode())
        if key not in self.routes:
            return httpx2.Response(404, json={"error": {"message": f"no such route {key}", "code": "not_found"}})
        return self.routes[key](body)


Invoke = Callable[..., Result]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def cli(home: Path) -> Invoke:
    """Run a command on *home* without a node: ``cli("status", "--json")``."""

    def invoke(*words: str) -> Result:
        return CliRunner().invoke(main, ["--home", str(home), *words])

    return invoke


@pytest.fixture
def node() -> FakeNode:
    fake = FakeNode()
    fake.answer("GET", "/v1/admin/status", STATUS)
    fake.answer("GET", "/v1/admin/join-requests", {"requests": []})
    fake.answer("GET", "/v1/admin/issuers", {"issuers": []})
    return fake


@pytest.fixture
def running(home: Path, node: FakeNode) -> Invoke:
    """Run a command on *home* while *node* runs there."""

    def invoke(*words: str) -> Result:
        return CliRunner().invoke(main, list(words), obj=Home(home, httpx2.MockTransport(node.handle)))

    return invoke
