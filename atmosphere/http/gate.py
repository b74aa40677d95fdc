"""The gate before every route: who may ask, and how much a request may cost. Works on plain ASGI messages.

A browser is the attacker to think of: any web page that the owner visits can send requests to loopback. So the Host
header must be ours (DNS rebinding), a foreign Origin may not POST, no CORS header is ever sent, and bodies must be
``application/json``, which a page cannot send across origins without a preflight that nobody here grants. On an address
that other machines can reach a request needs an API key besides (``access.py``).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import trio

from atmosphere.http.errors import Answer, HttpError
from atmosphere.http.limits import MIB, Limits

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})
_SAFE = frozenset({"GET", "HEAD"})
_DRAIN_BYTES = 64 * MIB
"""How much of a refused body is thrown away before the connection is closed on it."""
_JSON = (b"content-type", b"application/json")


@dataclass(frozen=True, slots=True)
class Head:
    """The request headers that the gate looks at; the last one counts where a client sends several."""

    host: bytes | None = None
    origin: bytes | None = None
    content_type: bytes = b""
    content_length: int = 0
    authorization: bytes | None = None
    size: int = 0
    """Bytes of the request target and of all names and values."""


def read_head(headers: Iterable[tuple[bytes, bytes]], size: int = 0) -> Head:
    """Pick the headers that matter (names are lower case in ASGI). *size*: bytes of the request line."""
    host = origin = authorization = None
    content_type = b""
    length = 0
    for name, value in headers:
        size += len(name) + len(value)
        if name == b"host":
            host = value
        elif name == b"origin":
            origin = value
        elif name == b"content-type":
            content_type = value
        elif name == b"content-length":
            length = int(value)  # the HTTP parser lets digits through only
        elif name == b"authorization":
            authorization = value
    return Head(host, origin, content_type, length, authorization, size)


class Incoming:
    """What the server receives of one request, message by message."""

    __slots__ = ("_receive", "ended")

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self.ended = False
        """Nothing of the request is left to come."""

    async def __call__(self) -> Message:
        message = await self._receive()
        self.ended = message["type"] == "http.disconnect" or not message.get("more_body", False)
        return message


class Gate:
    """Admission of requests to one listener; holds the counts that its limits bound.

    *hosts*: the names that the Host header may have, None on the control socket (no browser gets there).
    *any_address*: it may also be any IP address, on a listener whose machine others know by addresses that it does not
    know itself (NAT, containers). Rebinding needs a name: a page's address cannot be pointed at another machine.
    """

    def __init__(self, limits: Limits, hosts: frozenset[str] | None, *, any_address: bool = False) -> None:
        self.limits = limits
        self._hosts = hosts
        self._any_address = any_address
        self._known_hosts: dict[bytes, None] = {}
        self.active = 0
        self.held_bytes = 0
        self.refused = 0

    def __repr__(self) -> str:
        return f"<Gate {self.active} requests, {self.held_bytes} body bytes, {self.refused} refused>"

    def check(self, method: str, head: Head) -> None:
        """Raise :class:`HttpError` unless the head of the request is acceptable."""
        if head.size > self.limits.head_bytes:  # the parser applies it to heads that come in several pieces only
            raise HttpError(431, f"the headers are larger than {self.limits.head_bytes} bytes; send fewer headers",
                            "headers_too_large")
        if self._hosts is not None:
            self._check_host(head.host)
            if head.origin is not None and method not in _SAFE:
                self._check_origin(head.origin, _host_name(head.host or b""))
        if head.content_length > self.limits.body_bytes:
            raise self._too_large()

    def enter(self) -> None:
        """Count a request in; raises 503 when there are too many. Pair with :meth:`leave`."""
        if self.active >= self.limits.requests:
            raise self._busy(f"this node works on {self.active} requests already")
        self.active += 1

    def leave(self, held: int) -> None:
        """Count a request out, and the *held* bytes of its body."""
        self.active -= 1
        self.held_bytes -= held

    async def read_body(self, head: Head, receive: Receive) -> bytes:
        """The request body, whole. It counts in ``held_bytes`` until ``leave(len(body))``.

        Raises HttpError: 408 (no progress, or too slow in all), 413, 415, 503 (all bodies together are too many).
        Raises :class:`Gone` when the client has gone.
        """
        limits = self.limits
        chunks: list[bytes] = []
        size = 0
        try:
            end = trio.current_time() + limits.body_total_s
            with trio.CancelScope() as patience:
                more = True
                while more:
                    patience.deadline = min(trio.current_time() + limits.body_idle_s, end)
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise Gone
                    chunk = message.get("body", b"")
                    more = message.get("more_body", False)
                    size += len(chunk)
                    if size > limits.body_bytes:
                        size -= len(chunk)
                        raise self._too_large()
                    self.held_bytes += len(chunk)
                    if self.held_bytes > limits.bodies_bytes:
                        raise self._busy(f"the bodies of running requests exceed {limits.bodies_bytes // MIB} MiB")
                    chunks.append(chunk)
            if patience.cancelled_caught:
                raise HttpError(408, f"the body stopped after {size} bytes; send it within {limits.body_idle_s:g} s "
                                f"of silence and {limits.body_total_s:g} s in all", "request_timeout")
            if size and head.content_type.partition(b";")[0].strip().lower() != b"application/json":
                raise HttpError(415, "the body must be JSON: send the header 'Content-Type: application/json'",
                                "unsupported_media_type")
        except BaseException:
            self.held_bytes -= size
            raise
        return b"".join(chunks)

    async def drain(self, incoming: Incoming) -> None:
        """Throw away what is left of a refused request's body, for a bounded time and size."""
        size = 0
        with trio.move_on_after(self.limits.drain_s):
            while not incoming.ended and size < _DRAIN_BYTES:
                size += len((await incoming()).get("body", b""))

    def _check_host(self, host: bytes | None) -> None:
        if host in self._known_hosts:
            return
        name = _host_name(host or b"")
        if name not in (self._hosts or ()) and not (self._any_address and _is_address(name)):
            more = " or an address of this machine" if self._any_address else ""
            raise HttpError(403, f"the Host header says {name[:100]!r}, which is not this node; "
                            f"use one of {', '.join(sorted(self._hosts or ()))}{more}", "bad_host")
        if host is not None and len(self._known_hosts) < 16:  # the few spellings that clients use
            self._known_hosts[host] = None

    def _check_origin(self, origin: bytes, host: str) -> None:
        try:
            parts = urlsplit(origin.decode("latin-1"))
            name = _host_name(parts.netloc.encode("latin-1"))
        except ValueError:
            name = ""
        if name not in (self._hosts or ()) and not (self._any_address and name == host):
            raise HttpError(403, "a web page of another site may not send requests to this node; "
                            "call it from a program, or from a page that this machine serves", "foreign_origin")

    def _too_large(self) -> HttpError:
        return HttpError(413, f"the body is larger than {self.limits.body_bytes} bytes; send less, "
                         "e.g. smaller pictures", "request_too_large")

    def _busy(self, why: str) -> HttpError:
        return HttpError(503, f"{why}; try again shortly", "overloaded",
                         headers=((b"retry-after", str(self.limits.retry_after_s).encode()),))


class Gone(Exception):
    """The client closed the connection before its request was complete: nobody is left to answer."""


async def send_answer(send: Send, answer: Answer, headers: Iterable[tuple[bytes, bytes]] = ()) -> None:
    """Send a finished answer."""
    length = (b"content-length", b"%d" % len(answer.body))
    await send({"type": "http.response.start", "status": answer.status,
                "headers": [_JSON, length, *answer.headers, *headers]})
    await send({"type": "http.response.body", "body": answer.body})


def _host_name(host: bytes) -> str:
    """The name in a Host header without its port; any port is fine (a tunnel may change it)."""
    text = host.decode("latin-1").strip().lower()
    if text.startswith("["):
        return text.partition("]")[0] + "]"
    return text.partition(":")[0]


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True
