"""Revocations: who may no longer act, and who said so.

A statement carries its own authority (a chain with scope ``revoke``), so anybody can judge it offline. Nobody strikes
above himself: with the owner at level 0 and every link one level lower, a membership or peer falls to a revoker of its
own level or above, an issuer only to one that stands above it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum

from google.protobuf.message import DecodeError
from nacl.signing import SigningKey

from atmosphere.identity.chain import CLOCK_SKEW_S, MAX_CHAIN_BYTES, Credential, open_chain
from atmosphere.identity.errors import IdentityError, Reason, from_envelope
from atmosphere.identity.identity_pb2 import Revocation as Wire
from atmosphere.identity.link import KEY_SIZE, MAX_TIME, SERIAL_SIZE, Kind, check_name, check_version
from atmosphere.identity.scopes import REVOKE
from protocols.records import EnvelopeError, domains, open_envelope, sign
from transports.peer_id import PeerId

VERSION = 1
MAX_REVOCATION_BYTES = MAX_CHAIN_BYTES + 512
MAX_REASON_BYTES = 64


class Target(IntEnum):
    """What is revoked. The numbers are the wire's."""

    MEMBERSHIP = Wire.MEMBERSHIP  # by serial; forgotten once the membership has ended
    PEER = Wire.PEER              # every membership of a key, for good
    ISSUER = Wire.ISSUER          # a key as issuer and all below it, for good


# Keys of the set: the hash of an enum member is a Python function, and five of them are asked at every call.
_MEMBERSHIP, _PEER, _ISSUER = int(Target.MEMBERSHIP), int(Target.PEER), int(Target.ISSUER)


@dataclass(frozen=True, slots=True)
class Revocation:
    """A verified statement."""

    kind: Target
    target: bytes
    """The serial of a membership, or a 32-byte public key."""
    at: int
    until: int
    """Unix seconds when a MEMBERSHIP statement may be forgotten; otherwise 0."""
    reason: str
    level: int
    """Of who signed it: 0 the owner."""
    signer: PeerId
    record: bytes
    """The exact bytes, to be passed on."""
    digest: bytes

    def strikes(self, credential: Credential) -> bool:
        """Whether this statement revokes *credential*: it is about it or an issuer in it, and not from below it."""
        if self.kind is Target.ISSUER:
            return any(
                link.kind is not Kind.MEMBERSHIP and link.subject.public_key == self.target and self.level < number
                for number, link in enumerate(credential.links, 1)
            )
        about = credential.serial if self.kind is Target.MEMBERSHIP else credential.peer.public_key
        return about == self.target and self.level <= credential.level


def revoke(
    kind: Target, target: bytes, key: SigningKey, mesh: bytes, now: float, *, authority: bytes = b"", until: int = 0,
    reason: str = "",
) -> bytes:
    """A signed statement by *key*; *authority* is its chain with scope ``revoke`` (empty for the owner's key).

    Raises IdentityError if the others would refuse it.
    """
    payload = Wire(
        version=VERSION, mesh=mesh, kind=Wire.Kind.ValueType(kind), target=target, at=int(now), until=until,
        authority=authority, reason=reason,
    ).SerializeToString()
    record = sign(domains.REVOCATION, payload, key)
    open_revocation(record, mesh, now)
    return record


def open_revocation(record: bytes, mesh: bytes, now: float) -> Revocation:
    """The statement in *record*, if its signer may make it. Raises IdentityError.

    The authority must have been valid when it spoke, not now: what was revoked stays so after the revoker has left.
    """
    try:
        payload, signer = open_envelope(record, domains.REVOCATION, MAX_REVOCATION_BYTES)
        wire = Wire.FromString(payload)
    except EnvelopeError as error:
        raise from_envelope(error, "revocation") from error
    except DecodeError as error:
        raise IdentityError(Reason.MALFORMED, "a revocation whose bytes are damaged") from error
    check_version(wire.version, VERSION, "revocation")
    if wire.mesh != mesh:
        raise IdentityError(Reason.FOREIGN_MESH, "a revocation of another mesh")
    kind = _check_fields(wire, now)
    level = _authority_level(wire, kind, signer)
    return Revocation(
        kind, wire.target, wire.at, wire.until, wire.reason, level, signer, record,
        hashlib.sha256(record).digest(),
    )


def _check_fields(wire: Wire, now: float) -> Target:
    try:
        kind = Target(wire.kind)
    except ValueError as error:
        raise IdentityError(Reason.MALFORMED, f"a revocation of unknown kind {wire.kind}") from error
    by_serial = kind is Target.MEMBERSHIP
    if len(wire.target) != (SERIAL_SIZE if by_serial else KEY_SIZE):
        raise IdentityError(Reason.MALFORMED, "a revocation whose target has the wrong length")
    if bool(wire.until) != by_serial or wire.until > MAX_TIME:
        raise IdentityError(Reason.MALFORMED, "only the revocation of a membership has an end, and it must have one")
    if wire.at > now + CLOCK_SKEW_S:
        raise IdentityError(Reason.NOT_YET_VALID, "a revocation from the future: one of the two clocks is wrong")
    check_name(wire.reason, MAX_REASON_BYTES)
    return kind


