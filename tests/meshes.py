"""Whole nodes in one process, over real loopback sockets: quick to start, and their state can be looked at."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import trio

from atmosphere.config import Config
from atmosphere.cost import FixedMachine, Readings
from atmosphere.embedding import HashEmbedder
from atmosphere.env import SystemEnv
from atmosphere.identity import Keyring, accept_enrolment, parse_invite
from atmosphere.node import Node, open_node
from protocols.join.client import ask
from protocols.join.messages import PROTOCOL, Enrol, Enrolled, Reply
from transports.config import HostConfig
from transports.host import open_host

ENV = SystemEnv()
LISTEN = ("/ip4/127.0.0.1/tcp/0",)
WAIT_S = 10.0


class Meshes:
    """Starts and stops nodes; their homes outlive them, so a node can come back."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.machines: dict[str, FixedMachine] = {}
        """What each node believes of its machine, by the home's name: idle, whatever else runs beside the tests."""

    def found(self, name: str = "A") -> Path:
        """A home with a new mesh."""
        home = self.folder / name
        Keyring(home).init(name, "test", ENV.now(), ENV.token_bytes)
        return home

    async def ask(self, name: str, invite: str, at: Node | None = None) -> Reply:
        """Ask to be let in with *invite*, at its inviter or at another node; nothing is kept."""
        parsed = parse_invite(invite)
        seed = Keyring(self.folder / name).node_seed(ENV.token_bytes)
        async with open_host(HostConfig(listen=LISTEN), seed) as host:
            peer = at.peer_id if at is not None else parsed.inviter
            await host.connect(peer, at.addresses() if at is not None else parsed.addresses)
            return await ask(await host.open_stream(peer, PROTOCOL), Enrol(parsed.envelope, name))

    async def join(self, name: str, invite: str, at: Node | None = None) -> Path:
        """A home that has joined by *invite*."""
        home = self.folder / name
        parsed = parse_invite(invite)
        reply = await self.ask(name, invite, at)
        assert isinstance(reply.outcome, Enrolled), reply.outcome
        keyring = Keyring(home)
        peer = keyring.node_peer_id(ENV.token_bytes)
        accept_enrolment(parsed, peer, reply.outcome.chain, reply.outcome.inviter_chain, ENV.now())
        keyring.join(parsed.mesh, parsed.mesh_name, reply.outcome.chain, ENV.now())
        return home

    @asynccontextmanager
    async def node(self, home: Path, *known: Node, **settings: object) -> AsyncIterator[Node]:
        """Run the node of *home*; it dials *known*."""
        bootstrap = tuple(address for other in known for address in other.addresses())
        async with self.dialling(home, *bootstrap, **settings) as node:
            yield node

    @asynccontextmanager
    async def dialling(self, home: Path, *bootstrap: str, **settings: object) -> AsyncIterator[Node]:
        """Run the node of *home*; it dials the addresses *bootstrap*."""
        config = Config(listen=LISTEN, bootstrap=bootstrap, mdns=False, probe=False, **settings)  # type: ignore[arg-type]
        machine = self.machines.setdefault(home.name, FixedMachine(Readings()))
        async with open_node(home, config, env=ENV, embedder=HashEmbedder, machine=machine) as node:
            yield node


@asynccontextmanager
async def mesh_of(folder: Path, names: str, **settings: object) -> AsyncIterator[tuple[Meshes, list[Node]]]:
    """Running nodes by the letters of *names*; the first one founds the mesh and lets the others in."""
    meshes = Meshes(folder)
    async with AsyncExitStack() as stack:
        nodes = [await stack.enter_async_context(meshes.node(meshes.found(names[0]), **settings))]
        invite = nodes[0].create_invite(len(names), 3600)
        for name in names[1:]:
            home = await meshes.join(name, invite)
            nodes.append(await stack.enter_async_context(meshes.node(home, *nodes, **settings)))
        for node in nodes:
            await until(lambda node=node: all(knows(node, other) for other in nodes))  # type: ignore[misc]
        yield meshes, nodes


def knows(node: Node, other: Node) -> bool:
    """Whether *node* may send work to *other* now."""
    found = node.table.nodes.get(other.peer_id)
    return found is not None and found.usable


async def until(condition: Callable[[], object], seconds: float = WAIT_S) -> float:
    """Wait for *condition*; how long it took. Fails after *seconds*."""
    began = trio.current_time()
    with trio.fail_after(seconds):
        while not condition():  # noqa: ASYNC110 - a test looks at state that has no event
            await trio.sleep(0.01)
    return trio.current_time() - began
