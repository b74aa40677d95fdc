"""The one door for what other nodes say: every record is checked here before it becomes a fact.

Pure: bytes in, verdicts out, no I/O. The same door serves gossip and sync; who forwarded a record does not matter,
because each one proves itself: beacons, leaves and offers by their author's signature, memberships by their chain,
cards by their digest.
"""

from __future__ import annotations

import hashlib
import logging
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType

from atmosphere.capabilities.card import Card, CardError
from atmosphere.capabilities.offer import Offer
from atmosphere.capabilities.vector import CardVector
from atmosphere.env import Env
from atmosphere.identity import IdentityError, Membership, Reason
from atmosphere.identity.chain import CLOCK_SKEW_S
from atmosphere.mesh.announcer import longest_period
from atmosphere.mesh.inventory import presence_of, said_of
from atmosphere.mesh.library import Library
from atmosphere.mesh.members import Members
from atmosphere.mesh.table import GradientTable, State, patience
from atmosphere.mesh.wanted import Wanted
from protocols.beacons import MAX_BEACON_BYTES, Announcement, Beacon, BeaconError, Leave
from protocols.records import EnvelopeError, domains, open_envelope
from protocols.sync.messages import Key, Kind, Known, Presence, Record
from transports.peer_id import PeerId

logger = logging.getLogger(__name__)

MAX_WAITING = 1000
"""Beacons kept while their author's membership is being fetched."""
MAX_OFFER_ENVELOPE = 257 * 1024
PROOF_PERIODS = 2
"""A beacon out of somebody's library that is older has been followed by others, if the author lives. The period is its
author's own, or what is usual in a mesh of this size: that may have grown since, and its nodes speak less often now."""


class Taken(Enum):
    """What became of a record."""

    NEW = "new"
    OLD = "old"  # nothing new, nothing wrong
    WAITING = "waiting"  # cannot be judged before something else has been fetched
    BAD = "bad"  # no sound node sends this


@dataclass(frozen=True, slots=True)
class Hooks:
    """What the rest of the node wants to hear of; called synchronously."""

    card: Callable[[bytes, Card], None]
    vector: Callable[[CardVector], None]
    own_order: Callable[[tuple[int, int]], None]
    """Somebody has a beacon of this node itself, in this order: a restored backup must jump above it."""
    contested: Callable[[PeerId, tuple[int, int]], None] = lambda peer, order: None
    """A neighbour holds a node alive that this node holds offline, or this node itself offline, and both know its
    beacon in this order: only a later one of it can settle that."""
    proves: Callable[[PeerId, tuple[int, int]], bool] = lambda peer, order: True
    """A beacon of a node is fresh enough to be a proof of life: whether the failure detector takes it for one."""


