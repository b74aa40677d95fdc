"""From a home folder to a running node and back: how the parts are wired, in which order they start and stop."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, closing
from functools import partial
from pathlib import Path

import trio

from atmosphere import __version__
from atmosphere.config import Config
from atmosphere.cost import Machine
from atmosphere.cost.machine import SystemMachine
from atmosphere.embedding import Embedder, load_embedder
from atmosphere.env import Env, SystemEnv
from atmosphere.identity import Keyring
from atmosphere.identity.identity import MEMBERSHIP_S
from atmosphere.mesh.detector_settings import PRESETS
from atmosphere.mesh.service import Mesh
from atmosphere.node.node import Node, Parts
from atmosphere.node.serving import Serving
from atmosphere.routing.arbiter import Arbiter, Deciders, settings_of
from atmosphere.routing.kept import KeptVectors
from atmosphere.routing.vectorizer import Vectorizer
from atmosphere.store import Store
from atmosphere.work.deciding import MeshDecisions
from atmosphere.work.dispatcher import Dispatcher
from atmosphere.work.plans.permission import PlanPermission
from atmosphere.work.plans.runner import PlanRunner
from atmosphere.work.remote import MeshCalls
from protocols.call.client import CallClient
from protocols.call.messages import PROTOCOL as CALL
from protocols.call.server import CallServer
from protocols.join.messages import PROTOCOL as JOIN
from transports.addresses import split_peer
from transports.config import HostConfig
from transports.dialer import Dialer
from transports.host import Host, open_host
from transports.mdns import announce_and_browse
from transports.peer_id import PeerId

GOODBYE_S = 0.3
"""For the goodbye to leave before the connections close."""

OpenHost = Callable[[HostConfig, bytes], AbstractAsyncContextManager[Host]]
"""Runs a host of a node key's seed: :func:`transports.host.open_host`, or over a network in memory."""


def host_config(config: Config, epoch: int) -> HostConfig:
    """The host's settings from the node's."""
    listen = config.listen or (
        f"/ip4/0.0.0.0/tcp/{config.port}",
        f"/ip4/0.0.0.0/tcp/{config.port + 1 if config.port else 0}/ws",
    )
    return HostConfig(listen=listen, gossip_epoch=epoch)


@asynccontextmanager
async def open_node(
    home: Path,
    config: Config,
    *,
    env: Env | None = None,
    embedder: Callable[[], Embedder] | None = None,
    machine: Machine | None = None,
) -> AsyncIterator[Node]:
    """Run the node of *home* for the length of the block.

    *home* must hold keys and a membership. *embedder*: loads the embedding model (in a thread); None: that of the
    config. *machine*: what is read to know what work costs here; None: this one. On exit the mesh is told goodbye,
    work for others may finish within the grace period, then everything ends. Raises HomeError, IdentityError,
    StoreError, ListenError, EmbedderError.
    """
    env = env or SystemEnv()
    keyring = Keyring(home)
    keyring.load()  # before anything is made in a home that has no mesh
    with closing(Store(home / "node.db", env)) as store:
        here = (machine or SystemMachine(env.monotonic)) if config.cost.measure else None
        model = await env.run_blocking(embedder or partial(load_embedder, config.embedder))
        parts = Parts(keyring, store, model, machine=here)
        async with run_node(parts, config, env) as node:
            yield node


@asynccontextmanager
async def run_node(parts: Parts, config: Config, env: Env, *, open_host: OpenHost = open_host) -> AsyncIterator[Node]:
    """As :func:`open_node`, of *parts* that may be in memory, over the network that *open_host* brings."""
    async with AsyncExitStack() as stack:
        node = Node(parts, config, env)
        settings = host_config(config, node.announcer.epoch)
        host = await stack.enter_async_context(open_host(settings, node.identity.seed))
        nursery = await stack.enter_async_context(trio.open_nursery())
        stack.callback(nursery.cancel_scope.cancel)
        await _start(node, host, nursery)
        stack.push_async_callback(_farewell, node)
        yield node


