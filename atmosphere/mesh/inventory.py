"""What this node tells others that it knows, as digests first. Pure.

Two nodes should agree on who is there, by which membership, with which offer, and whether it is alive. Beacons change
all the time and gossip brings them, so their order is told but makes no difference; nor does who has left, because
everybody forgets the dead at a time of his own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from itertools import islice

from atmosphere.mesh.table import GradientTable, Node, State
from atmosphere.mesh.trust import Trust
from protocols.sync.messages import Ask, Hello, Known, Overview, Presence
from protocols.sync.summary import Summary, bucket, check
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
    """Summaries of a table and of trust records; a change of either costs what it changes, whatever their size."""

    def __init__(self, table: GradientTable, trust: Trust) -> None:
        self._table = table
        self._trust = trust
        self._version = 0
        self._nodes = Summary()
        self._left: dict[PeerId, None] = {}
        """Who has left is in no summary; who asks is told all the same."""
        self._trust_digest = b""
        self._statements = Summary()

    def __repr__(self) -> str:
        return f"<Inventory {self._nodes!r}, {self._statements!r}>"

    def start_from(self, nodes: Summary) -> None:
        """Begin with *nodes*, which is of the table as it is now; nobody in it has left."""
        self._nodes, self._version = nodes, self._table.version

    @property
    def nodes(self) -> Summary:
        """The nodes that are alive or offline: name = public key."""
        if self._version != self._table.version:
            for peer in self._changed():
                self._renew(peer)
            self._version = self._table.version
        return self._nodes

    def _changed(self) -> Collection[PeerId]:
        """Whom the changes since the last look are of; everybody if the table's log does not go back so far."""
        changes, missed = self._table.changes, self._table.version - self._version
        if missed > len(changes):
            return dict.fromkeys([*map(PeerId.from_public_key, self._nodes), *self._left, *self._table.nodes])
        return dict.fromkeys(change.peer for change in islice(reversed(changes), missed))

    def _renew(self, peer: PeerId) -> None:
        node = self._table.nodes.get(peer)
        said = said_of(node)
        if said:
            self._nodes.put(peer.public_key, hashlib.sha256(said).digest())
        else:
            self._nodes.drop(peer.public_key)
        if node is not None and node.state is State.LEFT:
            self._left[peer] = None
        else:
            self._left.pop(peer, None)

    @property
    def statements(self) -> Summary:
        """The trust records: name = digest, which says all."""
        if self._trust_digest != self._trust.digest:
            self._trust_digest = self._trust.digest
            keys = {key.key: key for key in self._trust.keys()}  # noqa: SIM118 - no dict
            for name in [name for name in self._statements if name not in keys]:
                self._statements.drop(name)
            for name, key in keys.items():
                if name not in self._statements:
                    self._statements.put(name, bytes([key.kind]))
        return self._statements

    def question(self, hello: Hello, *, answering: bool) -> Ask | None:
        """What to ask whoever said *hello*; None if it knows what this node knows.

        Who is suspected here counts as unknown: a beacon that others have heard since says that it lives, and makes no
        difference otherwise.
        """
        nodes, doubted = self.nodes, list(self._table.suspects)
        for peer in doubted:
            nodes.drop(peer.public_key)
        same_trust, same_nodes = hello.trust == self._trust.digest, hello.nodes == nodes.root
        asked = nodes.question(hello.nodes)
        for peer in doubted:
            self._renew(peer)
        if same_trust and same_nodes:
            return None
        statements = self.statements
        trust = statements.root if same_trust else statements.digests(statements.buckets)
        return Ask(asked, trust, answering)

    def differs(self, ask: Ask) -> bool:
        """Whether there is anything that this node and the one who asks know differently."""
        return not (self.nodes.agrees(ask.nodes) and self.statements.agrees(ask.trust))

    def presence(self, peer: PeerId) -> Presence | None:
        """What others are told of *peer*; None: nothing, it has not spoken."""
        node = self._table.nodes.get(peer)
        return presence_of(node) if node is not None and node.beacon is not None else None

    def is_known(self, peer: PeerId, ask: Ask, overview: Overview) -> bool:
        """Whether *peer*, which answered *ask* with *overview*, knows this node as it is now, or knows nobody else.

        It has listed the bucket of this node if that is another one there. An empty one lists nothing either: who knows
        so few can tell few of this node.
        """
        me, buckets = self._table.me.public_key, check(ask.nodes)
        node = self._table.nodes.get(self._table.me)
        order = node.beacon.order if node is not None and node.beacon is not None else (0, 0)
        here = [item for item in overview.known if bucket(item.author, buckets) == bucket(me, buckets)]
        others = [item for item in here if item.author != peer.public_key]
        return not others or any(
            item.author == me and item.presence is Presence.ALIVE and item.order >= order for item in others
        )

    def answer(self, ask: Ask) -> Overview:
        """All that is in buckets that differ from those of the question."""
        differs = self.statements.differing(ask.trust)
        trust = [key for key in self._trust.keys() if differs(key.key)]  # noqa: SIM118 - no dict
        peers = [PeerId.from_public_key(name) for name in self.nodes.listed(ask.nodes)]
        differs = self.nodes.differing(ask.nodes)
        peers += [peer for peer in self._left if differs(peer.public_key)]
        nodes = (self._table.nodes.get(peer) for peer in peers)
        return Overview(trust, [
            Known(node.peer.public_key, node.beacon.epoch, node.beacon.sequence, presence_of(node))
            for node in nodes
            if node is not None and node.beacon is not None
        ])
