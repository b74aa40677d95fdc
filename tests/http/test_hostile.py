"""Malformed, oversized, slow and truncated requests: each refused with a reason, the node alive, memory flat."""

from __future__ import annotations

import gc
import json
from functools import partial
from pathlib import Path

import psutil
import pytest
import trio

from atmosphere.http.errors import HttpError
from atmosphere.http.gate import Gate, Head, Incoming, Message
from atmosphere.routing.intent import Intent
from tests.http.conftest import IMPATIENT, LIMITS, Served, Serving, read_all
from tests.http.fake_node import Emit, chunk

HOST = b"Host: localhost\r\n"
JSON = b"Content-Type: application/json\r\n"
CHAT = b"POST /v1/chat/completions HTTP/1.1\r\n" + HOST


def post(body: bytes, *, headers: bytes = JSON, path: bytes = b"/v1/chat/completions", host: bytes = HOST) -> bytes:
    return (b"POST " + path + b" HTTP/1.1\r\n" + host + headers + b"Connection: close\r\n"
            + b"Content-Length: %d\r\n\r\n" % len(body) + body)


@pytest.fixture
def serving(serving: Serving) -> Serving:
    """Serving clients that the server is not patient with."""
    return partial(serving, limits=IMPATIENT)


GOOD = b'{"messages": [{"role": "user", "content": "hi"}]}'
BIG = b'{"messages": [{"role": "user", "content": "' + b"x" * (LIMITS.body_bytes + 1) + b'"}]}'

