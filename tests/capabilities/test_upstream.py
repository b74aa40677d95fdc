"""The HTTP client of backends: limits that hold, errors that say which half failed."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio

from atmosphere.capabilities import upstream as module
from atmosphere.capabilities.upstream import Upstream, UpstreamError, UpstreamTimeout, status_error
from tests.backends.http_server import Log, Reply, Request
from tests.backends.running import running


async def handler(request: Request, reply: Reply, log: Log) -> None:
    match request.path.rpartition("/")[2]:
        case "endless":
            await reply.start(200, "text/plain")
            while True:
                await reply.send(b"x" * 1000)
        case "silent":
            await trio.sleep_forever()
        case "redirect":
            await reply.bytes(b"", 302, headers={"location": "http://elsewhere.invalid/"})
        case "cut":
            await reply.start(200, "text/plain", {"transfer-encoding": "chunked"})
            await reply.send(b"half")
        case _:
            await reply.json({"path": request.path, "headers": request.headers, "size": len(request.body)})


async def test_prefix_key_and_large_bodies() -> None:
    async with running(handler) as run:
        client = Upstream(run.url + "/pre/fix/", key="k")
        body = b" " * 3_000_000
        answer = (await client.post("/echo", body)).json()
        assert (answer["path"], answer["size"]) == ("/pre/fix/echo", len(body))
        assert answer["headers"]["authorization"] == "Bearer k"
        assert answer["headers"]["host"] == f"127.0.0.1:{run.port}"
        assert answer["headers"]["accept-encoding"] == "identity"
        await client.aclose()
        assert client.connections == 0


async def test_an_endless_answer_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(handler) as run:
        client = Upstream(run.url)
        async with client.stream("/endless", b"{}") as answer:
            with pytest.raises(UpstreamError, match="more than 50000 bytes"):
                await answer.read(50_000)
        assert client.connections == 0, "what was not read to its end is closed, not kept"
        await client.aclose()


async def test_silence_and_cuts_are_errors() -> None:
    async with running(handler) as run:
        client = Upstream(run.url)
        with pytest.raises(UpstreamTimeout) as silent:
            await client.get("/silent", timeout_s=0.05)
        assert silent.value.started
        with pytest.raises(UpstreamError, match="the stream broke"):
            await client.get("/cut", timeout_s=5)
        assert (await client.get("/redirect", timeout_s=5)).status == 302, "a redirect is not followed"
        await client.aclose()
    with pytest.raises(UpstreamError, match="cannot be reached") as gone:
        await client.get("/", timeout_s=5)
    assert not gone.value.started


async def test_a_timeout_is_never_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a connection that broke before any answer is replaced; a slow server must not get the request twice."""
    async with running(handler) as run:
        client = Upstream(run.url)
        await client.get("/warm", timeout_s=5)
        monkeypatch.setitem(module._TIMEOUTS, "read", 0.05)
        with pytest.raises(UpstreamTimeout):
            await client.post("/silent", b"{}")
        assert client.connections == 0
        await client.aclose()


@pytest.mark.parametrize(
    ("body", "message", "kept"),
    [
        (b'{"error": {"message": "no"}}', "no", {"error": {"message": "no"}}),
        (b'{"error": "no"}', "no", {"error": "no"}),
        (b'{"detail": "no"}', "no", {"detail": "no"}),
        (b"<html>", "<html>", "<html>"),
        (b"\xff", "\ufffd", "\ufffd"),
        (b"", "", ""),
        (b"x" * 100_000, "x" * 500, "x" * 3072),
        (b"\0" * 100_000, "\0" * 500, "\0" * 500),
        (json.dumps("é" * 5000, ensure_ascii=False).encode(), '"' + "é" * 499, '"' + "é" * 499),
    ],
    ids=lambda value: str(value)[:20],
)
def test_what_an_error_body_says(body: bytes, message: str, kept: Any) -> None:
    error = status_error("server", 418, {}, body)
    assert error.message == f"server answered 418: {message}"
    assert json.loads(error.details) == {"status": 418, "body": kept}
    assert len(error.details) <= 16 * 1024
