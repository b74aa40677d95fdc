"""A mesh of real nodes in one process: the production :class:`Node`, its surroundings in memory.

Of each node the home folder, the database's file, the embedding model, the backends and the network are in-memory
twins; nothing else. The links are a random graph in which every node has *degree*; nodes add their own when they have
lost some. Tables start whole (:func:`acquaint`): what the nodes have to say of themselves is given to all of them
through the door that anti-entropy uses, before the first link is there.
"""

from __future__ import annotations

import gc
import random  # noqa: TID251  # type only; generators come from the virtual world
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from math import inf

import trio

from atmosphere.capabilities.adapters import adapter_kinds
from atmosphere.config import Config
from atmosphere.embedding import HashEmbedder
from atmosphere.env import Env
from atmosphere.identity import Identity, MemoryKeyring
from atmosphere.node import Node, Parts, run_node
from atmosphere.store import Store
from simulations import pages
from simulations.acquaint import acquaint
from simulations.metrics import Meter
from simulations.progress import Progress, silent
from simulations.twins import Worker, card_about, identities
from simulations.virtual import Virtual, cpu_s
from transports.config import HostConfig
from transports.host import Host, open_host
from transports.memory import MemoryNetwork, latencies_between, open_network
from transports.peer_id import PeerId

LISTEN = ("/ip4/0.0.0.0/tcp/4001",)
LATENCY_S = (0.02, 0.1)
"""One way, of each link: from the same country to the next continent."""
DEGREE = 8
KINDS_OF_WORK = 8
"""Different cards in the mesh at the start; each node offers one of them."""
SPARE_LINKS = 2
"""A node that has lost more than these looks for others."""
FIRST_WORDS_S = 0.05
"""After their start nodes have said what they offer, to nobody: there are no links."""
DIAL_WITHIN_S = 0.1
"""Links are dialled at times spread over so long: before the nodes, a second old, look for neighbours themselves."""
READY_WITHIN_S = 60.0
LOOK_EVERY_S = 0.1

adapter_kinds()  # what they import must be there before the virtual world puts its stand-ins in place


@dataclass(eq=False)
class Member:
    """A node's place in the world; the node itself runs from :meth:`World.start` to :meth:`World.stop`."""

    number: int
    identity: Identity
    env: Env
    worker: Worker
    neighbours: set[int] = field(default_factory=set)
    scope: trio.CancelScope | None = None
    stopping: trio.Event = field(default_factory=trio.Event)
    """It is to end in good order, as its process would at SIGTERM."""
    running: Node | None = None
    store: Store | None = None
    """Its disk: it outlives the process, so a node that runs again knows how often it has."""

    def __repr__(self) -> str:
        return f"<Member {self.number}, {'runs' if self.running else 'does not run'}>"

    @property
    def node(self) -> Node:
        assert self.running is not None, f"node {self.number} does not run"
        return self.running

    @property
    def peer(self) -> PeerId:
        return self.identity.peer_id


