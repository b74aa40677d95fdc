"""HTTP to one backend: a small client over httpcore2's connection pool.

httpcore2 is the lower layer of httpx2. We use it directly: a request through ``httpx2.AsyncClient`` costs about 0.2 ms
of CPU more (measured at 1, 32 and 256 connections: 0.55, 0.52 and 0.93 ms against 0.34, 0.37 and 0.71), for cookies,
redirects, decoding and URL merging that a call to a backend does not need.

Guarantees: cancelling a request closes its connection at once, so that the server sees its client leave; redirects are
not followed and proxies of the environment are not used (a backend is where its owner said it is); no answer is held
in memory beyond ``RESPONSE_MAX_BYTES``.
"""

from __future__ import annotations

import json
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpcore2
import trio

from protocols.call.errors import CallError, Code

CONNECT_TIMEOUT_S = 5.0    # loopback or a LAN; a host that needs longer is not there
READ_TIMEOUT_S = 600.0     # between two reads: a long prompt on a slow machine; also what the OpenAI SDKs allow
WRITE_TIMEOUT_S = 60.0
POOL_TIMEOUT_S = 10.0      # waiting for a connection; the registry's admission lets no more in than there are
MAX_CONNECTIONS = 256
MAX_IDLE = 32              # each costs a descriptor here and a worker at some servers
KEEPALIVE_S = 3.0          # below uvicorn's 5 s: a request must not meet the server's own closing of the connection
RESPONSE_MAX_BYTES = 64 * 1024 * 1024
ERROR_MAX_BYTES = 12 * 1024    # of a backend's error that are kept
DETAILS_MAX_BYTES = 16 * 1024  # of CallError.details on the wire

_RETRYABLE_STATUS = {429, 503}  # "not now": nothing was started
_fresh: ContextVar[bool] = ContextVar("fresh connection")


class UpstreamError(Exception):
    """No complete answer. *started*: the server may have begun to work on the request."""

    def __init__(self, message: str, *, started: bool) -> None:
        super().__init__(message)
        self.started = started

    def as_call_error(self, *, answered: bool) -> CallError:
        """Never started: unavailable. Otherwise backend, and retryable unless a part of the answer was passed on."""
        if self.started:
            return CallError(Code.BACKEND, str(self), retryable=not answered)
        return CallError(Code.UNAVAILABLE, f"{self}; start it or use another node", retryable=True)


@dataclass(frozen=True, slots=True)
class Answer:
    """A complete response."""

    status: int
    headers: dict[bytes, bytes]
    """Names in lower case; the last of repeated ones."""
    body: bytes

    def json(self) -> Any:
        """The parsed body. Raises ValueError."""
        try:
            return json.loads(self.body)
        except RecursionError:
            raise ValueError("it is nested too deeply") from None

    def call_error(self, who: str) -> CallError:
        """This answer, a status other than 200, as the failure of a call."""
        return status_error(who, self.status, self.headers, self.body)


class StreamedAnswer:
    """A response whose head is there. Use inside ``Upstream.stream``."""

    def __init__(self, response: httpcore2.Response, where: str) -> None:
        self.status = response.status
        self.headers = {name.lower(): value for name, value in response.headers}
        self._response = response
        self._pieces: AsyncGenerator[bytes] = response.stream.__aiter__()  # type: ignore[union-attr,assignment]
        self._where = where

    async def next(self) -> bytes | None:
        """The next piece of the body as it arrives; None at its end. Raises :class:`UpstreamError` when it breaks."""
        try:
            return await anext(self._pieces, None)
        except _BROKEN as error:
            raise UpstreamError(f"{self._where}: the stream broke: {_reason(error)}", started=True) from error

    async def read(self, limit: int = RESPONSE_MAX_BYTES) -> bytes:
        """The whole body, at most *limit* bytes."""
        parts: list[bytes] = []
        size = 0
        while (piece := await self.next()) is not None:
            size += len(piece)
            if size > limit:
                raise UpstreamError(f"{self._where} answered with more than {limit} bytes", started=True)
            parts.append(piece)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def aclose(self) -> None:
        """Close the connection unless the whole body was read. Not interrupted by cancellation."""
        with trio.CancelScope(shield=True):
            await self._pieces.aclose()
            await self._response.aclose()