class Intake:
    """Takes records in, keeps facts in the table and bytes in the library, and notes what is still wanted."""

    def __init__(self, table: GradientTable, library: Library, members: Members, env: Env, hooks: Hooks) -> None:
        self._table = table
        self._library = library
        self._members = members
        self._env = env
        self._hooks = hooks
        self.wanted = Wanted()
        self.news = 0
        """Counts what others may not know either: nodes that are new, back, or gone with a goodbye, and new offers and
        memberships."""
        self._named = 0
        """Nodes of which a neighbour has said last that it knows more: the mesh may be so large."""
        self._waiting: OrderedDict[PeerId, tuple[bytes, Presence | None]] = OrderedDict()

    def __repr__(self) -> str:
        return f"<Intake {self.wanted!r}, {len(self._waiting)} beacons waiting>"

    def take(
        self, key: Key, record: Record, source: PeerId | None, believed: Mapping[bytes, Presence] = MappingProxyType({})
    ) -> Taken:
        """A record that came in answer to a request for *key*. *believed*: what *source* thinks of beacons' authors, by
        their keys; where it says nothing a beacon proves no life."""
        self.wanted.drop(key)
        if record.kind is Kind.BEACON:
            return self.beacon(
                record.body, None, source, lambda author: believed.get(author.public_key, Presence.OFFLINE)
            )
        if record.kind is Kind.LEAVE:
            return self.leave(record.body, None)
        if record.digest != key.key and record.kind is not Kind.VECTOR:
            return _bad(f"a {record.kind.name.lower()} is not what was asked for")
        if record.kind is Kind.MEMBERSHIP:
            return self.membership(record.body, source)
        if record.kind is Kind.OFFER:
            return self.offer(record.body, source)
        if record.kind is Kind.CARD:
            return self.card(record.body, source)
        if record.kind is Kind.VECTOR:
            return self.vector(key, record.body)
        return Taken.OLD

    def announcement(self, announcement: Announcement, author: PeerId, source: PeerId | None) -> Taken:
        """What *author* has published: its beacon, and such of the records that it names as are not here yet."""
        taken = self.beacon(announcement.beacon, author, source)
        if taken not in (Taken.NEW, Taken.WAITING):
            return taken
        records = [Record(Kind.MEMBERSHIP, announcement.membership), Record(Kind.OFFER, announcement.offer)]
        records += [Record(Kind.CARD, card) for card in announcement.cards]
        for record in records:
            key = Key(record.kind, record.digest)
            if key in self.wanted and self.take(key, record, source) is Taken.BAD:
                return Taken.BAD
        if self._library.get(Key(Kind.BEACON, author.public_key)) == announcement.beacon:
            return Taken.NEW
        return taken

    def beacon(
        self,
        body: bytes,
        author: PeerId | None,
        source: PeerId | None,
        believed: Callable[[PeerId], Presence | None] = lambda author: None,
    ) -> Taken:
        """An envelope with a beacon. *author*: who must have signed it (the gossip message's author), None: anybody.
        *believed*: what *source*, in whose library it was, thinks of its author; None: the author has just said it."""
        opened = self._open(body, domains.BEACON, MAX_BEACON_BYTES, author)
        if opened is None:
            return Taken.BAD
        payload, signer = opened
        try:
            beacon = Beacon.decode(payload)
        except BeaconError as error:
            return _bad(f"beacon of {signer}: {error}")
        if signer == self._table.me:
            self._hooks.own_order(beacon.order)
            return Taken.OLD
        known = self._table.nodes.get(signer)
        if known is not None and known.beacon is not None and beacon.order <= known.beacon.order:
            return Taken.OLD
        if not self._fresh(beacon):
            return Taken.OLD
        try:
            membership = self._members.verified(beacon.membership, known.membership if known is not None else None)
        except IdentityError as error:
            logger.debug("beacon of %s: %s", signer, error)
            return Taken.BAD if error.reason is Reason.REVOKED else Taken.OLD
        if membership is None:
            self._wait(signer, body, beacon, source, believed(signer))
            return Taken.WAITING
        if membership.peer != signer:
            return _bad(f"beacon of {signer}: it names the membership of another")
        return self._observe(signer, body, beacon, membership, source, believed(signer))

    def _open(self, body: bytes, domain: bytes, limit: int, author: PeerId | None) -> tuple[bytes, PeerId] | None:
        try:
            payload, signer = open_envelope(body, domain, limit)
        except EnvelopeError as error:
            logger.debug("a record was refused: %s", error)
            return None
        if author is not None and signer != author:
            logger.debug("a record was refused: gossiped by %s and signed by %s", author, signer)
            return None
        return payload, signer

    def forget(self, peer: PeerId) -> None:
        """Drop what was taken in of *peer* itself: it is revoked, or silent for too long."""
        self._table.forget(peer)
        self._waiting.pop(peer, None)
        self._library.drop(Key(Kind.BEACON, peer.public_key))
        self._library.drop(Key(Kind.LEAVE, peer.public_key))

    def _fresh(self, beacon: Beacon) -> bool:
        age = self._env.now() - beacon.issued_at_ms / 1000
        return -CLOCK_SKEW_S <= age <= CLOCK_SKEW_S + 3 * beacon.period_ms / 1000

    def _wait(
        self, signer: PeerId, body: bytes, beacon: Beacon, source: PeerId | None, presence: Presence | None
    ) -> None:
        self._waiting[signer] = body, presence
        if len(self._waiting) > MAX_WAITING:
            self._waiting.popitem(last=False)
        self.wanted.add(Key(Kind.MEMBERSHIP, beacon.membership), source, self._env.monotonic())

    def _observe(
        self, signer: PeerId, body: bytes, beacon: Beacon, membership: Membership, source: PeerId | None,
        presence: Presence | None,
    ) -> Taken:
        now = self._env.monotonic()
        age = max(0.0, self._env.now() - beacon.issued_at_ms / 1000)
        if presence is None:
            proof, seen = True, now - min(age, CLOCK_SKEW_S)  # clocks differ
        else:
            usual = longest_period(max(len(self._table.nodes), self._named))
            period = max(beacon.period_ms / 1000, usual)
            proof, seen = presence is Presence.ALIVE and age <= PROOF_PERIODS * period, now - age
        if not proof and age > patience(beacon) and signer not in self._table.nodes:
            return Taken.OLD  # already forgotten here
        proof = proof and self._hooks.proves(signer, beacon.order)
        node = self._table.nodes.get(signer)
        before, replaced = said_of(node), node.beacon if node is not None else None
        if not self._table.observe(signer, beacon, membership, seen, proof=proof):
            return Taken.OLD
        self.news += said_of(self._table.nodes.get(signer)) != before
        self._members.renewed(membership)
        self._library.put(Key(Kind.BEACON, signer.public_key), body)
        self._library.drop(Key(Kind.LEAVE, signer.public_key))
        wanted = Key(Kind.OFFER, beacon.offer)
        if replaced is not None and replaced.offer != beacon.offer:
            self.wanted.drop(Key(Kind.OFFER, replaced.offer))
        known = self._library.get(wanted)
        if known is None:
            self.wanted.add(wanted, source, now)
        elif replaced is not None and replaced.offer == beacon.offer and node is not None and node.offer is not None:
            self._need_cards(node.offer, source)  # it was taken in, but its cards may still be missing
        else:
            self.offer(known, source)
        return Taken.NEW

    def leave(self, body: bytes, author: PeerId | None) -> Taken:
        """An envelope with a goodbye."""
        opened = self._open(body, domains.LEAVE, MAX_BEACON_BYTES, author)
        if opened is None:
            return Taken.BAD
        payload, signer = opened
        try:
            leave = Leave.decode(payload)
        except BeaconError as error:
            return _bad(f"leave of {signer}: {error}")
        node = self._table.nodes.get(signer)
        if node is None or signer == self._table.me or (node.beacon is not None and leave.order < node.beacon.order):
            return Taken.OLD
        if node.state is State.LEFT:
            return Taken.OLD
        self._table.gone(signer, "it said goodbye", State.LEFT)
        self.news += 1
        self._library.put(Key(Kind.LEAVE, signer.public_key), body)
        return Taken.NEW

    def membership(self, chain: bytes, source: PeerId | None) -> Taken:
        """A membership chain of any peer; a beacon that waited for it is taken in now."""
        try:
            membership = self._members.learn(chain)
        except IdentityError as error:
            return _bad(f"a membership was refused: {error}")
        waiting = self._waiting.pop(membership.peer, None)
        if waiting is not None:
            body, presence = waiting
            self.beacon(body, membership.peer, source, lambda author: presence)
        return Taken.NEW

    def offer(self, body: bytes, source: PeerId | None) -> Taken:
        """A signed offer; it counts when the author's latest beacon names it."""
        opened = self._open(body, domains.OFFER, MAX_OFFER_ENVELOPE, None)
        if opened is None:
            return Taken.BAD
        payload, signer = opened
        try:
            offer = Offer.decode(payload)
        except CardError as error:
            return _bad(f"offer of {signer}: {error}")
        digest = hashlib.sha256(body).digest()
        node = self._table.nodes.get(signer)
        if offer.peer != signer:
            return _bad(f"offer of {signer}: it is in another's name")
        if node is None or node.beacon is None or node.beacon.offer != digest:
            return Taken.OLD
        self._library.put(Key(Kind.OFFER, digest), body)
        self._need_cards(offer, source)
        self._table.offered(signer, offer)
        return Taken.NEW

    def _need_cards(self, offer: Offer, source: PeerId | None) -> None:
        for entry in offer.entries:
            self._need_card(entry.card, source)

    def _need_card(self, card_id: bytes, source: PeerId | None) -> None:
        if card_id in self._table.cards:
            return
        body = self._library.get(Key(Kind.CARD, card_id))
        if body is None:
            self.wanted.add(Key(Kind.CARD, card_id), source, self._env.monotonic())
        else:
            self.card(body, source)

    def card(self, body: bytes, source: PeerId | None) -> Taken:
        """A card; whoever asked for it by digest has compared the digest."""
        card_id = hashlib.sha256(body).digest()
        try:
            card = Card.decode(body)
        except CardError as error:
            return _bad(f"card {card_id.hex()[:8]}: {error}")
        self._library.put(Key(Kind.CARD, card_id), body)
        self._table.described(card_id, card)
        self._hooks.card(card_id, card)
        return Taken.NEW

    def vector(self, key: Key, body: bytes) -> Taken:
        """A card's vector, said by a member."""
        try:
            vector = CardVector.decode(body)
        except CardError as error:
            return _bad(f"vector: {error}")
        if vector_key(vector.card, vector.space) != key:
            return _bad("vector: of another card or space than was asked for")
        self._library.put(key, body)
        self._hooks.vector(vector)
        return Taken.NEW

    def newer(self, known: Iterable[Known]) -> list[Key]:
        """What to fetch of what a neighbour has: beacons that are later than ours, and goodbyes."""
        known = tuple(known)
        self._named = len(known)
        keys = []
        for item in known:
            try:
                author = PeerId.from_public_key(item.author)
            except ValueError:
                continue
            kind = self._missing(author, item)
            if kind is not None:
                keys.append(Key(kind, item.author))
        return keys

    def _missing(self, author: PeerId, item: Known) -> Kind | None:
        node = self._table.nodes.get(author)
        if author == self._table.me:
            self._hooks.own_order(item.order)
        if node is None or node.beacon is None:
            return None if author == self._table.me or item.presence is Presence.LEFT else Kind.BEACON
        mine, theirs = presence_of(node), item.presence
        if node.beacon.order == item.order and (
            (mine, theirs) == (Presence.OFFLINE, Presence.ALIVE) or (author == self._table.me and theirs is not mine)
        ):
            self._hooks.contested(author, item.order)
        if author == self._table.me or node.beacon.order > item.order:
            return None
        if theirs is Presence.LEFT:
            return Kind.LEAVE if mine is not Presence.LEFT else None
        return Kind.BEACON if node.beacon.order < item.order else None


def _bad(reason: str) -> Taken:
    logger.debug("%s", reason)
    return Taken.BAD


def vector_key(card_id: bytes, space: str) -> Key:
    """How a card's vector is asked for."""
    return Key(Kind.VECTOR, card_id + space.encode())
