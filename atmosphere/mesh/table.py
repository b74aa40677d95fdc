"""The gradient table: what this node knows of all nodes and of what they offer. Facts only; scores live in routing.

Pure: no I/O, no clock of its own; times are seconds on the Env's monotonic clock and come in as arguments.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, MutableMapping, Set
from dataclasses import dataclass, field, replace
from enum import StrEnum
from heapq import nsmallest

from atmosphere.capabilities.card import Card
from atmosphere.capabilities.offer import Offer, OfferEntry
from atmosphere.identity import Membership
from atmosphere.identity.scopes import SERVE
from atmosphere.mesh.announcer import longest_period
from protocols.beacons import Beacon
from transports.peer_id import PeerId

MAX_NODES = 10_000
"""Nodes kept. Beyond some thousands the DHT will have to find the rest; until then the least recently seen go."""
EVICTED = 100
"""Of them at once: to find one means to look at all."""
CHANGES_KEPT = 1024
SERVED_KEPT = 1024
"""Models of which it is known who served them last."""
MIN_PRUNE_S = 300.0
"""A node is forgotten after max(5 min, 3 of its periods) without a sign of life (the seeds ask 5 min)."""
PRUNE_PERIODS = 3


def patience(beacon: Beacon | None) -> float:
    """Seconds of silence after which a node with that last beacon is forgotten."""
    return max(MIN_PRUNE_S, PRUNE_PERIODS * beacon.period_ms / 1000 if beacon is not None else 0.0)


class State(StrEnum):
    """What is believed of a node."""

    ONLINE = "online"
    SUSPECT = "suspect"  # a sign of failure; not chosen, not yet given up
    OFFLINE = "offline"
    LEFT = "left"  # it said goodbye


class Path(StrEnum):
    """How this node reaches another one."""

    LOCAL = "local"
    LAN = "lan"
    DIRECT = "direct"
    RELAY = "relay"
    UNKNOWN = "unknown"  # no connection at the moment

    @property
    def hops(self) -> int:
        """0 here, 1 direct connection, 2 through a relay. Without a connection: 1, what a dial would give."""
        return 0 if self is Path.LOCAL else 2 if self is Path.RELAY else 1


@dataclass(frozen=True, slots=True)
class Node:
    """One node of the mesh as seen from here, at one moment: a change is another value in the table."""

    peer: PeerId
    last_seen: float
    state: State = State.ONLINE
    path: Path = Path.UNKNOWN
    beacon: Beacon | None = None
    membership: Membership | None = None
    offer: Offer | None = None
    load_permille: int = 0
    queue: int = 0
    rtt_ms: float | None = None
    reason: str = ""
    """Why it is not online, for people."""
    silent_since: float | None = None
    """When the doubt began; None while online."""

    @property
    def name(self) -> str:
        """The node's own label, else the end of its peer id."""
        return self.offer.name if self.offer and self.offer.name else self.peer.short

    @property
    def usable(self) -> bool:
        """Whether work may be sent there: what a member without scope ``serve`` offers is for itself alone."""
        return self.offer is not None and self.unusable is None

    @property
    def unusable(self) -> str | None:
        """Why no work at all may be sent there: ``state`` or ``scope``; None: it may."""
        if self.state is not State.ONLINE or self.membership is None:
            return "state"
        return None if self.path is Path.LOCAL or self.membership.allows(SERVE) else "scope"


@dataclass(frozen=True, slots=True)
class Change:
    """One entry of the change log."""

    number: int
    peer: PeerId
    what: str
    card: bytes = b""
    """The card that has become known, or was dropped; empty: it is about the node itself."""


@dataclass(frozen=True, slots=True)
class Served:
    """Who offered a model and does not any more."""

    peer: PeerId
    name: str
    reason: str
    """What it did, as the end of a sentence: ``is offline``, ``does not offer it any more``."""


@dataclass(frozen=True, slots=True)
class Route:
    """Somebody offers a card."""

    node: Node
    entry: OfferEntry
    card: Card


