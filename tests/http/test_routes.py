"""Tool calls, the dry run, and the owner's routes."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import httpx2
import pytest
import trio

from atmosphere.config import BackendConfig, load
from atmosphere.http.server import ServeError, serve
from atmosphere.routing.intent import Intent
from tests.http.conftest import Served, Serving
from tests.http.fake_node import CARD_ID, PEER, Emit, FakeNode, echo


@asynccontextmanager
async def owner(served: Served) -> AsyncIterator[httpx2.AsyncClient]:
    transport = httpx2.AsyncHTTPTransport(uds=str(served.bound.control))
    async with httpx2.AsyncClient(transport=transport, base_url="http://node") as client:
        yield client


@asynccontextmanager
async def anyone(served: Served) -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(base_url=served.bound.url) as client:
        yield client


async def test_tool_call(serving: Serving) -> None:
    """Any tool by type or card; the answer is the tool's result."""

    async def adds(intent: Intent, args: bytes, emit: Emit) -> bytes:
        return json.dumps({"sum": sum(json.loads(args)["numbers"])}).encode()

    async with serving(adds) as served, anyone(served) as client:
        for who in ({"type": "math/add"}, {"capability": CARD_ID.hex()[:8]}):
            body = {**who, "tool": "add", "args": {"numbers": [1, 2]}}
            assert (await client.post("/v1/tools/call", json=body)).json() == {"sum": 3}
        by_type, by_card = (seen[0] for seen in served.node.seen)
        assert (by_type.tool, by_type.constraints.type) == ("add", "math/add")
        assert by_card.constraints.card == CARD_ID.hex()[:8]


async def test_tool_call_streamed(serving: Serving) -> None:
    """Pieces are events; the result is an event of its own name; line breaks in a piece cannot break the stream."""

    async def counts(intent: Intent, args: bytes, emit: Emit) -> bytes:
        await emit(b'{\n"n": 1\r\n}')
        await emit(b'{"n": 2}')
        return b'{"done": true}'

    async with serving(counts) as served, anyone(served) as client:
        body = {"type": "math/count", "tool": "count", "stream": True}
        answer = await client.post("/v1/tools/call", json=body)
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.text == ('data: {"n": 1}\n\ndata: {"n": 2}\n\nevent: result\ndata: {"done": true}\n\n'
                               "data: [DONE]\n\n")


@pytest.mark.parametrize(("body", "reason"), [
    ({"type": "a/b"}, "'tool'"),
    ({"tool": "x"}, "whose tool"),
    ({"tool": "x", "capability": "zz"}, "card id"),
    ({"tool": "x", "type": "a/b", "args": [1]}, "'args'"),
    ({"tool": "x", "type": "a/b", "arg": {}}, "unknown field arg"),
    ({"tool": "x", "type": "a/b", "atmosphere": {"constraints": {"type": "c/d"}}}, "give one"),
])
async def test_tool_call_refused(serving: Serving, body: dict[str, Any], reason: str) -> None:
    """What is wrong with a tool call is named."""
    async with serving() as served, anyone(served) as client:
        answer = await client.post("/v1/tools/call", json=body)
        assert answer.status_code == 400
        assert reason in answer.json()["error"]["message"]


async def test_dry_run(serving: Serving) -> None:
    """The decision with its reasons, and nothing runs."""
    async with serving() as served, anyone(served) as client:
        answer = (await client.post("/v1/mesh/route", json={"intent": "add numbers", "type": "llm/*"})).json()
        assert answer["chosen"] == {"peer_id": str(PEER), "name": "here", "capability": CARD_ID.hex(),
                                    "type": "llm/chat", "score": 0.9}
        assert answer["candidates"][0]["factors"] == {"semantic": 0.9}
        assert (answer["filtered"], answer["ms"]) == ({"type": 2}, 0.25)
        nobody = (await client.post("/v1/mesh/route", json={"intent": "x", "model": "nobody"})).json()
        assert nobody["chosen"] is None
        assert "nobody" in nobody["missing"]
        assert served.node.seen == []
        assert (await client.post("/v1/mesh/route", json={})).status_code == 400