class Upstream:
    """A client of one base URL. Holds idle connections until :meth:`aclose`."""

    def __init__(self, url: str, *, key: str = "", headers: Iterable[tuple[bytes, bytes]] = ()) -> None:
        """*url*: ``http[s]://host[:port][/prefix]``; *key*: sent as a bearer token. Raises ValueError."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise ValueError(f"{url!r} is not a backend's address; expected http://HOST:PORT or https://HOST/PREFIX")
        self.url = url.rstrip("/")
        self._prefix = parts.path.rstrip("/").encode("ascii")
        self._scheme, self._host, self._port = parts.scheme.encode(), parts.hostname.encode("idna"), parts.port
        self._headers = [
            (b"host", parts.netloc.rpartition("@")[2].encode("idna" if not parts.netloc.isascii() else "ascii")),
            (b"accept-encoding", b"identity"),
            (b"user-agent", b"atmosphere-p2p"),
            *headers,
        ]
        if key:
            self._headers.append((b"authorization", b"Bearer " + key.encode()))
        self._pool = httpcore2.AsyncConnectionPool(
            max_connections=MAX_CONNECTIONS,
            max_keepalive_connections=MAX_IDLE,
            keepalive_expiry=KEEPALIVE_S,
            network_backend=_Network(),
        )

    def __repr__(self) -> str:
        return f"<Upstream {self.url} {self._pool!r}>"

    @property
    def connections(self) -> int:
        """Open connections, idle and in use."""
        return len(self._pool.connections)

    async def aclose(self) -> None:
        """Close every connection; requests on them fail."""
        await self._pool.aclose()

    async def get(self, path: str, *, timeout_s: float) -> Answer:
        """GET with a limit on the whole exchange. Raises :class:`UpstreamError`."""
        return await self.exchange(b"GET", path, b"", timeout_s=timeout_s)

    async def post(self, path: str, body: bytes, *, timeout_s: float | None = None) -> Answer:
        """POST JSON bytes and read the whole answer. Raises :class:`UpstreamError`."""
        return await self.exchange(b"POST", path, body, timeout_s=timeout_s)

    async def exchange(self, method: bytes, path: str, body: bytes, *, timeout_s: float | None = None) -> Answer:
        with trio.move_on_after(float("inf") if timeout_s is None else timeout_s):
            async with self._open(method, path, body) as answer:
                return Answer(answer.status, answer.headers, await answer.read())
        raise UpstreamTimeout(f"{self.url} did not answer {path} within {timeout_s} s", started=True)

    @asynccontextmanager
    async def stream(self, path: str, body: bytes) -> AsyncIterator[StreamedAnswer]:
        """POST JSON bytes; the head of the answer is there inside, the body comes through ``next()``.

        Leaving before the body's end, also by cancellation, closes the connection.
        """
        async with self._open(b"POST", path, body) as answer:
            yield answer

    @asynccontextmanager
    async def _open(self, method: bytes, path: str, body: bytes) -> AsyncIterator[StreamedAnswer]:
        answer = StreamedAnswer(await self._send(method, path, body), self.url)
        try:
            yield answer
        finally:
            await answer.aclose()

    async def _send(self, method: bytes, path: str, body: bytes) -> httpcore2.Response:
        headers = self._headers
        if method == b"POST":
            headers = [*headers, (b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        request = httpcore2.Request(
            method,
            httpcore2.URL(
                scheme=self._scheme, host=self._host, port=self._port, target=self._prefix + path.encode("ascii")
            ),
            headers=headers,
            content=body,
            extensions={"timeout": _TIMEOUTS},
        )
        while True:
            _fresh.set(False)
            try:
                return await self._pool.handle_async_request(request)
            except _REFUSED as error:
                raise UpstreamError(f"{self.url} cannot be reached: {_reason(error)}", started=False) from error
            except httpcore2.ReadTimeout as error:
                raise UpstreamTimeout(f"{self.url} did not answer within {READ_TIMEOUT_S} s", started=True) from error
            except _BROKEN as error:
                if _fresh.get() or isinstance(error, httpcore2.TimeoutException):
                    message = f"{self.url} broke the connection before it answered: {_reason(error)}"
                    raise UpstreamError(message, started=True) from error
                # The server closed an idle connection in the moment we chose it. No byte of an answer was received:
                # send it again, until the pool has no old connections left and opens a new one.


class UpstreamTimeout(UpstreamError):
    """The server is silent."""


def status_error(who: str, status: int, headers: dict[bytes, bytes], body: bytes) -> CallError:
    """What an HTTP status other than 200 means for a call; details: ``{"status": ..., "body": ...}``."""
    try:
        parsed: Any = json.loads(body) if len(body) <= ERROR_MAX_BYTES else None
    except (ValueError, RecursionError):
        parsed = None
    text = body[:ERROR_MAX_BYTES // 4].decode("utf-8", "replace")
    details = json.dumps({"status": status, "body": text if parsed is None else parsed}).encode()
    if len(details) > DETAILS_MAX_BYTES:  # escapes make JSON longer than what it says
        details = json.dumps({"status": status, "body": text[:500]}).encode()
    retry_after = headers.get(b"retry-after", b"")
    said = _said(parsed, text)
    if 300 <= status < 400 and b"location" in headers:
        where = headers[b"location"].decode("latin-1")[:200]
        said = f"a redirect to {where!r}, which is not followed; give the address that works"
    return CallError(
        Code.BACKEND,
        f"{who} answered {status}: {said}",
        retryable=status in _RETRYABLE_STATUS,
        retry_after_ms=int(retry_after) * 1000 if retry_after.isdigit() and len(retry_after) < 6 else 0,
        details=details,
    )


def _said(parsed: Any, text: str) -> str:
    """The sentence for people in an error body of OpenAI's, Ollama's or FastAPI's shape."""
    if isinstance(parsed, dict):
        said = parsed.get("error", parsed.get("detail", parsed.get("message")))
        if isinstance(said, dict):
            said = said.get("message")
        if isinstance(said, str):
            return said[:500]
    return text[:500]


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__