@dataclass(slots=True)
class GradientTable:
    """All nodes by peer id, all cards by id, and who offers which."""

    me: PeerId
    nodes: MutableMapping[PeerId, Node] = field(default_factory=dict)
    holders: MutableMapping[bytes, PeerId] = field(default_factory=dict)
    """Whose the memberships of the other nodes are, by their serials."""
    doubles: bool = False
    """Some issuer has given one serial to two nodes: *holders* does not tell all."""
    cards: dict[bytes, Card] = field(default_factory=dict)
    version: int = 0
    """Raised by every change: whoever caches something derived compares it."""
    changes: deque[Change] = field(default_factory=lambda: deque(maxlen=CHANGES_KEPT))
    offline: dict[PeerId, None] = field(default_factory=dict)
    suspects: dict[PeerId, None] = field(default_factory=dict)
    """Who is in state OFFLINE: it may come back."""
    served: OrderedDict[str, Served] = field(default_factory=OrderedDict)
    """Model -> who offered it last, of models that a node has withdrawn or was forgotten with."""
    listeners: set[Callable[[], None]] = field(default_factory=set)
    """Called synchronously after every change."""

    def __repr__(self) -> str:
        online = sum(1 for node in self.nodes.values() if node.state is State.ONLINE)
        return f"<GradientTable {online}/{len(self.nodes)} nodes online, {len(self.cards)} cards, v{self.version}>"

    def _changed(self, peer: PeerId, what: str, card: bytes = b"") -> None:
        self.version += 1
        self.changes.append(Change(self.version, peer, what, card))
        for listener in tuple(self.listeners):
            listener()

    def start_from(self, nodes: MutableMapping[PeerId, Node], holders: MutableMapping[bytes, PeerId]) -> None:
        """Know *nodes*, this one included, and keep them there; *holders*: of the memberships of the others."""
        self.nodes, self.holders = nodes, holders
        self._changed(self.me, "knows others")

    def node(self, peer: PeerId, now: float) -> Node:
        """The entry of *peer*, made if it is new."""
        found = self.nodes.get(peer)
        if found is None:
            if len(self.nodes) >= MAX_NODES:
                others = (n for n in self.nodes.values() if n.peer != self.me)
                for old in nsmallest(EVICTED, others, key=lambda n: n.last_seen):
                    self.forget(old.peer)
            found = self.nodes[peer] = Node(peer, now)
            self._changed(peer, "known")
        return found

    def observe(
        self, peer: PeerId, beacon: Beacon, membership: Membership, seen: float, *, proof: bool = True
    ) -> bool:
        """Take in a verified beacon, made or heard at *seen*. False: it is not newer than what is known.

        *proof*: it shows that the node lives, which clears suspicion, absence and leave. Without it the node stays
        what it was believed to be, and one that was not known (or had left) is offline.
        """
        new = peer not in self.nodes
        node = self.node(peer, seen)
        before = node.beacon
        if before is not None and beacon.order <= before.order:
            return False
        self._holds(node, membership)
        self.nodes[peer] = Node(  # all at once: this is what happens most
            peer, max(node.last_seen, seen), node.state, node.path, beacon, membership, node.offer,
            beacon.load_permille, beacon.queue, node.rtt_ms, node.reason, node.silent_since,
        )
        if before is None or (before.membership, before.offer) != (beacon.membership, beacon.offer):
            self._changed(peer, "said something new of itself")
        if proof and node.state is not State.ONLINE:
            self.alive(peer, seen)
        elif not proof and (new or node.state is State.LEFT):
            self.gone(peer, "it was offline when this node heard of it")
        return True

    def _holds(self, node: Node, membership: Membership | None) -> None:
        if node.membership is membership:
            return
        if node.membership is not None and self.holders.get(node.membership.serial) == node.peer:
            del self.holders[node.membership.serial]
        if membership is not None:
            self.doubles = self.doubles or membership.serial in self.holders
            self.holders[membership.serial] = node.peer

    def spoke(self, beacon: Beacon) -> None:
        """This node has said *beacon*."""
        me = self.nodes[self.me]
        self.nodes[self.me] = replace(me, beacon=beacon)
        if me.beacon is None or (me.beacon.membership, me.beacon.offer) != (beacon.membership, beacon.offer):
            self._changed(self.me, "said something new of itself")

    def certified(self, membership: Membership | None) -> None:
        """*membership* is this node's own now; None: it has none that holds."""
        self.nodes[self.me] = replace(self.nodes[self.me], membership=membership)

    def load(self, peer: PeerId, permille: int, queue: int, now: float) -> None:
        """A load figure that came with a call frame, or this node's own: newer than any beacon, and a proof of life."""
        node = self.nodes.get(peer)
        if node is not None:
            self.nodes[peer] = replace(node, load_permille=permille, queue=queue)
            self.alive(peer, now)

    def measured(self, peer: PeerId, rtt_ms: float) -> None:
        """A round trip to *peer*, as it usually is."""
        node = self.nodes.get(peer)
        if node is not None:
            self.nodes[peer] = replace(node, rtt_ms=rtt_ms)

    def offered(self, peer: PeerId, offer: Offer) -> None:
        """Take in a verified offer of *peer*; cards that it names may still be missing."""
        node = self.nodes.get(peer)
        if node is not None and node.offer != offer:
            self._note_served(node, {entry.card for entry in offer.entries}, "does not offer it any more")
            self.nodes[peer] = replace(node, offer=offer)
            paces = node.offer is not None and node.offer.version == offer.version
            self._changed(peer, "paces" if paces else "offer")

    def described(self, card_id: bytes, card: Card) -> None:
        """Take in the meaning of a card."""
        if card_id not in self.cards:
            self.cards[card_id] = card
            self._changed(self.me, "card", card_id)

    def alive(self, peer: PeerId, now: float) -> None:
        """A proof of life that is not older than *now*."""
        node = self.nodes.get(peer)
        if node is None:
            return
        seen = max(node.last_seen, now)
        if node.state is State.ONLINE:
            self.nodes[peer] = replace(node, last_seen=seen)
        else:
            self.nodes[peer] = replace(node, last_seen=seen, state=State.ONLINE, reason="", silent_since=None)
            self.offline.pop(peer, None)
            self.suspects.pop(peer, None)
            self._changed(peer, "online")

    def doubt(self, peer: PeerId, reason: str, now: float) -> None:
        """A sign of failure: the node is not chosen until it proves that it lives."""
        node = self.nodes.get(peer)
        if node is not None and peer != self.me and node.state is State.ONLINE:
            self.nodes[peer] = replace(node, state=State.SUSPECT, reason=reason, silent_since=now)
            self.suspects[peer] = None
            self._changed(peer, f"suspect: {reason}")

    def gone(self, peer: PeerId, reason: str, state: State = State.OFFLINE) -> None:
        """The node is offline, or has left."""
        node = self.nodes.get(peer)
        if node is not None and peer != self.me and node.state is not state:
            self.nodes[peer] = replace(node, state=state, reason=reason, path=Path.UNKNOWN, rtt_ms=None)
            self.suspects.pop(peer, None)
            if state is State.OFFLINE:
                self.offline[peer] = None
            else:
                self.offline.pop(peer, None)
            self._changed(peer, f"{state}: {reason}")

    def connected(self, peer: PeerId, path: Path, now: float) -> None:
        """There is a connection to an admitted *peer*."""
        self.nodes[peer] = replace(self.node(peer, now), path=path)
        self.alive(peer, now)

    def disconnected(self, peer: PeerId) -> None:
        node = self.nodes.get(peer)
        if node is not None and node.path is not Path.LOCAL:
            self.nodes[peer] = replace(node, path=Path.UNKNOWN, rtt_ms=None)

    def forget(self, peer: PeerId) -> None:
        self.offline.pop(peer, None)
        self.suspects.pop(peer, None)
        node = self.nodes.pop(peer, None)
        if node is not None:
            self._holds(node, None)
            self._note_served(node, frozenset(), "has gone")
            self._changed(peer, "forgotten")

    def _note_served(self, node: Node, kept: Set[bytes], reason: str) -> None:
        for entry in node.offer.entries if node.offer is not None else ():
            card = self.cards.get(entry.card)
            if entry.card not in kept and card is not None and card.model:
                self.served[card.model] = Served(node.peer, node.name, reason)
                self.served.move_to_end(card.model)
                if len(self.served) > SERVED_KEPT:
                    self.served.popitem(last=False)

    def last_server(self, names: Callable[[str], bool]) -> Served | None:
        """Who served a model that *names* takes, and does not now; None: nobody that this node has seen."""
        for node in sorted(self.nodes.values(), key=lambda node: node.last_seen, reverse=True):
            if node.unusable is not None and any(names(route.card.model) for route in self.routes_of(node)):
                return Served(node.peer, node.name, "may not serve others" if node.unusable == "scope" else
                              f"is {node.state}")
        return next((served for model, served in reversed(self.served.items()) if names(model)), None)

    def prune(self, now: float) -> list[PeerId]:
        """Forget nodes that were silent for max(5 min, 3 periods), and cards that nobody offers; who went.

        Their own periods, or what is usual now: the mesh may have grown since they spoke."""
        usual = PRUNE_PERIODS * longest_period(len(self.nodes))
        silent = [
            node.peer
            for node in self.nodes.values()
            if node.peer != self.me and now - node.last_seen > max(usual, patience(node.beacon))
        ]
        for peer in silent:
            self.forget(peer)
        offered = {e.card for node in self.nodes.values() if node.offer for e in node.offer.entries}
        for card_id in [card_id for card_id in self.cards if card_id not in offered]:
            del self.cards[card_id]
            self._changed(self.me, "card dropped", card_id)
        return silent

    def entry(self, peer: PeerId, card_id: bytes) -> OfferEntry | None:
        """How *peer* offers that card; None: it does not."""
        node = self.nodes.get(peer)
        entries = node.offer.entries if node is not None and node.offer is not None else ()
        return next((entry for entry in entries if entry.card == card_id), None)

    def pace_s(self, peer: PeerId, card_id: bytes) -> float:
        """Seconds that *peer* says a call of that card takes there; 0: it does not say."""
        entry = self.entry(peer, card_id)
        return 0.0 if entry is None else entry.pace_ms / 1000

    def routes(self) -> Iterator[Route]:
        """Every (node, card) pair that work may be sent to now."""
        for node in self.nodes.values():
            if node.usable:
                yield from self.routes_of(node)

    def routes_of(self, node: Node) -> Iterator[Route]:
        """What *node* offers, whether work may be sent there or not."""
        for entry in node.offer.entries if node.offer is not None else ():
            card = self.cards.get(entry.card)
            if card is not None:
                yield Route(node, entry, card)
