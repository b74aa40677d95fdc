"""What this node tells others that it knows, as digests first. Pure.

Two nodes should agree on who is there, by which membership, with which offer, and whether it is alive. Beacons change
all the time and gossip brings them, so their order is told but makes no difference; nor does who has left, because
everybody forgets the dead at a time of his own.
"""

from __future__ import annotations

import hashlib

from atmosphere.mesh.table import GradientTable, Node, State
from atmosphere.mesh.trust import Trust
from protocols.sync.messages import Ask, Hello, Known, Overview, Presence
from protocols.sync.summary import Summary
from transports.peer_id import PeerId


def presence_of(node: Node) -> Presence:
    """What others are told: a suspicion is this node's own until it is confirmed."""
    if node.state is State.LEFT:
        return Presence.LEFT
    return Presence.OFFLINE if node.state is State.OFFLINE else Presence.ALIVE


def said_of(node: Node | None) -> bytes:
    """What all nodes should say of *node*: membership, offer, presence; nothing of one that has not spoken or has left.

    Of 32, 32 and 1 bytes; its digest is the node's item in the summary, so this is part of the wire.
    """
    if node is None or node.beacon is None or node.state is State.LEFT:
        return b""
    return node.beacon.membership + node.beacon.offer + bytes([presence_of(node)])


class Inventory:
    """Summaries of a table and of trust records, made again only when they have changed."""

    def __init__(self, table: GradientTable, trust: Trust) -> None:
        self._table = table
        self._trust = trust
        self._state: object = None
        self._nodes = Summary()
        self._items: dict[PeerId, tuple[bytes, bytes]] = {}  # by peer: what was digested, and the digest
        self._trust_digest = b""
        self._statements = Summary()

    def __repr__(self) -> str:
        return f"<Inventory {self._nodes!r}, {self._statements!r}>"

    @property
    def nodes(self) -> Summary:
        """The nodes that are alive or offline: name = public key."""
        me = self._table.nodes.get(self._table.me)
        mine = (me.beacon.membership, me.beacon.offer) if me is not None and me.beacon is not None else None
        if self._state != (self._table.version, mine):  # this node's own beacons come without a change
            self._state = self._table.version, mine
            said = ((node.peer, said_of(node)) for node in self._table.nodes.values())
            self._items = {peer: self._item(peer, text) for peer, text in said if text}
            self._nodes = Summary((peer.public_key, digest) for peer, (_, digest) in self._items.items())
        return self._nodes

    def _item(self, peer: PeerId, said: bytes) -> tuple[bytes, bytes]:
        old = self._items.get(peer)
        return old if old is not None and old[0] == said else (said, hashlib.sha256(said).digest())

    @property
    def statements(self) -> Summary:
        """The trust records: name = digest, which says all."""
        if self._trust_digest != self._trust.digest:
            self._trust_digest = self._trust.digest
            self._statements = Summary((key.key, bytes([key.kind])) for key in self._trust.keys())  # noqa: SIM118
        return self._statements

    def question(self, hello: Hello, *, answering: bool) -> Ask | None:
        """What to ask whoever said *hello*; None if it knows what this node knows."""
        same_trust, same_nodes = hello.trust == self._trust.digest, hello.nodes == self.nodes.root
        if same_trust and same_nodes:
            return None
        statements = self.statements
        trust = statements.root if same_trust else statements.digests(statements.buckets)
        return Ask(self.nodes.question(hello.nodes), trust, answering)

    def differs(self, ask: Ask) -> bool:
        """Whether there is anything that this node and the one who asks know differently."""
        return not (self.nodes.agrees(ask.nodes) and self.statements.agrees(ask.trust))

    def answer(self, ask: Ask) -> Overview:
        """All that is in buckets that differ from those of the question."""
        differs = self.statements.differing(ask.trust)
        trust = [key for key in self._trust.keys() if differs(key.key)]  # noqa: SIM118 - no dict
        differs = self.nodes.differing(ask.nodes)
        known = [
            Known(node.peer.public_key, node.beacon.epoch, node.beacon.sequence, presence_of(node))
            for node in self._table.nodes.values()
            if node.beacon is not None and differs(node.peer.public_key)
        ]
        return Overview(trust, known)