_TIMEOUTS = {"connect": CONNECT_TIMEOUT_S, "read": READ_TIMEOUT_S, "write": WRITE_TIMEOUT_S, "pool": POOL_TIMEOUT_S}
_REFUSED = (httpcore2.ConnectError, httpcore2.ConnectTimeout, httpcore2.PoolTimeout)
_BROKEN = (httpcore2.NetworkError, httpcore2.ProtocolError, httpcore2.TimeoutException)


class _OneWrite(httpcore2.AsyncNetworkStream):
    """Holds what is written until something is read, so that a request's head and body leave in one packet.

    httpcore2 writes them separately; one ``send`` less is a fifth of the CPU of a small request.
    """

    def __init__(self, stream: httpcore2.AsyncNetworkStream) -> None:
        self._stream = stream
        self._written: list[bytes] = []
        self._write_timeout: float | None = None

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._written.append(buffer)
        self._write_timeout = timeout

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        if self._written:
            data = b"".join(self._written)
            self._written.clear()
            # A server may refuse early and stop reading: as httpcore2 does, go on to read what it says.
            with suppress(httpcore2.WriteError):
                await self._stream.write(data, self._write_timeout)
        return await self._stream.read(max_bytes, timeout)

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.AsyncNetworkStream:
        return _OneWrite(await self._stream.start_tls(ssl_context, server_hostname, timeout))

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


class _Network(httpcore2.AsyncNetworkBackend):
    """Trio's sockets, and a mark in the calling task that a connection is new."""

    def __init__(self) -> None:
        self._trio = httpcore2.TrioBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        _fresh.set(True)
        return _OneWrite(await self._trio.connect_tcp(host, port, timeout, local_address, socket_options))

    async def sleep(self, seconds: float) -> None:
        await trio.sleep(seconds)
