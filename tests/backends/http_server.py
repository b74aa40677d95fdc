"""A small HTTP/1.1 server on Trio and h11 for the stand-ins: handlers are cancelled when their client disconnects."""

from __future__ import annotations

import argparse
import json
import signal
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import h11
import trio


@dataclass
class Log:
    """What the server saw; ``GET /_log`` returns it as JSON."""

    requests: list[dict[str, Any]] = field(default_factory=list)
    """method, path, headers, body (parsed JSON or None) of every request but those to /_log and model listings."""
    polls: int = 0
    """Model listings and other probing."""
    generated: int = 0
    """Tokens produced so far, over all requests."""
    disconnects: int = 0
    """Clients that left before their answer was complete."""
    running: int = 0
    connections: int = 0


@dataclass
class Request:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        try:
            return json.loads(self.body)
        except ValueError:
            return None


class BreakConnection(Exception):
    """The handler wants the connection closed in the middle of its answer."""


class Reply:
    """The answer to one request."""

    def __init__(self, stream: trio.SocketStream, connection: h11.Connection) -> None:
        self._stream, self._connection = stream, connection

    async def _send(self, event: h11.Event) -> None:
        data = self._connection.send(event)
        if data:
            await self._stream.send_all(data)

    async def start(self, status: int, content_type: str, headers: dict[str, str] | None = None) -> None:
        names = {"content-type": content_type, "transfer-encoding": "chunked", **(headers or {})}
        await self._send(h11.Response(status_code=status, headers=list(names.items())))

    async def send(self, data: bytes) -> None:
        await self._send(h11.Data(data=data))

    async def end(self) -> None:
        await self._send(h11.EndOfMessage())

    async def json(self, value: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        await self.bytes(json.dumps(value).encode(), status, "application/json", headers)

    async def bytes(
        self, body: bytes, status: int = 200, content_type: str = "text/plain", headers: dict[str, str] | None = None
    ) -> None:
        names = {"content-type": content_type, "content-length": str(len(body)), **(headers or {})}
        await self._send(h11.Response(status_code=status, headers=list(names.items())))
        if body:
            await self._send(h11.Data(data=body))
        await self.end()


Handler = Callable[[Request, Reply, Log], Awaitable[None]]


async def serve(
    handler: Handler, log: Log, port: int = 0, *, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED
) -> None:
    """Serve on 127.0.0.1 until cancelled; reports the port once it listens."""

    async def connection(stream: trio.SocketStream) -> None:
        log.connections += 1
        try:
            async with stream:
                await _connection(stream, handler, log)
        except (trio.BrokenResourceError, h11.RemoteProtocolError):
            pass  # the client left
        finally:
            log.connections -= 1

    listeners = await trio.open_tcp_listeners(port, host="127.0.0.1")
    task_status.started(listeners[0].socket.getsockname()[1])
    await trio.serve_listeners(connection, listeners)


async def _connection(stream: trio.SocketStream, handler: Handler, log: Log) -> None:
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    while (request := await _request(stream, connection)) is not None:
        if request.path == "/_log":
            await Reply(stream, connection).json(asdict(log))
        else:
            await _handle(stream, connection, request, handler, log)
        if connection.our_state is not h11.DONE or connection.their_state is not h11.DONE:
            return
        connection.start_next_cycle()


async def _handle(
    stream: trio.SocketStream, connection: h11.Connection, request: Request, handler: Handler, log: Log
) -> None:
    async with trio.open_nursery() as nursery:

        async def watch() -> None:
            try:
                data = await stream.receive_some(65536)
            except trio.BrokenResourceError:
                data = b""
            connection.receive_data(data)
            if not data:
                log.disconnects += 1
                nursery.cancel_scope.cancel()

        nursery.start_soon(watch)
        log.running += 1
        try:
            await handler(request, Reply(stream, connection), log)
        except (BreakConnection, trio.BrokenResourceError):
            pass  # an unfinished answer: the caller of this closes the connection
        finally:
            log.running -= 1
        nursery.cancel_scope.cancel()


async def _request(stream: trio.SocketStream, connection: h11.Connection) -> Request | None:
    head: h11.Request | None = None
    body: list[bytes] = []
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await stream.receive_some(65536))
        elif isinstance(event, h11.Request):
            head = event
        elif isinstance(event, h11.Data):
            body.append(bytes(event.data))
        elif isinstance(event, h11.EndOfMessage):
            assert head is not None
            headers = {name.decode(): value.decode() for name, value in head.headers}
            return Request(head.method.decode(), head.target.decode(), headers, b"".join(body))
        else:
            return None  # the client closed the connection


def note(log: Log, request: Request) -> None:
    """Keep *request* for assertions."""
    log.requests.append(
        {"method": request.method, "path": request.path, "headers": request.headers, "body": request.json()}
    )


def run(handler_of: Callable[[argparse.Namespace], Handler], parser: argparse.ArgumentParser) -> None:
    """The process: parse arguments, print one line when listening, serve until SIGTERM."""
    parser.add_argument("--port", type=int, default=0, help="0: the system chooses; the printed line says which")
    options = parser.parse_args()

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
                port = await nursery.start(serve, handler_of(options), Log(), options.port)
                print(f"listening on http://127.0.0.1:{port}", flush=True)
                async for _ in signals:
                    nursery.cancel_scope.cancel()
                    return

    trio.run(main)
