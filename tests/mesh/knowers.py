"""Nodes reduced to what they know, connected by memory streams: anti-entropy without sockets, under virtual time."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass

import trio
from nacl.signing import SigningKey

from atmosphere.capabilities.offer import Offer
from atmosphere.env import FixedEnv
from atmosphere.mesh.intake import Hooks, Intake, Taken
from atmosphere.mesh.inventory import Inventory
from atmosphere.mesh.library import Library
from atmosphere.mesh.members import Members
from atmosphere.mesh.reconciler import Reconciler
from atmosphere.mesh.table import GradientTable, State
from atmosphere.mesh.trust import Trust
from atmosphere.store import Store
from protocols.beacons import Beacon, Leave
from protocols.records import domains, open_envelope, sign
from protocols.sync.messages import Hello, Key, Kind, Record, SyncError
from protocols.sync.session import Session, open_session, serve_session
from tests.mesh.people import CHAINS, MESH, NOW, chain_of
from transports.errors import PeerUnreachable
from transports.peer_id import PeerId
from transports.stream import MemoryStream, memory_stream_pair

PERIOD_MS = 15_000


class Author:
    """A node of the mesh that others talk about: what it has signed."""

    def __init__(self, number: int) -> None:
        self.key = SigningKey(hashlib.sha256(f"author {number}".encode()).digest())
        self.peer = PeerId.from_public_key(self.key.verify_key.encode())
        self.chain = chain_of(self.peer)

    def offer(self, number: int) -> bytes:
        return sign(domains.OFFER, Offer(self.peer, 1, number, f"offer {number}", (), NOW).encode(), self.key)

    def beacon(self, sequence: int, offer: int = 1, age: float = 0.0) -> bytes:
        beacon = Beacon(
            hashlib.sha256(self.chain).digest(), 1, sequence, PERIOD_MS, hashlib.sha256(self.offer(offer)).digest(),
            int((NOW - age) * 1000),
        )
        return sign(domains.BEACON, beacon.encode(), self.key)

    def leave(self, sequence: int) -> bytes:
        return sign(domains.LEAVE, Leave(1, sequence, int(NOW * 1000)).encode(), self.key)


@dataclass(frozen=True)
class Seen:
    """What a table says of one node, as far as all nodes should agree."""

    state: State
    offer: str


class Knower:
    """One node's knowledge. *bytes*: what it has written to others, by peer."""

    def __init__(self, me: PeerId) -> None:
        self.peer = me
        self.env = FixedEnv(3, start=NOW)
        self.table = GradientTable(me)
        self.library = Library()
        self.trust = Trust(MESH, Store.memory(self.env), self.env, lambda *_: None, 7 * 86400)
        self.members = Members(MESH, self.trust, self.library, self.env)
        self.contested: list[tuple[PeerId, tuple[int, int]]] = []
        hooks = Hooks(
            lambda card_id, card: None, lambda vector: None, lambda order: None,
            contested=lambda peer, order: self.contested.append((peer, order)),
        )
        self.intake = Intake(self.table, self.library, self.members, self.env, hooks)
        self.inventory = Inventory(self.table, self.trust)
        self.learned: list[Record] = []
        self.reconciler = Reconciler(
            self._open, self.inventory, self.trust, self.intake, self.library, self.env, self.learned.append
        )
        self.neighbours: dict[PeerId, Knower] = {}
        self.written = Counter[PeerId]()
        self.sessions = 0
        self._nursery: trio.Nursery | None = None

    def hear(self, author: Author, sequence: int = 1, offer: int = 1) -> None:
        """Gossip brings a beacon, and everything that it names was there or is fetched."""
        self.members.learn(author.chain)
        assert self.intake.beacon(author.beacon(sequence, offer), author.peer, None) is Taken.NEW
        record = Record(Kind.OFFER, author.offer(offer))
        assert self.intake.take(Key(Kind.OFFER, record.digest), record, None) is Taken.NEW

    def say(self, me: Author, sequence: int = 1) -> None:
        """This node's own words: it is *me*."""
        body, offer = me.beacon(sequence), me.offer(1)
        self.table.node(self.peer, 0.0)
        self.table.spoke(Beacon.decode(open_envelope(body, domains.BEACON, len(body))[0]))
        self.members.learn(me.chain)
        self.library.put(Key(Kind.BEACON, self.peer.public_key), body)
        self.library.put(Key(Kind.OFFER, hashlib.sha256(offer).digest()), offer)

    def state(self, author: Author) -> State | None:
        node = self.table.nodes.get(author.peer)
        return node.state if node is not None else None

    def seen(self) -> dict[PeerId, Seen]:
        """What all nodes should come to agree on."""
        nodes = (node for node in self.table.nodes.values() if node.beacon is not None)
        return {node.peer: Seen(node.state, node.name) for node in nodes}

    # -- streams ---------------------------------------------------------------------------------------------------

    def join(self, other: Knower) -> None:
        """A link, both ways, used once both run."""
        self.neighbours[other.peer], other.neighbours[self.peer] = other, self

    def part(self, other: Knower) -> None:
        del self.neighbours[other.peer], other.neighbours[self.peer]
        self.reconciler.leave(other.peer)
        other.reconciler.leave(self.peer)

    def hello(self) -> Hello:
        return Hello(MESH, CHAINS[self.peer], self.trust.digest, "test", int(NOW * 1000), self.inventory.nodes.root)

    async def _open(self, peer: PeerId) -> Session:
        other = self.neighbours.get(peer)
        if other is None or self._nursery is None:
            raise PeerUnreachable("no link")
        self.sessions += 1
        near, far = memory_stream_pair(self.peer, peer)
        _count(near, self.written, peer)
        _count(far, other.written, self.peer)
        self._nursery.start_soon(self._served, other, far)
        return await open_session(near, self.hello(), self._judge)

    async def _served(self, other: Knower, far: MemoryStream) -> None:
        try:
            await serve_session(far, other.hello, other._judge, lambda peer: None, other.reconciler)
        except SyncError:
            await far.reset()

    def _judge(self, peer: PeerId, hello: Hello) -> None:
        self.members.judge(peer, hello)

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        async with trio.open_nursery() as self._nursery:
            await self._nursery.start(self.reconciler.run)
            task_status.started()

    async def ask(self, other: Knower) -> None:
        """One comparison on its own."""
        async with trio.open_nursery() as self._nursery:
            await self.reconciler.reconcile(other.peer, answering=True)
        self._nursery = None


def _count(stream: MemoryStream, written: Counter[PeerId], peer: PeerId) -> None:
    write = stream.write

    async def counted(data: bytes) -> None:
        written[peer] += len(data)
        await write(data)

    stream.write = counted  # type: ignore[method-assign]

