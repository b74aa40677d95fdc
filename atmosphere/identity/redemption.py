"""Redemptions: which keys an invite has enrolled, as statements that every node can judge and merge.

The issuer that redeems an invite says so, signed, with the chain that lets it: so an invite used at one issuer is used
up at all. When both halves of a partition redeem the same use, the earliest wins and the other key is *lost*: all nodes
with the same statements agree on which, in whatever order they came.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from google.protobuf.message import DecodeError
from nacl.signing import SigningKey

from atmosphere.identity.chain import CLOCK_SKEW_S, Credential, open_chain
from atmosphere.identity.errors import IdentityError, Reason, from_envelope
from atmosphere.identity.identity_pb2 import Redemption as Wire
from atmosphere.identity.invite import MAX_INVITE_S, MAX_USES, Invite
from atmosphere.identity.link import KEY_SIZE, Kind, check_version
from atmosphere.identity.revocation import RevocationSet
from atmosphere.identity.scopes import INVITE
from protocols.records import EnvelopeError, domains, open_envelope, sign
from transports.peer_id import PeerId

VERSION = 1
INVITE_ID_SIZE = 32
MAX_REDEMPTION_BYTES = 1200
MAX_AUTHORITY_BYTES = 960    # what fits beside the other fields: two issuer links at a generous length
MAX_REDEMPTIONS = 100_000    # of one mesh in two months, at about 0.6 KB each
KEPT_S = 7 * 86400
"""How long after its invite's end a redemption is kept: as long as the membership it gave."""


@dataclass(frozen=True, slots=True)
class Redemption:
    """A verified statement: *signer* enrolled *peer* with an invite."""

    invite_id: bytes
    """SHA-256 of the invite."""
    peer: PeerId
    at_ms: int
    """When, by the signer's clock, Unix milliseconds."""
    uses: int
    """How many keys the invite may enrol."""
    expires: int
    """When the invite ends, Unix seconds."""
    signer: PeerId
    authority: Credential
    """What made the signer an issuer at that time."""
    record: bytes
    """The exact bytes, to be passed on."""
    digest: bytes


def redeem_record(key: SigningKey, authority: bytes, invite: Invite, peer: PeerId, now: float) -> bytes:
    """The statement by the issuer with *key* and the chain *authority* that *invite* enrolled *peer* at *now*.

    Raises IdentityError if the others would refuse it.
    """
    if invite.offline:
        raise IdentityError(Reason.MALFORMED, "an offline invite enrols without asking anybody: nobody can count it")
    if len(authority) > MAX_AUTHORITY_BYTES:
        raise IdentityError(
            Reason.OVERSIZED,
            f"an issuer certificate of {len(authority)} bytes, {MAX_AUTHORITY_BYTES} is the maximum for redeeming "
            "invites: have it issued again with fewer scopes or shorter names",
        )
    payload = Wire(
        version=VERSION, mesh=invite.mesh, invite=invite.id, peer=peer.public_key, at_ms=int(now * 1000),
        uses=invite.uses, expires=invite.expires, authority=authority,
    ).SerializeToString()
    record = sign(domains.REDEMPTION, payload, key)
    open_redemption(record, invite.mesh, now)
    return record


def open_redemption(record: bytes, mesh: bytes, now: float) -> Redemption:
    """The statement in *record*, if its signer was an issuer that may invite when it spoke. Raises IdentityError."""
    try:
        payload, signer = open_envelope(record, domains.REDEMPTION, MAX_REDEMPTION_BYTES)
        wire = Wire.FromString(payload)
    except EnvelopeError as error:
        raise from_envelope(error, "redemption") from error
    except DecodeError as error:
        raise IdentityError(Reason.MALFORMED, "a redemption whose bytes are damaged") from error
    check_version(wire.version, VERSION, "redemption")
    if wire.mesh != mesh:
        raise IdentityError(Reason.FOREIGN_MESH, "a redemption of another mesh")
    _check_fields(wire, now)
    authority = _authority(wire, signer)
    return Redemption(
        wire.invite, PeerId.from_public_key(wire.peer), wire.at_ms, wire.uses, wire.expires, signer, authority,
        record, hashlib.sha256(record).digest(),
    )


