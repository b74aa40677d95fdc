"""Serving a node's HTTP: the public address for programs, ``control.sock`` for the owner's commands."""

from __future__ import annotations

import errno
import ipaddress
import logging
import socket
import stat
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config as HypercornConfig
from hypercorn.trio.worker_context import WorkerContext

from atmosphere.http.access import Access
from atmosphere.http.app import HttpApp, create_app
from atmosphere.http.connection import Connection
from atmosphere.http.gate import LOOPBACK_NAMES, Gate
from atmosphere.http.limits import Limits
from atmosphere.http.port import HttpNode

log = logging.getLogger(__name__)

CONTROL = "control.sock"
LAST_WORDS_S = 1.5
"""After the grace period: how long cancelled requests may take to say that they were cancelled."""
_BACKLOG = 128
_MAX_UNIX_PATH = 107
"""Bytes that a socket's path may have on Linux, without its closing zero."""


class ServeError(Exception):
    """The HTTP interface cannot start; the message says why and which option changes it."""


@dataclass(frozen=True, slots=True)
class Bound:
    """Where the server listens."""

    url: str
    control: Path


async def serve(node: HttpNode, *, public: str, control: Path, limits: Limits | None = None,
                task_status: trio.TaskStatus[Bound] = trio.TASK_STATUS_IGNORED) -> None:
    """Serve *node* on *public* (``ADDRESS:PORT``; port 0: any) and on the unix socket *control*.

    On an address that is not loopback every request needs an API key, and there must be one.
    Reports :class:`Bound` when both accept. Returns after ``node.stop_requested``: nothing new is accepted, running
    requests finish within ``config.grace_s`` and are cancelled then, streams with an error as their last event.
    Raises :class:`ServeError` before anything is served.
    """
    limits = limits or Limits()
    host, port = _address(public)
    private = ipaddress.ip_address(host).is_loopback
    if not private and not node.api_keys.any:
        raise ServeError(f"--http {public}: other machines can reach this address, so requests need an API key, and "
                         "there is none: make one with `atmosphere-p2p keys add NAME`, or use 127.0.0.1:PORT")
    tcp = _bind_tcp(host, port)
    try:
        owner = _bind_control(control)
    except ServeError:
        tcp.close()
        raise
    name = f"[{host}]" if ":" in host else host
    url = f"http://{name}:{tcp.getsockname()[1]}"
    server = _Server(limits)
    try:
        async with trio.open_nursery() as connections:
            async with trio.open_nursery() as listening:
                gate = Gate(limits, LOOPBACK_NAMES | {name} | (frozenset() if private else _own_names()),
                            any_address=not private)
                access = Access(node.api_keys, node.audit, required=not private)
                each = None if private else limits.connections_per_address
                await listening.start(server.listen, tcp, create_app(node, gate, access), connections, each)
                await listening.start(server.listen, owner, create_app(node, Gate(limits, None)), connections, None)
                if not private:
                    log.warning("HTTP on %s is not encrypted: keys and requests can be read on the way", url)
                task_status.started(Bound(url, control))
                await node.stop_requested.wait()
                listening.cancel_scope.cancel()
            await server.finish(node.config.grace_s, connections.cancel_scope)
    finally:
        server.abort()
        _remove(control)


class _Listener(trio.abc.Listener[trio.SocketStream]):
    """Accepts while there is a free slot; who serves a connection gives its slot back.

    *per_address*: connections that one address may have; None: any number.
    """

    def __init__(self, sock: socket.socket, slots: int, per_address: int | None) -> None:
        sock.listen(_BACKLOG)
        self._listener = trio.SocketListener(trio.socket.from_stdlib_socket(sock))
        self._per_address = per_address
        self._addresses: Counter[str] = Counter()
        self.slots = trio.Semaphore(slots)

    @contextmanager
    def counted(self, connection: Connection) -> Iterator[bool]:
        """Whether there is room for one more connection from that address; counts it for the block."""
        address = connection.client[0] if connection.client else ""
        if self._per_address is None or not address:
            yield True
            return
        self._addresses[address] += 1
        try:
            yield self._addresses[address] <= self._per_address
        finally:
            self._addresses[address] -= 1
            if not self._addresses[address]:
                del self._addresses[address]

    async def accept(self) -> trio.SocketStream:
        await self.slots.acquire()
        try:
            return await self._listener.accept()
        except BaseException:
            self.slots.release()
            raise

    async def aclose(self) -> None:
        await self._listener.aclose()


