"""Chains of links from the owner's key down: verified offline, without anything but the mesh's public key.

Every link is signed by the subject of the one before it (the first by the owner) and may only narrow: scopes and
lifetime are compared by structure. Signatures are checked once and cached by digest; time and revocation at every use.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from google.protobuf.message import DecodeError

from atmosphere.identity.errors import IdentityError, Reason, from_envelope
from atmosphere.identity.identity_pb2 import Chain as Wire
from atmosphere.identity.link import Kind, Link
from atmosphere.identity.scopes import INVITE, ISSUE, covers, is_subset
from protocols.records import EnvelopeError, domains, open_envelope
from protocols.records.records_pb2 import Envelope
from transports.peer_id import PeerId

if TYPE_CHECKING:
    from atmosphere.identity.revocation import RevocationSet

MAX_LINKS = 3
MAX_CHAIN_BYTES = 2048   # three links with every field at a generous length; a usual membership has under 700
MAX_LINK_BYTES = 1024
CLOCK_SKEW_S = 300       # clocks of machines without NTP drift seconds a day; five minutes is also Kerberos's limit
CACHED_CHAINS = 4096     # the members that one node deals with at a time, at about 1 KB each


@dataclass(frozen=True, slots=True)
class Credential:
    """A chain whose signatures and structure hold. Whether it holds *now* is :func:`check_use`'s answer."""

    links: tuple[Link, ...]
    digest: bytes
    """SHA-256 of the chain's bytes."""

    @property
    def last(self) -> Link:
        return self.links[-1]

    @property
    def peer(self) -> PeerId:
        """Whose it is: the key that the connection must prove."""
        return self.links[-1].subject

    @property
    def mesh(self) -> bytes:
        return self.links[-1].mesh

    @property
    def scopes(self) -> tuple[str, ...]:
        return self.links[-1].scopes

    @property
    def serial(self) -> bytes:
        return self.links[-1].serial

    @property
    def name(self) -> str:
        """A label; proves nothing."""
        return self.links[-1].name

    @property
    def not_before(self) -> int:
        return self.links[-1].not_before

    @property
    def not_after(self) -> int:
        return self.links[-1].not_after

    @property
    def issuers(self) -> tuple[PeerId, ...]:
        """The keys between the owner and this one, from the top."""
        return tuple(link.subject for link in self.links[:-1])

    @property
    def level(self) -> int:
        """How far below the owner (0) the subject stands: the first link that names it."""
        return 1 + next(number for number, link in enumerate(self.links) if link.subject == self.peer)

    def allows(self, scope: str) -> bool:
        """Whether the scopes cover *scope*, e.g. ``call:llm/chat``."""
        return covers(self.scopes, scope)


class Membership(Credential):
    """A chain that makes a node a member."""

    __slots__ = ()

    @property
    def renew_at(self) -> float:
        """When a new one should be asked for: at 75 % of the lifetime, Unix seconds."""
        return self.not_before + 0.75 * (self.not_after - self.not_before)


def open_chain(chain: bytes, mesh: bytes) -> Credential:
    """Check signatures and structure of *chain* for the mesh with the 32-byte owner key *mesh*; no clock involved.

    A chain that ends in a membership comes back as a :class:`Membership`. Raises IdentityError.
    """
    envelopes = chain_parts(chain)
    links: list[Link] = []
    signer = PeerId.from_public_key(mesh)
    for number, envelope in enumerate(envelopes, 1):
        link = open_link(envelope, signer, mesh, number)
        if links:
            check_narrows(link, links[-1], number)
        links.append(link)
        signer = link.subject
    kind = Membership if links[-1].kind is Kind.MEMBERSHIP else Credential
    return kind(tuple(links), hashlib.sha256(chain).digest())


def chain_parts(chain: bytes) -> tuple[bytes, ...]:
    """The 1 to 3 envelopes in *chain*, none of them opened. Raises IdentityError."""
    if len(chain) > MAX_CHAIN_BYTES:
        raise IdentityError(Reason.OVERSIZED, f"a chain of {len(chain)} bytes, {MAX_CHAIN_BYTES} is the maximum")
    try:
        envelopes = Wire.FromString(chain).links
    except DecodeError as error:
        raise IdentityError(Reason.MALFORMED, "not a chain: the bytes are damaged or cut off") from error
    if not envelopes or Wire(links=envelopes).SerializeToString() != chain:
        raise IdentityError(Reason.MALFORMED, "a chain that is empty or not in its one encoding")
    if len(envelopes) > MAX_LINKS:
        raise IdentityError(Reason.TOO_MANY_LINKS, f"a chain of {len(envelopes)} links, {MAX_LINKS} is the maximum")
    return tuple(envelopes)


def open_link(envelope: bytes, signer: PeerId, mesh: bytes, number: int) -> Link:
    """The link in *envelope*, the *number*-th of its chain, if *signer* signed it for *mesh*. Raises IdentityError."""
    try:
        payload, _ = open_envelope(envelope, domains.LINK, MAX_LINK_BYTES, signer)
    except EnvelopeError as error:
        if _claimed_mesh(envelope) not in (None, mesh):  # better told than "forged"; nothing is trusted by it
            raise IdentityError(Reason.FOREIGN_MESH, "the chain belongs to another mesh") from error
        raise from_envelope(error, f"link {number} of the chain") from error
    link = Link.decode(payload)
    if link.mesh != mesh:
        raise IdentityError(Reason.FOREIGN_MESH, f"link {number} belongs to another mesh")
    return link