def _check_fields(wire: Wire, now: float) -> None:
    if len(wire.invite) != INVITE_ID_SIZE or len(wire.peer) != KEY_SIZE or not 1 <= wire.uses <= MAX_USES:
        raise IdentityError(Reason.MALFORMED, "a redemption with a wrong invite, peer or number of uses")
    at = wire.at_ms / 1000
    if at > now + CLOCK_SKEW_S:
        raise IdentityError(Reason.NOT_YET_VALID, "a redemption from the future: one of the two clocks is wrong")
    if at > wire.expires + CLOCK_SKEW_S:
        raise IdentityError(Reason.EXPIRED, "a redemption of an invite that had expired")
    if wire.expires > at + MAX_INVITE_S + CLOCK_SKEW_S:
        raise IdentityError(Reason.MALFORMED, "a redemption of an invite that holds for more than 30 days")


def _authority(wire: Wire, signer: PeerId) -> Credential:
    authority = open_chain(wire.authority, wire.mesh)
    if authority.last.kind is not Kind.ISSUER:
        raise IdentityError(Reason.NOT_ISSUER, "a redemption by somebody who is no issuer")
    if authority.peer != signer:
        raise IdentityError(Reason.WRONG_AUDIENCE, "a redemption signed by another key than its authority names")
    if not authority.not_before - CLOCK_SKEW_S <= wire.at_ms / 1000 <= authority.not_after + CLOCK_SKEW_S:
        raise IdentityError(Reason.EXPIRED, "the redeemer's authority did not hold when it spoke")
    if not authority.allows(INVITE):
        raise IdentityError(Reason.FORBIDDEN, "the redeemer's scopes do not cover 'invite'")
    return authority


Key = tuple[bytes, PeerId, PeerId]
"""Invite, peer, signer: one statement counts for each."""


