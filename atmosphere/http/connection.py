"""One client's connection: Hypercorn's Trio connection, HTTP/1.1 only, with what it lacks for a node (0.18.0, 2026-11).

- A refused request line or header gets a JSON body with the reason; Hypercorn's is empty.
- No upgrade to cleartext HTTP/2 and no HTTP/2 preface: nothing on loopback needs them, and they would pass the limits
  of ``limits.py`` by.
- A client that has closed is gone at once. Hypercorn keeps its socket until the keep-alive time is over.
- A client that stops reading is cut off after ``write_s``. Hypercorn's writes are shielded and wait for ever, through
  a shutdown too.
- The idle timer is one task per connection, not one per request; the head of an answer leaves with its first bytes;
  an uncontended write does not go through the scheduler for its lock. Together about a fifth of the CPU per request.
"""

from __future__ import annotations

import contextlib
import math
from typing import Any

import h11
import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.trio.task_group import TaskGroup
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState, H11SendableEvent

from atmosphere.http.errors import envelope
from atmosphere.http.limits import Limits


class Connection(TCPServer):
    """Serves one client until it or the server closes."""

    def __init__(self, app: ASGIWrapper, config: Config, context: WorkerContext, stream: trio.SocketStream,
                 limits: Limits) -> None:
        super().__init__(app, config, context, ConnectionState({}), stream)  # type: ignore[arg-type]
        self.client = self._client()
        self._limits = limits
        self._idle = trio.CancelScope()
        self._closing = False

    def __repr__(self) -> str:
        return f"<Connection {'closing' if self._closing else 'open'} idle={self._idle.deadline != math.inf}>"

    def abort(self) -> None:
        """Close the socket under everything that still uses it."""
        self.stream.socket.close()

    async def run(self) -> None:
        """Serve; returns when the connection is closed and its requests are over."""
        try:
            async with TaskGroup() as task_group:
                self._task_group = task_group
                self.protocol = _Http1(  # type: ignore[assignment]
                    self.app, self.config, self.context, task_group, self.state, False, self.client, None,
                    self.protocol_send, limits=self._limits)
                self._set_idle(True)
                task_group.spawn(self._watch_idle)
                await self._read_data()
                self._set_idle(False)
                self._idle.cancel()
        except OSError:
            return
        finally:
            await self._close()

    def _client(self) -> tuple[str, int] | None:
        """Address and port of the other end; None on a unix socket, and where it has gone already."""
        try:
            name = self.stream.socket.getpeername()
        except OSError:
            return None
        return (name[0], name[1]) if isinstance(name, tuple) else None

    async def protocol_send(self, event: Event) -> None:
        """What the protocol wants done: bytes out, close, or a change between busy and idle."""
        if isinstance(event, RawData):
            if event.data:
                await self._write(event.data)
        elif isinstance(event, Closed):
            await self._close()
            await self.protocol.handle(Closed())
        elif isinstance(event, Updated):
            self._set_idle(event.idle)

    async def _write(self, data: bytes) -> None:
        lock = self.send_lock
        try:
            lock.acquire_nowait()
        except trio.WouldBlock:
            await lock.acquire()
        try:
            if self._closing:
                return  # nobody reads this any more; the request learns it from its disconnect message
            # shielded: half an answer must not be followed by another one's bytes
            with trio.move_on_after(self._limits.write_s, shield=True) as patience:
                await self.stream.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError, trio.BusyResourceError):
            broken = True  # busy: the connection is being closed at this moment
        else:
            broken = patience.cancelled_caught
        finally:
            lock.release()
        if broken:
            self.abort()
            await self.protocol.handle(Closed())

    async def _close(self) -> None:
        self._closing = True
        self._idle.cancel()
        with trio.CancelScope(shield=True):
            with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError, trio.BusyResourceError):
                await self.stream.send_eof()
            await self.stream.aclose()

    def _set_idle(self, idle: bool) -> None:
        self._idle.deadline = trio.current_time() + self._limits.keep_alive_s if idle else math.inf

    async def _watch_idle(self) -> None:
        """Close the connection when it has been idle for too long, or at once when the server stops."""
        with self._idle:
            await self.context.terminated.wait()
            if self._idle.deadline == math.inf:
                return  # busy: the protocol closes after the answer
        if not self._closing:
            await self._close()


class _Http1(H11Protocol):
    """HTTP/1.1 and nothing that it could be upgraded to."""

    def __init__(self, *args: Any, limits: Limits) -> None:
        super().__init__(*args)
        self._limits = limits
        self._head = b""

    async def _check_protocol(self, event: h11.Request) -> None:
        """Ignore offers to upgrade: the answer is HTTP/1.1, as RFC 9110 section 7.8 allows."""

    async def _send_h11_event(self, event: H11SendableEvent) -> None:
        """Send *event*; the head of an answer is kept back until its first bytes, or its end, are there."""
        try:
            data = self.connection.send(event) or b""
        except h11.LocalProtocolError:
            if self.connection.their_state != h11.ERROR:
                raise
            return  # refused already, for what came after the request
        if isinstance(event, h11.Response):
            self._head = data
            return
        if self._head:
            data, self._head = self._head + data, b""
        await self.send(RawData(data=data))

    async def _send_error_response(self, status_code: int) -> None:
        message = {
            431: f"the request line and headers are larger than {self._limits.head_bytes} bytes; send fewer headers",
        }.get(status_code, "this is not an HTTP/1.1 request: its request line, a header or its framing is malformed")
        body = envelope(status_code, message, "malformed_request")
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body)),
                   (b"connection", b"close"), *self.config.response_headers("h11")]
        await self._send_h11_event(h11.Response(status_code=status_code, headers=headers))
        await self._send_h11_event(h11.Data(data=body))
        await self._send_h11_event(h11.EndOfMessage())
