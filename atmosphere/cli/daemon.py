"""A node as a process: the node and its HTTP in one nursery, signals, the words at the start."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path

import click
import trio

from atmosphere.cli.home import SOCKET, Failure
from atmosphere.config import Config, ConfigError
from atmosphere.embedding import EmbedderError
from atmosphere.http.server import Bound, ServeError, serve
from atmosphere.identity import HomeError, IdentityError
from atmosphere.node import Node, open_node
from atmosphere.store import StoreError, disk_trouble
from transports.errors import ListenError

FIRST_LOOK_S = 0.5
"""How long the words at the start wait for the first look around, so that all is said within two seconds."""
EXPECTED = (ListenError, ServeError, ConfigError, HomeError, IdentityError, StoreError, EmbedderError)
"""What an owner can put right; their texts say how."""
KILLED = 130
"""Exit status after a second Ctrl-C, as shells report SIGINT."""


def run_node(home: Path, config: Config) -> None:
    """Run the node on *home* until it is told to stop.

    Returns after a graceful stop. Raises :class:`Failure` for what its owner can put right; anything else that comes
    out is a defect and keeps its traceback.
    """
    try:
        trio.run(_main, home, config)
    except Exception as error:
        causes = list(_leaves(error))
        if all(isinstance(cause, EXPECTED) or disk_trouble(cause) for cause in causes):
            raise _explain(causes[0]) from error
        raise


def _explain(error: BaseException) -> Failure:
    if isinstance(error, ListenError):
        return Failure(str(error), "stop what listens there, or choose another address with --listen "
                                   "/ip4/0.0.0.0/tcp/PORT (or `port` in config.yaml)")
    why = disk_trouble(error)
    if why:
        return Failure(f"the disk refuses: {why}", "make room, or check who owns the folder")
    return Failure(str(error))


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error


async def _main(home: Path, config: Config) -> None:
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:
            stop = trio.Event()
            nursery.start_soon(_heed, signals, stop)
            await _live(home, config, stop)
            nursery.cancel_scope.cancel()


async def _live(home: Path, config: Config, stop: trio.Event) -> None:
    """The node from its start to its graceful end. HTTP goes first: it lets running requests finish."""
    async with open_node(home, config) as node, trio.open_nursery() as nursery:

        async def pass_on() -> None:
            await stop.wait()
            node.stop_requested.set()

        nursery.start_soon(pass_on)
        async with trio.open_nursery() as services:
            bound = await services.start(partial(serve, node, public=config.http, control=home / SOCKET))
            services.start_soon(_announce, node, bound)
        nursery.cancel_scope.cancel()


async def _heed(signals: AsyncIterator[int], stop: trio.Event) -> None:
    """First signal: stop gracefully. A second Ctrl-C: end now, whatever is running."""
    async for number in signals:
        if stop.is_set() and number == signal.SIGINT:
            os._exit(KILLED)  # no clean-up that could hang: the kernel frees the lock, SQLite survives a kill
        if not stop.is_set():
            click.echo("stopping: running work may finish (Ctrl-C again to end at once)", err=True)
        stop.set()


async def _announce(node: Node, bound: Bound) -> None:
    """Say once what this node is, where it listens, how others get in and what it found; then be quiet."""
    for line in introduction(node, bound.url):
        click.echo(line)
    with trio.move_on_after(FIRST_LOOK_S):
        await node.scanner.settled()
    for line in findings(node):
        click.echo(line)


def introduction(node: Node, url: str) -> Iterator[str]:
    """Who this node is, where it listens, how others get in."""
    yield f"Node {node.name}  {node.peer_id}"
    yield f"Mesh {node.mesh_name}  {node.mesh_id}"
    for address in node.addresses():
        yield f"  listens on  {address}"
    yield f"  OpenAI API  {url}/v1"
    yield "  invite      `atmosphere-p2p invite` prints what `atmosphere-p2p join` takes on another machine"


def findings(node: Node) -> Iterator[str]:
    """What a first look around has shown: model servers on this machine, nodes of the mesh."""
    servers = node.backends()
    for server in servers:
        state = ", ".join(server.models) if server.up else server.reason or "no answer yet"
        yield f"  found       {server.kind} at {server.url}: {state}"
    if not servers:
        looked = "no model server on this machine" if node.config.probe else "no model server, for nobody looked"
        yield f"  found       {looked}; `atmosphere-p2p backend add URL` names one"
    others = [view.name for view in node.status().nodes if view.path != "local" and view.state == "online"]
    yield f"  nodes       {', '.join(others) or 'none other yet'}"