CASES: dict[str, tuple[bytes, int, str]] = {
    # name: what is sent, the status, a part of the reason
    "garbage": (b"\x00\x01\x02\xff\r\n\r\n", 400, "malformed"),
    "no version": (b"GET /v1/models\r\n\r\n", 400, "malformed"),
    "tls hello": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400, "malformed"),
    "no host": (b"GET /v1/models HTTP/1.1\r\n\r\n", 400, "malformed"),
    "two lengths": (CHAT + JSON + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", 400, "malformed"),
    "length not a number": (CHAT + JSON + b"Content-Length: -5\r\n\r\n", 400, "malformed"),
    "bad chunk size": (CHAT + JSON + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n", 400, "malformed"),
    "header with a null": (b"GET /v1/models HTTP/1.1\r\nHost: local\x00host\r\n\r\n", 400, "malformed"),
    "long header": (b"GET /v1/models HTTP/1.1\r\n" + HOST + b"X: " + b"a" * 64_000 + b"\r\n\r\n", 431, "headers"),
    "many headers": (b"GET /v1/models HTTP/1.1\r\n" + HOST + b"X: a\r\n" * 10_000 + b"\r\n", 431, "headers"),
    "endless request line": (b"GET /" + b"a" * 64_000, 431, "headers"),
    "rebinding host": (post(GOOD, host=b"Host: evil.example\r\n"), 403, "evil.example"),
    "rebinding host on GET": (b"GET /v1/models HTTP/1.1\r\nHost: evil.example:80\r\nConnection: close\r\n\r\n", 403,
                              "evil.example"),
    "host that begins like ours": (post(GOOD, host=b"Host: localhost.evil.example\r\n"), 403, "not this node"),
    "foreign origin": (post(GOOD, headers=JSON + b"Origin: https://evil.example\r\n"), 403, "another site"),
    "origin of a sandbox": (post(GOOD, headers=JSON + b"Origin: null\r\n"), 403, "another site"),
    "form post": (post(b"a=b", headers=b"Content-Type: text/plain\r\n"), 415, "application/json"),
    "no content type": (post(GOOD, headers=b""), 415, "application/json"),
    "declared too large": (CHAT + JSON + b"Content-Length: 99999999\r\n\r\n" + b"x" * 1000, 413, "larger than"),
    "sent too large": (post(BIG), 413, "larger than"),
    "stalled body": (CHAT + JSON + b"Content-Length: 500\r\n\r\n{", 408, "stopped after 1 bytes"),
    "empty body": (post(b"", headers=b""), 400, "empty"),
    "not json": (post(b"{'a': 1}"), 400, "line 1 column 2"),
    "truncated json": (post(b'{"messages": ['), 400, "not JSON"),
    "not utf-8": (post(b'{"messages": "\xff\xfe"}'), 400, "UTF-8"),
    "not an object": (post(b"[1]"), 400, "array"),
    "nan": (post(b'{"messages": [], "temperature": NaN}'), 400, "NaN"),
    "a field twice": (post(b'{"model": "a", "model": "b"}'), 400, "'model' stands twice"),
    "nested too deeply": (post(b"[" * 100_000), 400, "nested"),
    "a number of 10000 digits": (post(b'{"n": ' + b"1" * 10_000 + b"}"), 400, "number"),
    "no messages": (post(b"{}"), 400, "'messages'"),
    "messages of the wrong type": (post(b'{"messages": [1]}'), 400, "messages[0]"),
    "model of the wrong type": (post(b'{"messages": [{"role": "user"}], "model": 5}'), 400, "'model'"),
    "stream of the wrong type": (post(b'{"messages": [{"role": "user"}], "stream": "yes"}'), 400, "'stream'"),
    "unknown constraint": (post(b'{"messages": [{"role": "user"}], "atmosphere": {"constraints": {"nod": 1}}}'), 400,
                           "atmosphere.constraints.nod"),
    "a number that no float holds": (
        post(b'{"messages": [{"role": "user"}], "atmosphere": {"constraints": {"max_latency_ms": %d}}}' % 10**400), 400,
        "max_latency_ms"),
    "an infinite number": (
        post(b'{"messages": [{"role": "user"}], "atmosphere": {"constraints": {"max_latency_ms": 1e999}}}'), 400,
        "number"),
    "bad peer id": (post(b'{"messages": [{"role": "user"}], "atmosphere": {"constraints": {"node": "x"}}}'), 400,
                    "peer id"),
    "negative deadline": (post(b'{"messages": [{"role": "user"}], "atmosphere": {"deadline_ms": -1}}'), 400,
                          "deadline_ms"),
    "half a character": (post(b'{"messages": [{"role": "user"}], "model": "\\ud800"}'), 400, "half a character"),
    "more after the last request": (b"GET /v1/models HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\nGET ", 400,
                                    "malformed"),
    "two slashes": (b"GET /v1//models HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n", 404, "no such route"),
    "unknown route": (post(b"{}", path=b"/v1/responses"), 404, "no such route"),
    "an admin route": (b"GET /v1/admin/status HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n", 404, "route"),
    "wrong method": (b"GET /v1/chat/completions HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n", 405, "POST"),
    "preflight": (b"OPTIONS /v1/chat/completions HTTP/1.1\r\n" + HOST + b"Origin: http://evil.example\r\n"
                  b"Connection: close\r\n\r\n", 403, "another site"),
    "http/2 preface": (b"PRI * HTTP/2.0\r\n\r\n", 403, "Host header"),
}


@pytest.mark.parametrize("name", CASES)
async def test_refused_with_a_reason(serving: Serving, name: str) -> None:
    """Every bad request gets its status and a JSON error that names the cause; the node goes on serving."""
    sent, status, reason = CASES[name]
    async with serving() as served:
        head, body = split(await served.raw(sent))
        assert head.startswith(b"HTTP/1.1 %d" % status), (head, body)
        error = json.loads(body)["error"]
        assert reason in error["message"]
        assert set(error) == {"message", "type", "param", "code"}
        assert b"access-control" not in head.lower()
        assert served.node.seen == []
        assert await alive(served)


async def test_stalled_head_is_closed(serving: Serving) -> None:
    """A request head that never ends does not hold a connection."""
    async with serving() as served:
        began = trio.current_time()
        assert await served.raw(b"GET /v1/models HTTP/1.1\r\nHost: loc") == b""
        assert trio.current_time() - began < 2
        assert await alive(served)


async def test_dripping_body_is_cut_off(serving: Serving) -> None:
    """A body that makes just enough progress each time still has a limit in all."""
    async with serving() as served, await trio.open_tcp_stream("127.0.0.1", served.port) as stream:
        await stream.send_all(CHAT + JSON + b"Content-Length: 500\r\n\r\n")
        async with trio.open_nursery() as nursery:
            async def drip() -> None:
                while True:
                    await stream.send_all(b" ")
                    await trio.sleep(0.1)

            nursery.start_soon(drip)
            with trio.fail_after(4):
                answer = await stream.receive_some()
            nursery.cancel_scope.cancel()
        assert answer.startswith(b"HTTP/1.1 408")


@pytest.mark.parametrize(("part", "times"), [
    (b"10000\r\n" + b"x" * 0x10000 + b"\r\n", 20),
    (b"1\r\nx\r\n" * 10_000, 3),  # thousands of body messages from one read: more than any queue on the way holds
], ids=["large chunks", "tiny chunks"])
async def test_endless_chunked_body(serving: Serving, part: bytes, times: int) -> None:
    """A body without an end is refused at the limit; memory and tasks stay flat over many of them."""

    async def endless(served: Served) -> bytes:
        async with await trio.open_tcp_stream("127.0.0.1", served.port) as stream:
            await stream.send_all(CHAT + JSON + b"Transfer-Encoding: chunked\r\n\r\n")
            async with trio.open_nursery() as nursery:
                async def send() -> None:
                    try:
                        while True:
                            await stream.send_all(part)
                    except trio.BrokenResourceError:
                        return  # refused

                nursery.start_soon(send)
                with trio.fail_after(5):
                    return await read_all(stream)

    async with serving() as served:
        await endless(served)
        await trio.testing.wait_all_tasks_blocked(0.05)
        before, tasks = memory(), trio.lowlevel.current_statistics().tasks_living
        for _ in range(times):
            answer = await endless(served)
            assert answer.startswith((b"HTTP/1.1 413", b"HTTP/1.1 408"))
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert trio.lowlevel.current_statistics().tasks_living <= tasks
        assert memory() - before < 20 * 2**20
        assert await alive(served)


async def test_truncated_body_leaves_nothing(serving: Serving) -> None:
    """A client that goes away within its body leaves no task, socket or count behind."""
    async with serving() as served:
        assert await alive(served)
        await trio.testing.wait_all_tasks_blocked(0.05)
        tasks, files = trio.lowlevel.current_statistics().tasks_living, descriptors()
        for _ in range(50):
            stream = await trio.open_tcp_stream("127.0.0.1", served.port)
            await stream.send_all(CHAT + JSON + b"Content-Length: 500\r\n\r\n{")
            await stream.aclose()
        with trio.fail_after(2):
            while trio.lowlevel.current_statistics().tasks_living > tasks or descriptors() > files:
                await trio.testing.wait_all_tasks_blocked(0.02)
        assert await alive(served)


async def test_connect_and_leave(serving: Serving) -> None:
    """500 connections that come and go leave tasks and descriptors as they were."""
    async with serving() as served:
        assert await alive(served)
        await trio.testing.wait_all_tasks_blocked(0.05)
        tasks, files = trio.lowlevel.current_statistics().tasks_living, descriptors()
        for _ in range(500):
            await (await trio.open_tcp_stream("127.0.0.1", served.port)).aclose()
        with trio.fail_after(2):
            while trio.lowlevel.current_statistics().tasks_living > tasks or descriptors() > files:
                await trio.testing.wait_all_tasks_blocked(0.02)


async def test_reader_that_stops_is_cut_off(serving: Serving) -> None:
    """A client that does not read its stream is gone after the write limit, and its work is cancelled."""

    async def endless(intent: Intent, args: bytes, emit: Emit) -> bytes:
        while True:
            await emit(chunk("x" * 60_000))

    async with serving(endless) as served, await trio.open_tcp_stream("127.0.0.1", served.port) as stream:
        await stream.send_all(post(b'{"stream": true, "messages": [{"role": "user", "content": "hi"}]}'))
        with trio.fail_after(5):
            await served.node.cancelled.wait()


async def test_too_many_requests(serving: Serving) -> None:
    """Past the limit: 503 with Retry-After, while health still answers; and room again afterwards."""
    release = trio.Event()

    async def slow(intent: Intent, args: bytes, emit: Emit) -> bytes:
        await release.wait()
        return b"{}"

    async with serving(slow) as served:
        async with trio.open_nursery() as nursery:
            for _ in range(LIMITS.requests):
                nursery.start_soon(served.raw, post(GOOD))
            with trio.fail_after(2):
                while len(served.node.seen) < LIMITS.requests:
                    await trio.testing.wait_all_tasks_blocked(0.01)
            head, body = split(await served.raw(post(GOOD)))
            assert head.startswith(b"HTTP/1.1 503")
            assert b"retry-after: 1" in head
            assert json.loads(body)["error"]["code"] == "overloaded"
            assert await alive(served)
            release.set()
        assert (await served.raw(post(GOOD))).startswith(b"HTTP/1.1 200")


async def test_control_socket_is_private(serving: Serving) -> None:
    """Only the owner may open it, and it is gone when the node has stopped."""
    async with serving() as served:
        path = served.bound.control
        assert (await trio.Path(path).stat()).st_mode & 0o777 == 0o600
        async with await trio.open_unix_socket(path) as stream:
            await stream.send_all(b"GET /v1/admin/status HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n")
            assert (await read_all(stream)).startswith(b"HTTP/1.1 200")
        served.node.stop_requested.set()
        with trio.fail_after(3):
            await served.stopped.wait()
        assert not await trio.Path(path).exists()


def split(answer: bytes) -> tuple[bytes, bytes]:
    head, _, body = answer.partition(b"\r\n\r\n")
    return head, body


async def alive(served: Served) -> bool:
    answer = await served.raw(b"GET /v1/health HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nConnection: close\r\n\r\n"
                              % served.port)
    return answer.startswith(b"HTTP/1.1 200") and b'"atmosphere"' in answer


def memory() -> int:
    gc.collect()
    return int(psutil.Process().memory_info().rss)


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_of_a_request_that_has_come_whole_nothing_more_is_awaited() -> None:
    """A client that keeps its connection says nothing more until it has the refusal."""
    came: list[Message] = [
        {"type": "http.request", "body": b"a", "more_body": True}, {"type": "http.request", "body": b"b"}
    ]

    async def receive() -> Message:
        return came.pop(0)

    gate, incoming = Gate(LIMITS, None), Incoming(receive)
    with pytest.raises(HttpError, match="must be JSON"):
        await gate.read_body(Head(content_type=b"text/plain", content_length=2), incoming)
    await gate.drain(incoming)  # would take another message, which is not there
    assert not came