def _claimed_mesh(envelope: bytes) -> bytes | None:
    """The mesh that a link which could not be verified names, if it is a link at all."""
    try:
        return Link.decode(Envelope.FromString(envelope).payload).mesh
    except (DecodeError, IdentityError):
        return None


def check_narrows(link: Link, above: Link, number: int) -> None:
    """A link under *above*: may that one sign this at all, and does this allow no more?"""
    if above.kind is Kind.MEMBERSHIP or (above.kind is Kind.INVITE_KEY and link.kind is not Kind.MEMBERSHIP):
        raise IdentityError(Reason.NOT_ISSUER, f"link {number} is signed by a key that may not sign it")
    needed = {Kind.ISSUER: ISSUE, Kind.INVITE_KEY: INVITE}.get(link.kind)
    if needed is not None and not covers(above.scopes, needed):
        raise IdentityError(Reason.NOT_ISSUER, f"link {number} is signed by an issuer without scope {needed!r}")
    if not is_subset(link.scopes, above.scopes):
        raise IdentityError(Reason.WIDENED_SCOPE, f"link {number} allows more than the link above it")
    if link.not_before < above.not_before or link.not_after > above.not_after:
        raise IdentityError(Reason.WIDENED_LIFETIME, f"link {number} holds longer than the link above it")


def encode_chain(links: Sequence[bytes]) -> bytes:
    """The bytes of a chain of signed links, from the owner down."""
    return Wire(links=links).SerializeToString()


def split_chain(chain: bytes) -> tuple[bytes, ...]:
    """The signed links of a *chain* that was verified before."""
    return tuple(Wire.FromString(chain).links)


def check_use(
    credential: Credential, audience: PeerId | None, now: float, revocations: RevocationSet | None = None
) -> None:
    """What is asked at every use: for this peer, at this time, not revoked. Raises IdentityError."""
    if audience is not None and credential.peer != audience:
        raise IdentityError(
            Reason.WRONG_AUDIENCE,
            f"issued to {credential.peer.short} and shown by {audience.short}: join with an invite",
        )
    last = credential.last  # the links above hold at least as long: that is structure
    if now < last.not_before - CLOCK_SKEW_S:
        raise IdentityError(
            Reason.NOT_YET_VALID,
            f"valid only in {last.not_before - now:.0f} s: this machine's clock is behind, or the issuer's ahead",
        )
    if now > last.not_after + CLOCK_SKEW_S:
        raise IdentityError(
            Reason.EXPIRED,
            f"expired {now - last.not_after:.0f} s ago: join again with a new invite, or set this machine's clock",
        )
    if revocations is not None and revocations.is_revoked(credential):
        raise IdentityError(Reason.REVOKED, "revoked; only a new key with a new invite can join again")


def as_membership(credential: Credential) -> Membership:
    """*credential*, if it is a membership. Raises IdentityError (not_membership)."""
    if not isinstance(credential, Membership):
        raise IdentityError(Reason.NOT_MEMBERSHIP, f"the chain ends in an {credential.last.kind.name.lower()} link")
    return credential


def verify_chain(
    chain: bytes, mesh: bytes, audience: PeerId | None, now: float, revocations: RevocationSet | None = None
) -> Membership:
    """The membership in *chain*, valid for *audience* at *now* (Unix seconds). Raises IdentityError.

    *audience* None: the caller compares ``membership.peer`` itself (records of third nodes).
    """
    membership = as_membership(open_chain(chain, mesh))
    check_use(membership, audience, now, revocations)
    return membership


def verify_issuer(chain: bytes, mesh: bytes, now: float, revocations: RevocationSet | None = None) -> Credential:
    """The issuer in *chain*, valid at *now*. Raises IdentityError (not_issuer if it ends in another kind of link)."""
    credential = open_chain(chain, mesh)
    if credential.last.kind is not Kind.ISSUER:
        raise IdentityError(Reason.NOT_ISSUER, "the chain does not make its subject an issuer")
    check_use(credential, None, now, revocations)
    return credential


class ChainCache:
    """Chains of one mesh whose signatures were verified, at most 4096, the least used dropped first."""

    def __init__(self, mesh: bytes, size: int = CACHED_CHAINS) -> None:
        self._mesh = mesh
        self._size = size
        self._known: OrderedDict[bytes, Membership] = OrderedDict()
        self.hits = 0
        self.misses = 0

    def __repr__(self) -> str:
        return f"<ChainCache {len(self._known)} chains, {self.hits} hits, {self.misses} misses>"

    def verify(
        self, chain: bytes, now: float, revocations: RevocationSet | None = None, audience: PeerId | None = None
    ) -> Membership:
        """As :func:`verify_chain`; only the signatures of a chain that was seen before are not checked again."""
        digest = hashlib.sha256(chain).digest()
        membership = self._known.get(digest)
        if membership is None:
            self.misses += 1
            membership = as_membership(open_chain(chain, self._mesh))
            self._known[digest] = membership
            if len(self._known) > self._size:
                self._known.popitem(last=False)
        else:
            self.hits += 1
            self._known.move_to_end(digest)
        check_use(membership, audience, now, revocations)
        return membership