class _Server:
    """The open connections of both listeners."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._context = WorkerContext(None)
        self._config = _hypercorn(limits)
        self._open: set[Connection] = set()
        self._none_open = trio.Event()
        self._none_open.set()

    def __repr__(self) -> str:
        return f"<_Server {len(self._open)} connections>"

    async def listen(self, sock: socket.socket, app: HttpApp, connections: trio.Nursery, per_address: int | None, *,
                     task_status: trio.TaskStatus[Any] = trio.TASK_STATUS_IGNORED) -> None:
        """Accept clients of *app* on *sock*; each is served in *connections*, so that it outlives the listener."""
        listener = _Listener(sock, self._limits.connections, per_address)
        await trio.serve_listeners(partial(self._serve, ASGIWrapper(app), listener), [listener],
                                   handler_nursery=connections, task_status=task_status)

    async def _serve(self, app: ASGIWrapper, listener: _Listener, stream: trio.SocketStream) -> None:
        connection = Connection(app, self._config, self._context, stream, self._limits)
        if not self._open:
            self._none_open = trio.Event()
        self._open.add(connection)
        try:
            with listener.counted(connection) as welcome:
                if welcome:
                    await connection.run()
                else:
                    connection.abort()
        except Exception:  # one client's connection must not end the node
            log.exception("connection failed")
        finally:
            self._open.discard(connection)
            if not self._open:
                self._none_open.set()
            listener.slots.release()

    async def finish(self, grace_s: float, everything: trio.CancelScope) -> None:
        """Let running requests end, then end them."""
        await self._context.terminated.set()
        with trio.move_on_after(grace_s):
            await self._none_open.wait()
        everything.cancel()
        with trio.move_on_after(LAST_WORDS_S, shield=True):
            await self._none_open.wait()
        self.abort()

    def abort(self) -> None:
        """Close what is still open."""
        for connection in self._open:
            connection.abort()


def _hypercorn(limits: Limits) -> HypercornConfig:
    config = HypercornConfig()
    config.accesslog = None  # costs more than the request, and says what people asked
    config.errorlog = log
    config.include_server_header = False
    config.h11_max_incomplete_size = limits.head_bytes
    config.keep_alive_max_requests = 1_000_000  # a connection is no worse for its age; the default of 1000 cuts it
    return config


def _own_names() -> frozenset[str]:
    """What this machine is called on its network."""
    name = socket.gethostname().lower()
    return frozenset({name, f"{name.partition('.')[0]}.local"})


def _address(public: str) -> tuple[str, int]:
    """Address and port of ``ADDRESS:PORT``; ``localhost`` is 127.0.0.1. Raises ServeError."""
    host, _, port_text = public.rpartition(":")
    host = host.strip("[]")
    if not port_text.isdecimal() or int(port_text) > 65535 or not host:
        raise ServeError(f"--http {public!r} is not HOST:PORT, for instance 127.0.0.1:11451")
    if host == "localhost":
        host = "127.0.0.1"
    try:
        ipaddress.ip_address(host)
    except ValueError:
        raise ServeError(f"--http {public}: {host} is not an address of this machine; use one as a number, for "
                         "instance 127.0.0.1:PORT, or 0.0.0.0:PORT for all of them") from None
    return host, int(port_text)


def _bind_tcp(host: str, port: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # accepted sockets inherit it: tokens leave at once
    try:
        sock.bind((host, port))
    except OSError as error:
        sock.close()
        if error.errno == errno.EADDRINUSE:
            raise ServeError(f"port {port} on {host} is in use: stop the program that has it, or choose another "
                             f"with --http {host}:PORT") from error
        raise ServeError(f"--http {host}:{port} cannot be used: {error.strerror}; choose another with "
                         "--http 127.0.0.1:PORT") from error
    sock.setblocking(False)
    return sock


def _bind_control(path: Path) -> socket.socket:
    """The control socket, mode 0600. A socket file that nobody answers on is left over from a crash and removed."""
    if len(bytes(path)) > _MAX_UNIX_PATH:
        raise ServeError(f"the path {path} is longer than {_MAX_UNIX_PATH} bytes, which a unix socket cannot have; "
                         "use a shorter --home")
    _remove_stale(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind(str(path))
        path.chmod(0o600)  # before listen(): until then nobody can connect, whatever the mode
    except OSError as error:
        sock.close()
        raise ServeError(f"the control socket {path} cannot be made: {error.strerror}; "
                         "check the folder or use another --home") from error
    sock.setblocking(False)
    return sock


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)


def _remove_stale(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise ServeError(f"{path} is in the way and is not a socket: move it, or use another --home")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
        except BlockingIOError:  # its queue is full: somebody is there
            pass
    raise ServeError(f"a node is running on this home already: it answers on {path}; "
                     "stop it with `atmosphere-p2p stop` or use another --home")
