"""What this node says about itself: its offer and its beacons, in an order that never goes back. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import inf

from atmosphere.capabilities.offer import Offer, OfferEntry, without_paces
from atmosphere.env import Env
from atmosphere.identity import Identity
from protocols.beacons import Announcement, Beacon, Leave
from protocols.beacons.messages import MAX_ADDRESS_BYTES, MAX_ADDRESSES
from protocols.records import domains

BASE_PERIOD_S = 15.0
"""Beacons of a small mesh; a received copy costs about 1 ms of CPU over TCP."""
BEACONS_PER_SECOND = 4.0
"""Stretched so that a node receives no more than this, however many nodes there are."""
JITTER = 0.2
"""Of the period, so that nodes started together do not speak together."""
MIN_GAP_S = 0.2
"""Between two beacons of one node: several changes of one moment are one beacon."""
BURST = 5
"""Beacons that may follow each other at that gap; lastingly one a second, however much changes."""
LOAD_STEP_PERMILLE = 250
"""A change of load that is told early; smaller ones wait for the next beacon."""
FLOOD_S = 1.0
"""Neighbours that come within this time are of one mesh, which an introduction reaches through any of them. Where they
are not, the others are told by sync, as of everybody else on this side."""
QUEUE_FACTOR = 2
"""A queue that has doubled or halved is told early too, and one that begins or ends."""
LOADS_PER_SECOND = 16.0
"""Told early by all nodes together: at once in a small mesh, by each of 100 busy nodes every 6 s. Unbounded, 20 calls a
second among 100 nodes made 23 beacons a second for everybody."""


@dataclass(frozen=True, slots=True)
class Load:
    """How busy this node is now."""

    permille: int = 0
    queue: int = 0
    cost_milli: int = 1000
    """What work here costs; 1000 is neutral. It moves in steps only (cost/meter.py), and each is told early."""


def beacon_period(nodes: int) -> float:
    """Seconds between two beacons of a node in a mesh of *nodes*."""
    return max(BASE_PERIOD_S, nodes / BEACONS_PER_SECOND)


def longest_period(nodes: int) -> float:
    """The same with all its jitter: what a node states of itself, in seconds."""
    return beacon_period(nodes) * (1 + JITTER)


def beacon_addresses(listening: Sequence[str]) -> tuple[str, ...]:
    """The addresses that go into a beacon: without /p2p (the author's), short ones only, loopback last."""
    plain = [address.partition("/p2p/")[0] for address in listening]
    plain = [address for address in plain if len(address.encode()) <= MAX_ADDRESS_BYTES]
    plain.sort(key=lambda address: (_is_loopback(address), "/ws" in address))
    return tuple(dict.fromkeys(plain))[:MAX_ADDRESSES]


def _is_loopback(address: str) -> bool:
    return address.startswith(("/ip4/127.", "/ip6/::1/"))


class Announcer:
    """Makes this node's signed statements."""

    def __init__(self, identity: Callable[[], Identity], epoch: int, env: Env, load: Callable[[], Load]) -> None:
        """*identity*: asked each time, because a renewal changes it. *epoch*: boots of this node, from the store;
        raised there before it is used here."""
        self._identity = identity
        self._env = env
        self.load = load
        """How busy this node is now."""
        self.epoch = epoch
        self.sequence = 0
        self.offer: Offer = Offer(identity().peer_id, epoch, 0, "", (), 0.0)
        self.offer_bytes = b""
        self.addresses: tuple[str, ...] = ()
        self._told, self._told_at = Load(), -inf
        self._said_membership = b""
        self._said_offer = b""
        self._said_cards: frozenset[bytes] = frozenset()
        self._introduced_at = -inf
        self._allowance = float(BURST)
        self._spoke_at = env.monotonic()

    def __repr__(self) -> str:
        return f"<Announcer epoch {self.epoch}, sequence {self.sequence}, {len(self.offer.entries)} capabilities>"

    @property
    def offer_digest(self) -> bytes:
        return hashlib.sha256(self.offer_bytes).digest()

    def set_offer(self, name: str, entries: Sequence[OfferEntry]) -> bool:
        """Sign a new offer if name or entries differ from the last; whether they did. Paces alone leave its number."""
        entries = tuple(sorted(entries, key=lambda entry: entry.card))
        if self.offer_bytes and (self.offer.name, self.offer.entries) == (name, entries):
            return False
        last = self.offer
        paces_alone = self.offer_bytes and last.name == name and without_paces(entries) == without_paces(last.entries)
        sequence = last.sequence if paces_alone else last.sequence + 1
        self.offer = Offer(self._identity().peer_id, self.epoch, sequence, name, entries, self._env.now())
        self.offer_bytes = self._identity().sign(domains.OFFER, self.offer.encode())
        return True

    def jump(self, order: tuple[int, int]) -> bool:
        """Somebody knows a beacon of ours in *order*: go above it. True if we were behind (a restored backup)."""
        if order <= (self.epoch, self.sequence):
            return False
        self.epoch = order[0] + 1
        self.sequence = 0
        return True

    def gap(self) -> float:
        """Seconds to wait after a beacon before another change may be told."""
        now = self._env.monotonic()
        self._allowance = min(float(BURST), self._allowance + now - self._spoke_at) - 1.0
        self._spoke_at = now
        return MIN_GAP_S if self._allowance >= 0 else max(MIN_GAP_S, -self._allowance)

    def share(self) -> float:
        """Of a period until the next beacon. The first wait may be any, so that nodes that start together (after a
        power cut, say) soon speak evenly spread."""
        low, high = (0.0, 1.0) if self.sequence == 1 else (1 - JITTER, 1 + JITTER)
        return self._env.random.uniform(low, high)

    def beacon(self, nodes: int) -> tuple[bytes, Beacon]:
        """The next beacon for a mesh of *nodes*: envelope and value."""
        self.sequence += 1
        load = self.load()
        self._told, self._told_at = load, self._env.monotonic()
        beacon = Beacon(
            membership=self._identity().chain_digest,
            epoch=self.epoch,
            sequence=self.sequence,
            period_ms=int(beacon_period(nodes) * 1000 * (1 + JITTER)),
            offer=self.offer_digest,
            issued_at_ms=int(self._env.now() * 1000),
            load_permille=load.permille,
            queue=load.queue,
            cost_milli=load.cost_milli,
            addresses=self.addresses,
        )
        return self._identity().sign(domains.BEACON, beacon.encode()), beacon

    def announcement(self, beacon: bytes, card: Callable[[bytes], bytes | None]) -> Announcement:
        """*beacon* with what is new since the last one: membership, offer, cards, as far as they are small.

        *card*: the exact bytes of a card.
        """
        said = Announcement(beacon)
        chain, digest = self._identity().chain, self._identity().chain_digest
        if digest != self._said_membership and replace(said, membership=chain).fits:
            said = replace(said, membership=chain)
        cards = frozenset(entry.card for entry in self.offer.entries)
        if self.offer_digest != self._said_offer and replace(said, offer=self.offer_bytes).fits:
            said = replace(said, offer=self.offer_bytes)
            for body in filter(None, map(card, sorted(cards - self._said_cards))):
                said = said.with_card(body)
        self._said_membership, self._said_offer, self._said_cards = digest, self.offer_digest, cards
        return said

    def introduce(self, met: float) -> bool:
        """Somebody whom this node *met* at that time knows nothing of it: the next announcement says all that is small.

        False if that is done: for another neighbour, FLOOD_S before at most.
        """
        if self._introduced_at > met - FLOOD_S:
            return False
        self._introduced_at = self._env.monotonic()
        self._said_membership, self._said_offer, self._said_cards = b"", b"", frozenset()
        return True

    def load_due(self, nodes: int) -> float | None:
        """Seconds until a load may be told that has moved far from what was told; None if it has not."""
        if not self._load_changed():
            return None
        return max(0.0, self._told_at + nodes / LOADS_PER_SECOND - self._env.monotonic())

    def _load_changed(self) -> bool:
        load = self.load()
        if load.cost_milli != self._told.cost_milli:
            return True
        if abs(load.permille - self._told.permille) >= LOAD_STEP_PERMILLE:
            return True
        shorter, longer = sorted((load.queue, self._told.queue))
        return longer > 0 and longer >= QUEUE_FACTOR * shorter

    def leave(self) -> bytes:
        """The goodbye, as an envelope."""
        self.sequence += 1
        leave = Leave(self.epoch, self.sequence, int(self._env.now() * 1000))
        return self._identity().sign(domains.LEAVE, leave.encode())