class RedemptionSet:
    """All redemptions of a mesh that a node knows. Merging in any order gives the same set and the same verdicts.

    What an issuer said counts until it is struck as an issuer in *revocations*: then its members fall with it, and an
    issuer that invented earlier uses has thrown nobody out for good. Of several statements by one signer about one
    peer and invite the earliest counts; where signers differ about the number of uses, the largest (an issuer that
    lies upwards could as well have enrolled those keys itself). At most *limit*; those whose invites end first go.
    """

    def __init__(
        self, mesh: bytes, revocations: RevocationSet | None = None, *, kept_s: float = KEPT_S,
        limit: int = MAX_REDEMPTIONS,
    ) -> None:
        """*kept_s*: the longest lifetime of the memberships that issuers of this mesh give, seconds."""
        self._mesh = mesh
        self._revocations = revocations if revocations is not None else RevocationSet(mesh)
        self._kept_s = kept_s
        self._limit = limit
        self._entries: dict[Key, Redemption] = {}
        self._of_invite: dict[bytes, set[Key]] = {}
        self._of_peer: dict[PeerId, set[bytes]] = {}
        self._ending: list[tuple[int, bytes, Key]] = []  # heap; may hold entries that were replaced since
        self._winners: dict[bytes, tuple[int, frozenset[PeerId]]] = {}  # with the version of the revocations

    def __repr__(self) -> str:
        return f"<RedemptionSet {len(self._entries)} entries of {len(self._of_invite)} invites>"

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Redemption]:
        """In the order of their digests."""
        return iter(sorted(self._entries.values(), key=lambda entry: entry.digest))

    @property
    def digest(self) -> bytes:
        """SHA-256 over the sorted digests of the entries: equal sets, equal digests."""
        return hashlib.sha256(b"".join(entry.digest for entry in self)).digest()

    def add(self, record: bytes, now: float) -> Redemption | None:
        """Verify *record* and take it in; None if it says nothing new or has ended. Raises IdentityError."""
        entry = open_redemption(record, self._mesh, now)
        key = (entry.invite_id, entry.peer, entry.signer)
        present = self._entries.get(key)
        if self._has_ended(entry.expires, now) or (present and self._rank(present) <= self._rank(entry)):
            return None
        self._put(key, entry)
        while len(self._entries) > self._limit:
            self._drop_first()
        return entry if self._entries.get(key) is entry else None

    def merge(self, records: Iterable[bytes], now: float) -> list[Redemption]:
        """Take in all of *records*; what was new. Raises IdentityError at the first that is refused."""
        return [entry for record in records if (entry := self.add(record, now)) is not None]

    def uses_of(self, invite_id: bytes) -> frozenset[PeerId]:
        """The keys that the invite has enrolled, those that lost included."""
        return frozenset(entry.peer for entry in self._counted(invite_id))

    def lost(self, peer: PeerId) -> bool:
        """Whether *peer* came too late with every invite it used. Constant time but for the first look at an invite."""
        invites = self._of_peer.get(peer)
        if not invites:
            return False
        lost = False
        for invite in invites:
            if peer in self._winners_of(invite):
                return False
            lost = lost or peer in self.uses_of(invite)  # not if only struck issuers say so: then it did not use it
        return lost

    def forget_ended(self, now: float) -> int:
        """Drop what no membership can rest on any more; how many there were."""
        before = len(self._entries)
        while self._ending and self._has_ended(self._ending[0][0], now):
            self._drop_first()
        return before - len(self._entries)

    def _has_ended(self, expires: int, now: float) -> bool:
        # Redeemed up to one skew after the invite's end, and the membership is used up to another after its own.
        return expires + self._kept_s + 2 * CLOCK_SKEW_S < now

    @staticmethod
    def _rank(entry: Redemption) -> tuple[int, bytes]:
        return entry.at_ms, entry.digest

    def _put(self, key: Key, entry: Redemption) -> None:
        self._entries[key] = entry
        self._of_invite.setdefault(entry.invite_id, set()).add(key)
        self._of_peer.setdefault(entry.peer, set()).add(entry.invite_id)
        self._winners.pop(entry.invite_id, None)
        heapq.heappush(self._ending, (entry.expires, entry.digest, key))
        if len(self._ending) > 2 * len(self._entries) + 64:  # replaced ones must not pile up
            self._ending = [(held.expires, held.digest, at) for at, held in self._entries.items()]
            heapq.heapify(self._ending)

    def _drop_first(self) -> None:
        _, digest, key = heapq.heappop(self._ending)
        entry = self._entries.get(key)
        if entry is None or entry.digest != digest:
            return
        invite, peer, _ = key
        del self._entries[key]
        self._winners.pop(invite, None)
        keys = self._of_invite[invite]
        keys.discard(key)
        if not any(other == peer for _, other, _ in keys):
            self._of_peer[peer].discard(invite)
            if not self._of_peer[peer]:
                del self._of_peer[peer]
        if not keys:
            del self._of_invite[invite]

    def _counted(self, invite: bytes) -> list[Redemption]:
        """The statements about *invite* whose signers still count."""
        entries = (self._entries[key] for key in self._of_invite.get(invite, ()))
        return [entry for entry in entries if not self._revocations.is_issuer_revoked(entry.authority)]

    def _winners_of(self, invite: bytes) -> frozenset[PeerId]:
        """The first keys by time, then peer id, as many as the invite may enrol."""
        version, winners = self._winners.get(invite, (-1, frozenset()))
        if version != self._revocations.version:
            counted = self._counted(invite)
            first: dict[PeerId, tuple[int, bytes]] = {}
            for entry in counted:
                rank = (entry.at_ms, entry.peer.raw)
                first[entry.peer] = min(first.get(entry.peer, rank), rank)
            uses = max((entry.uses for entry in counted), default=0)
            winners = frozenset(sorted(first, key=first.__getitem__)[:uses])
            self._winners[invite] = (self._revocations.version, winners)
        return winners