async def _start(node: Node, host: Host, nursery: trio.Nursery) -> None:
    env, config = node.env, node.config
    dialer = Dialer(host, jitter=env.random.random)
    _wire(node, host, dialer, nursery)
    await node.refresh_builtin()
    nursery.start_soon(node.client.run)
    node.tell_offer()  # before the first beacon, which names it
    await nursery.start(node.mesh.run)
    host.handle(CALL, node.calls.serve)
    host.handle(JOIN, node.standing.serve_join, public=True)
    nursery.start_soon(node.audit.run)
    nursery.start_soon(node.standing.renewal.run)
    nursery.start_soon(node.vectorizer.run)
    nursery.start_soon(node.learnt.run)
    nursery.start_soon(env.run_blocking, node.router.triage.learn)
    nursery.start_soon(node.cost.run)
    nursery.start_soon(node.keep_offer)
    nursery.start_soon(node.scanner.run)
    await nursery.start(node.plans.run)
    nursery.start_soon(node.refresh_knowledge)
    nursery.start_soon(dialer.run)
    known = [split_peer(address) for address in config.bootstrap]
    host.expect_members([address for _, address in known])  # a flood must not keep them out after a restart
    for peer, address in known:
        dialer.want(peer, (address,), forever=True)
    nursery.start_soon(node.mesh.settle, {peer for peer, _ in known} - {node.peer_id})
    if config.mdns:
        nursery.start_soon(_find_on_lan, node, host, dialer)


def _wire(node: Node, host: Host, dialer: Dialer, nursery: trio.Nursery) -> None:
    """Make the parts that need a host, and tell each what it has to know of the others."""
    env, config = node.env, node.config
    node.host = host
    node.mesh = Mesh(
        host,
        dialer,
        lambda: node.identity,
        node.announcer,
        node.table,
        node.store,
        env,
        agent=f"atmosphere-p2p/{__version__}",
        detector=PRESETS[config.network](),
        on_card=lambda card_id, card: node.vectorizer.card(card_id, card),
        on_vector=lambda vector: node.vectorizer.fetched(vector),
        on_trust=node.standing.heard,
        on_expelled=node.standing.expelled,
        on_pruned=lambda: node.router.vectors.keep(node.table.cards),
        degree=config.neighbours,
        membership_s=max(config.membership_s, MEMBERSHIP_S),
    )
    node.vectorizer = Vectorizer(
        node.router.vectors,
        node.embedder,
        env,
        want=lambda card_id: node.mesh.want_vector(card_id, node.router.vectors.space),
        give=node.mesh.give_vector,
        kept=KeptVectors(node.store, env, node.embedder.space) if node.store.lasting else None,
    )
    node.client = CallClient(lambda peer: node.mesh.open_stream(peer, CALL))
    remote = MeshCalls(node.client, node.table, env)
    node.dispatcher = Dispatcher(
        node.router,
        node.table,
        node.registry.serve,
        remote,
        env,
        nursery,
        node.mesh.settled,
        on_failed=node.mesh.watch.failed,
    )
    decisions = MeshDecisions(node.dispatcher, node.router, env)
    node.router.arbiter = Arbiter(decisions, Deciders(node.table), env.monotonic, settings_of(config.routing))
    permission = PlanPermission(node.router, node.api_keys, node.audit)
    node.plans = PlanRunner(node.dispatcher.unit, node.store, env, permission)
    serving = Serving(node.registry, node.mesh, node.audit, env)
    node.calls = CallServer(serving.serve, load=serving.load)
    node.standing.connect(host, node.mesh)
    node.registry.on_load = node.mesh.load_moved


async def _find_on_lan(node: Node, host: Host, dialer: Dialer) -> None:
    """Announce this node on the LAN and connect to those of its mesh; their membership is checked as everybody's."""

    def found(peer: PeerId, addresses: tuple[str, ...]) -> None:
        dialer.want(peer, addresses, forever=False)

    async with announce_and_browse(host.peer_id, lambda: host.addresses, node.mesh_id, found):
        await trio.sleep_forever()


async def _farewell(node: Node) -> None:
    """Tell the mesh, so that nobody sends new work; let what runs for others finish within the grace period."""
    with trio.move_on_after(node.config.grace_s + GOODBYE_S) as scope:
        scope.shield = True
        await node.mesh.say_goodbye()
        await trio.sleep(GOODBYE_S)
        await node.calls.drain()