class World:
    """Members by number, the network between them, and the meter. Made by :func:`open_world`."""

    def __init__(
        self, virtual: Virtual, network: MemoryNetwork, members: Sequence[Member], few: int, nursery: trio.Nursery
    ) -> None:
        """*few*: a node with fewer links makes new ones."""
        self.virtual = virtual
        self.network = network
        self.members = tuple(members)
        self.few = few
        self.meter = Meter(virtual.trace.note)
        self.build_cpu_s: dict[str, float] = {}
        """What each step of the building took."""
        self.number_of = {member.peer: member.number for member in members}
        self._nursery = nursery
        self._embedder = HashEmbedder()

    def __repr__(self) -> str:
        return f"<World of {len(self.members)} nodes, {len(self.running)} run>"

    @property
    def degree(self) -> float:
        """Links of a running node, on average."""
        running = self.running
        return sum(len(member.node.host.connections()) for member in running) / len(running)

    @property
    def running(self) -> list[Member]:
        return [member for member in self.members if member.running is not None]

    # Nodes --------------------------------------------------------------------------------------------------------

    async def start(self, member: Member) -> None:
        """Run the node of *member*; it has no links yet."""
        await self._nursery.start(self._live, member)

    async def stop(self, member: Member) -> None:
        """End the node of *member* as `atmosphere-p2p stop` does. After a kill: what is left of it."""
        member.stopping.set()
        await until(lambda: member.running is None)

    def crash(self, member: Member, silent: bool) -> None:
        """Kill the process of *member* (its connections are reset), or *silent*: turn its machine off."""
        assert member.scope is not None
        self.network.kill(member.peer, silent)
        member.running = None
        member.scope.cancel()

    async def _live(self, member: Member, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        @asynccontextmanager
        async def opened(settings: HostConfig, seed: bytes) -> AsyncIterator[Host]:
            async with self._open_host(settings, seed) as host:
                host.gossip = self.meter.attach(member.number, host.peer_id, host.gossip)
                yield host

        member.store = store = member.store or Store.memory(member.env)
        member.stopping = trio.Event()
        parts = Parts(MemoryKeyring(member.identity), store, self._embedder, (member.worker,))
        try:
            with trio.CancelScope() as member.scope:
                async with run_node(parts, self._settings(member), member.env, open_host=opened) as member.running:
                    task_status.started()
                    await member.stopping.wait()
        finally:
            member.running = None
            if self._nursery.cancel_scope.cancel_called:  # the world ends
                store.close()

    def _settings(self, member: Member) -> Config:
        return Config(listen=LISTEN, mdns=False, probe=False, grace_s=0.0, neighbours=self.few)

    def _open_host(self, settings: HostConfig, seed: bytes) -> AbstractAsyncContextManager[Host]:
        return open_host(settings, seed, self.network)

    # Links --------------------------------------------------------------------------------------------------------

    async def link_all(self, progress: Progress = silent) -> None:
        """Dial every link of the topology, each from its lower end; returns when all have greeted each other."""
        draw = self.virtual.random("dials").random
        links, made = sum(len(member.neighbours) for member in self.members) // 2, 0

        async def link(member: Member, other: Member, after_s: float) -> None:
            nonlocal made
            await self._link(member, other, after_s)
            made += 1
            progress("linking them", made / links)

        for member in self.members:
            member.node.host.expect_members([self.network.address(self.members[n].peer) for n in member.neighbours])
        async with trio.open_nursery() as nursery:
            for member in self.members:
                for number in sorted(n for n in member.neighbours if n > member.number):
                    nursery.start_soon(link, member, self.members[number], draw() * DIAL_WITHIN_S)
        if not await until(lambda: all(self._is_linked(member) for member in self.members), READY_WITHIN_S):
            raise RuntimeError(f"the links are not all there after {READY_WITHIN_S:g} s of virtual time")

    async def _link(self, member: Member, other: Member, after_s: float) -> None:
        await trio.sleep(after_s)
        await member.node.host.connect(other.peer, (self.network.address(other.peer),))

    def _is_linked(self, member: Member) -> bool:
        return {self.number_of[peer] for peer in member.node.mesh.neighbours.ready()} >= member.neighbours

    # What is known ------------------------------------------------------------------------------------------------

    def knows(self, member: Member, other: Member) -> bool:
        """Whether *member* could send work to *other* now."""
        found = member.node.table.nodes.get(other.peer)
        return found is not None and found.usable

    def tables_are_whole(self) -> bool:
        """Whether every running node could send work to every running node."""
        running = self.running
        return all(self.knows(member, other) for member in running for other in running)


async def until(condition: Callable[[], bool], within_s: float = inf) -> bool:
    """Wait for *condition*, looking ten times a virtual second; False when it has not come *within_s* seconds."""
    deadline = trio.current_time() + within_s
    while not condition():
        if trio.current_time() >= deadline:
            return False
        await trio.sleep(LOOK_EVERY_S)
    return True


@asynccontextmanager
async def open_world(
    virtual: Virtual,
    nodes: int,
    *,
    degree: int = DEGREE,
    latency_s: tuple[float, float] = LATENCY_S,
    progress: Progress = silent,
    dress: Callable[[Member], None] = lambda member: None,
) -> AsyncIterator[World]:
    """A mesh of *nodes* that know each other, linked and at rest, for the length of the block.

    *dress*: called with each member before its node runs; may give it another worker."""
    links = latencies_between(*latency_s, seed=virtual.seed)
    with few_collections():  # around the end of the world, too: there is most to collect
        async with open_network(links, virtual.random("links").random) as network, trio.open_nursery() as nursery:
            few = max(1, degree - SPARE_LINKS)
            world = World(virtual, network, list(make_members(virtual, nodes, degree)), few, nursery)
            for member in world.members:
                dress(member)
            await build(world, progress)
            yield world
            progress("ending")
            nursery.cancel_scope.cancel()


async def build(world: World, progress: Progress) -> None:
    """Start the members of *world*, tell them all there is to know of each other, and link them.

    No garbage is looked for meanwhile, nor later in what is made here: one object in 400 is some.
    """
    gc.disable()
    with _clocked(world, "nodes"):
        for number, member in enumerate(world.members):
            progress(f"starting {len(world.members)} nodes", number / len(world.members))
            await world.start(member)
        await trio.sleep(FIRST_WORDS_S)
    progress("filling their tables")
    with _clocked(world, "tables"):
        acquaint(world.running)
        pages.collapse()
    with _clocked(world, "links"):
        await world.link_all(progress)
        pages.collapse()
    gc.freeze()
    gc.enable()


def make_members(
    virtual: Virtual, nodes: int, degree: int, env: Callable[[str], Env] | None = None
) -> Iterator[Member]:
    """Members of one mesh, with keys, work and neighbours that follow from the seed. *env*: of each by name."""
    env = env or virtual.env
    names = [f"n{number}" for number in range(nodes)]
    keys = [virtual.key(name) for name in names]
    environment = env("owner")
    papers = identities(virtual.key("owner"), keys, names, environment.now(), environment.token_bytes)
    graph = topology(nodes, degree, virtual.random("topology"))
    for number, identity in enumerate(papers):
        worker = Worker([card_about(f"kind {number % KINDS_OF_WORK}")])
        yield Member(number, identity, env(names[number]), worker, graph[number])


def topology(nodes: int, degree: int, draw: random.Random) -> list[set[int]]:
    """Neighbours of each node: *degree*/2 random rings through all of them, so the graph is whole and even."""
    neighbours: list[set[int]] = [set() for _ in range(nodes)]
    order = list(range(nodes))
    for _ in range(max(1, degree // 2)):
        draw.shuffle(order)
        for left, right in zip(order, order[1:] + order[:1], strict=True):
            if left != right:
                neighbours[left].add(right)
                neighbours[right].add(left)
    return neighbours


@contextmanager
def _clocked(world: World, step: str) -> Iterator[None]:
    began = cpu_s()
    yield
    world.build_cpu_s[step] = round(cpu_s() - began, 2)


@contextmanager
def few_collections() -> Iterator[None]:
    """Python looks for garbage in cycles rarely: a large world is mostly things that stay."""
    before = gc.get_threshold()
    gc.set_threshold(200_000, 20, 1000)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.enable()
        gc.unfreeze()