def _authority_level(wire: Wire, kind: Target, signer: PeerId) -> int:
    if kind is not Target.MEMBERSHIP and wire.target == wire.mesh:
        raise IdentityError(Reason.ABOVE_REVOKER, "the owner key cannot be revoked; a new owner key is a new mesh")
    if signer.public_key == wire.mesh:
        return 0
    if not wire.authority:
        raise IdentityError(Reason.FORBIDDEN, "a revocation that does not show who allowed it")
    authority = open_chain(wire.authority, wire.mesh)
    if authority.peer != signer:
        raise IdentityError(Reason.WRONG_AUDIENCE, "a revocation signed by another key than its authority names")
    if not authority.last.not_before - CLOCK_SKEW_S <= wire.at <= authority.last.not_after + CLOCK_SKEW_S:
        raise IdentityError(Reason.EXPIRED, "the revoker's authority did not hold when it spoke")
    if not authority.allows(REVOKE):
        raise IdentityError(Reason.FORBIDDEN, "the revoker's scopes do not cover 'revoke'")
    above = {key.public_key for key in authority.issuers if key != signer}
    if kind is not Target.MEMBERSHIP and wire.target in above:
        raise IdentityError(Reason.ABOVE_REVOKER, "a revocation of an issuer above the one who signed it")
    return authority.level


class RevocationSet:
    """All revocations of a mesh that a node knows. It only grows, and merging in any order gives the same set.

    Of several statements about one target the one from the highest level counts (then the one that lasts longest, then
    the smallest digest), so the set has one entry per target however often it is said.
    """

    def __init__(self, mesh: bytes) -> None:
        self._mesh = mesh
        self._entries: dict[tuple[int, bytes], Revocation] = {}
        self.version = 0
        """Rises with every change, so that what was derived from the set can tell that it is out of date."""

    def __repr__(self) -> str:
        return f"<RevocationSet {len(self._entries)} entries>"

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Revocation]:
        """In the order of their digests."""
        return iter(sorted(self._entries.values(), key=lambda entry: entry.digest))

    @property
    def digest(self) -> bytes:
        """SHA-256 over the sorted digests of the entries: equal sets, equal digests."""
        return hashlib.sha256(b"".join(entry.digest for entry in self)).digest()

    def add(self, record: bytes, now: float) -> Revocation | None:
        """Verify *record* and take it in; None if it says nothing new. Raises IdentityError."""
        entry = open_revocation(record, self._mesh, now)
        if entry.until and entry.until + CLOCK_SKEW_S < now:
            return None
        key = (int(entry.kind), entry.target)
        present = self._entries.get(key)
        if present and self._rank(present) <= self._rank(entry):
            return None
        self._entries[key] = entry
        self.version += 1
        return entry

    @staticmethod
    def _rank(entry: Revocation) -> tuple[int, int, bytes]:
        return entry.level, -entry.until, entry.digest

    def merge(self, records: Iterable[bytes], now: float) -> list[Revocation]:
        """Take in all of *records*; what was new. Raises IdentityError at the first that is refused."""
        return [entry for record in records if (entry := self.add(record, now)) is not None]

    def forget_ended(self, now: float) -> int:
        """Drop statements about memberships that have ended anyway; how many there were."""
        ended = [key for key, entry in self._entries.items() if entry.until and entry.until + CLOCK_SKEW_S < now]
        for key in ended:
            del self._entries[key]
        self.version += bool(ended)
        return len(ended)

    def is_revoked(self, credential: Credential) -> bool:
        """Whether the membership (or issuer) itself, its key, or an issuer above it was struck by one who may."""
        entries = self._entries
        if not entries:
            return False
        for key in ((_MEMBERSHIP, credential.serial), (_PEER, credential.peer.public_key)):
            entry = entries.get(key)
            if entry is not None and entry.strikes(credential):
                return True
        return self.is_issuer_revoked(credential)

    def is_peer_revoked(self, peer: PeerId, level: int) -> bool:
        """Whether a membership of *peer* that stood at *level* would be revoked from the start."""
        entry = self._entries.get((_PEER, peer.public_key))
        return entry is not None and entry.level <= level

    def is_issuer_revoked(self, credential: Credential) -> bool:
        """Whether an issuer in the chain was struck as one, so that nothing it signed counts any more."""
        if not self._entries:
            return False
        for link in credential.links:
            entry = self._entries.get((_ISSUER, link.subject.public_key))
            if entry is not None and entry.strikes(credential):
                return True
        return False