async def test_owner_routes(serving: Serving) -> None:
    """What the commands use: on the control socket, and there only."""
    async with serving() as served, owner(served) as control, anyone(served) as public:
        assert (await control.get("/v1/admin/status")).json()["nodes"][0]["peer_id"] == str(PEER)
        assert (await control.post("/v1/admin/invite", json={"uses": 2})).json()["invite"] == "INVITE2"
        assert (await control.post("/v1/admin/invite", json={"uses": 9})).status_code == 409
        assert (await control.post("/v1/admin/invite", json={"uses": True})).status_code == 400
        wish = {"uses": 3, "approval": True, "offline": True, "scopes": ["call:llm/*"]}
        assert (await control.post("/v1/admin/invite", json=wish)).status_code == 200
        assert served.node.invited == [(2, False, False, None), (3, True, True, ("call:llm/*",))]
        assert (await control.post("/v1/admin/invite", json={"scopes": "call:*"})).status_code == 400
        backend: Any = {"url": "http://127.0.0.1:9/v1", "kind": "openai", "key_env": None, "continuation": True,
                        "price_micros": 30_000, "labels": ["cloud"]}
        for price in (-1, 0.5, True, "1"):
            refused = await control.post("/v1/admin/backends", json={**backend, "price_micros": price})
            assert (refused.status_code, refused.json()["error"]["param"]) == (400, "price_micros")
        assert (await control.post("/v1/admin/backends", json=backend)).status_code == 200
        assert (await control.post("/v1/admin/backends", json=backend)).status_code == 409
        assert load(served.node.home).backends == (
            BackendConfig(backend["url"], continuation=True, price_micros=30_000, labels=("cloud",)),)
        assert (await control.get("/v1/admin/backends")).json()["backends"] == [backend]
        gone = await control.request("DELETE", "/v1/admin/backends", json={"url": "http://other"})
        assert gone.status_code == 404
        await control.request("DELETE", "/v1/admin/backends", json={"url": backend["url"]})
        assert (await control.get("/v1/admin/backends")).json() == {"backends": []}
        assert load(served.node.home).backends == ()
        served.node.home.joinpath("config.yaml").write_text("backends: [")
        assert (await control.post("/v1/admin/backends", json=backend)).json()["error"]["code"] == "bad_settings"
        assert (await control.post("/v1/admin/knowledge", json={"path": "/missing"})).status_code == 400
        assert (await control.post("/v1/admin/knowledge", json={"path": "relative"})).status_code == 400
        assert (await control.post("/v1/admin/knowledge", json={"path": "/docs"})).json()["type"] == "/docs"
        assert (await control.get("/v1/admin/knowledge")).json()["folders"][0]["type"] == "folder"
        for path in ("status", "invite", "stop", "leave", "knowledge", "backends"):
            assert (await public.get(f"/v1/admin/{path}")).status_code == 404
            assert (await public.post(f"/v1/admin/{path}", json={})).status_code == 404
        assert (await control.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": "x"}]}
                                   )).status_code == 200
        assert not served.node.stop_requested.is_set()


@pytest.mark.parametrize("route", ["stop", "leave"])
async def test_owner_stops_the_node(serving: Serving, route: str) -> None:
    """The command gets its answer, then the server ends."""
    async with serving() as served, owner(served) as control:
        assert (await control.post(f"/v1/admin/{route}", json={})).status_code == 200
        with trio.fail_after(2):
            await served.stopped.wait()
        assert served.node.left == (route == "leave")


async def refused(public: str, control: Path) -> str:
    """The words with which serving is refused."""
    async with trio.open_nursery() as nursery:
        with closing(FakeNode(nursery, echo)) as node, trio.fail_after(2), pytest.raises(ServeError) as caught:
            await serve(node, public=public, control=control)
    return str(caught.value)


@pytest.mark.parametrize(("public", "reason"), [
    ("0.0.0.0:1", "keys add"), ("192.168.1.2:1", "keys add"), ("[::]:1", "keys add"), ("example.com:1", "as a number"),
    ("127.0.0.1", "HOST:PORT"), ("127.0.0.1:99999", "HOST:PORT"), (":80", "HOST:PORT"),
])
async def test_bind_refused(tmp_path: Path, public: str, reason: str) -> None:
    """An address that others can reach needs an API key; names and half addresses are none."""
    assert reason in await refused(public, tmp_path / "c.sock")
    assert not (tmp_path / "c.sock").exists()


async def test_what_is_taken_is_named(serving: Serving, tmp_path: Path) -> None:
    """A busy port names the option; a home in use, a file in the way and a path too long are told apart."""
    async with serving() as served:
        assert "--http" in await refused(f"127.0.0.1:{served.port}", tmp_path / "c.sock")
        assert "running on this home already" in await refused("127.0.0.1:0", served.bound.control)
        assert "--home" in await refused("127.0.0.1:0", tmp_path / ("x" * 108))
        (tmp_path / "file").write_text("mine")
        assert "in the way" in await refused("127.0.0.1:0", tmp_path / "file")
        assert (tmp_path / "file").read_text() == "mine"


async def test_stale_socket_is_replaced(tmp_path: Path) -> None:
    """What a crash left behind does not keep the node from starting."""
    import socket

    path = tmp_path / "c.sock"
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(path))
    left.close()
    async with trio.open_nursery() as nursery:
        with closing(FakeNode(nursery, echo)) as node:

            async def run(task_status: trio.TaskStatus[Any]) -> None:
                await serve(node, public="localhost:0", control=path, task_status=task_status)

            with trio.fail_after(2):
                await nursery.start(run)
                transport = httpx2.AsyncHTTPTransport(uds=str(path))
                async with httpx2.AsyncClient(transport=transport, base_url="http://node") as client:
                    assert (await client.get("/v1/health")).json()["status"] == "ok"
                node.stop_requested.set()
