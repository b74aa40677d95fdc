"""A world that nodes join while it runs, and what each running node's table says of the others at every moment."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

import trio

from atmosphere.config import Config
from simulations.scenarios.running import Options
from simulations.virtual import Virtual
from simulations.world import (
    LATENCY_S,
    SPARE_LINKS,
    Member,
    World,
    build,
    few_collections,
    make_members,
    topology,
)
from transports.memory import MemoryNetwork, latencies_between, open_network

BOOTSTRAPS = 3
"""The nodes that those who join know, by address alone; they stay to the end."""


class GrowingWorld(World):
    """:attr:`members` are those that have ever run; the next ones join through the bootstrap nodes."""

    def __init__(
        self,
        virtual: Virtual,
        network: MemoryNetwork,
        members: Sequence[Member],
        few: int,
        nursery: trio.Nursery,
        coming: Sequence[Member],
    ) -> None:
        super().__init__(virtual, network, members, few, nursery)
        self.coming = list(reversed(coming))
        """Who joins next is last."""
        self.number_of.update({member.peer: member.number for member in coming})
        self.built = False
        """Whoever starts after that joins through the bootstrap nodes."""
        self._bootstrap = tuple(network.address(member.peer) for member in members[:BOOTSTRAPS])

    async def join(self) -> Member:
        """Run the next node. It returns before that has a link."""
        member = self.coming.pop()
        self.members += (member,)
        await self.start(member)
        return member

    def _settings(self, member: Member) -> Config:
        """As its parent's, with the bootstrap nodes for who joins."""
        settings = super()._settings(member)
        return replace(settings, bootstrap=self._bootstrap) if self.built else settings

    def point_out(self, member: Member) -> None:
        """Tell a running node of the bootstrap nodes, which it then dials whenever it has no connection to them."""
        for bootstrap, address in zip(self.members, self._bootstrap, strict=False):
            member.node.mesh._dialer.want(bootstrap.peer, (address,), forever=True)


@asynccontextmanager
async def open_growing(
    virtual: Virtual,
    options: Options,
    first: int,
    coming: int,
    *,
    dress: Callable[[Member], None] = lambda member: None,
) -> AsyncIterator[GrowingWorld]:
    """A mesh of *first* nodes as of :func:`simulations.world.open_world`; *coming* more may join it.

    *dress*: as there."""
    links = latencies_between(*LATENCY_S, seed=virtual.seed)
    async with open_network(links, virtual.random("links").random) as network, trio.open_nursery() as nursery:
        with few_collections():
            everybody = list(make_members(virtual, first + coming, options.degree))
            graph = topology(first, options.degree, virtual.random("topology of the first"))
            for member in everybody:
                member.neighbours = graph[member.number] if member.number < first else set()
                dress(member)
            few = max(1, options.degree - SPARE_LINKS)
            world = GrowingWorld(virtual, network, everybody[:first], few, nursery, everybody[first:])
            await build(world, options.progress)
            world.built = True
            yield world
            nursery.cancel_scope.cancel()


class Views:
    """Whom each running node would send work to, by numbers, kept by what the tables tell of their changes."""

    def __init__(self, world: World, changed: Callable[[int, int, bool], None] = lambda viewer, seen, usable: None):
        """*changed*: called with (viewer, seen, whether *viewer* could send work to *seen* now)."""
        self.of: dict[int, set[int]] = {}
        self._world = world
        self._changed = changed

    def __repr__(self) -> str:
        return f"<Views of {len(self.of)} nodes>"

    def follow(self, member: Member) -> None:
        """*member* runs."""
        view: set[int] = set()
        self.of[member.number] = view
        table = member.node.table
        for other in self._world.members:
            if other is not member and self._world.knows(member, other):
                view.add(other.number)

        def look() -> None:
            peer = table.changes[-1].peer
            number, node = self._world.number_of[peer], table.nodes.get(peer)
            usable = node is not None and node.usable
            if peer != table.me and usable != (number in view) and self.of.get(member.number) is view:
                (view.add if usable else view.discard)(number)
                self._changed(member.number, number, usable)

        table.listeners.add(look)

    def drop(self, member: Member) -> None:
        """*member* runs no more."""
        self.of.pop(member.number, None)

    @property
    def missing(self) -> int:
        """Ordered pairs of running nodes in which the first could not send work to the second."""
        return sum(len(self.of) - 1 - len(view & self.of.keys()) for view in self.of.values())

    @property
    def ghosts(self) -> int:
        """Pairs in which a running node would send work to one that runs no more."""
        return sum(len(view - self.of.keys()) for view in self.of.values())

    @property
    def pairs(self) -> int:
        """Ordered pairs of running nodes."""
        return len(self.of) * (len(self.of) - 1)
