"""What a node is in its mesh: its key, its membership, and what these allow it to sign for others."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from nacl.signing import SigningKey

from atmosphere.identity import scopes as scope_rules
from atmosphere.identity.chain import (
    CLOCK_SKEW_S,
    MAX_LINKS,
    Credential,
    Membership,
    check_use,
    encode_chain,
    open_chain,
    split_chain,
    verify_chain,
    verify_issuer,
)
from atmosphere.identity.errors import IdentityError, Reason
from atmosphere.identity.invite import MAX_INVITE_S, SECRET_SIZE, Invite, create_invite, create_offline_invite
from atmosphere.identity.link import SERIAL_SIZE, Kind, Link
from atmosphere.identity.redemption import MAX_AUTHORITY_BYTES, redeem_record
from atmosphere.identity.revocation import RevocationSet, Target, revoke
from protocols.records import domains, sign
from transports.peer_id import PeerId

MEMBERSHIP_S = 7 * 86400       # a stolen node is out by itself in a week; members renew at 75 % of it
ISSUER_S = 365 * 86400         # the owner key may stay in a drawer for a year
TokenBytes = Callable[[int], bytes]
"""So many unpredictable bytes: ``Env.token_bytes``."""


def issue_link(
    key: SigningKey, above: bytes, kind: Kind, subject: PeerId, scopes: Iterable[str], name: str, mesh: bytes,
    now: float, lifetime: float, token_bytes: TokenBytes,
) -> bytes:
    """The chain *above* (empty: *key* is the owner's) with one more link, cut to what the link above allows in time."""
    not_before, not_after = int(now), int(now + lifetime)
    if above:
        last = open_chain(above, mesh).last
        not_before, not_after = max(not_before, last.not_before), min(not_after, last.not_after)
        if not_before >= not_after:
            raise IdentityError(Reason.EXPIRED, "this node's issuer certificate has ended: have the owner renew it")
    link = Link(token_bytes(SERIAL_SIZE), kind, mesh, subject, tuple(scopes), not_before, not_after, name)
    signed = sign(domains.LINK, link.encode(), key, name_signer=False)
    chain = encode_chain([*(split_chain(above) if above else ()), signed])
    open_chain(chain, mesh)  # never hand out what the others will refuse; the error says why
    return chain


@dataclass(frozen=True)
class Identity:
    """Immutable; a renewed membership gives a new one (:meth:`with_membership`). Never shows its seed."""

    seed: bytes = field(repr=False)
    """32 bytes: the node's private key, for the transports."""
    membership: Membership
    mesh_name: str
    chain: bytes = field(repr=False)
    """The membership's exact bytes."""
    issuer_chain: bytes = field(default=b"", repr=False)
    """What makes this node an issuer; empty if it is none."""
    _key: SigningKey = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_key", SigningKey(self.seed))
        if self.membership.peer != self.peer_id:
            raise IdentityError(Reason.WRONG_AUDIENCE, "the membership in this home is for another node key")

    @classmethod
    def load(cls, seed: bytes, mesh: bytes, mesh_name: str, chain: bytes, issuer_chain: bytes = b"") -> Identity:
        """From what a home folder keeps. An expired membership loads: it can say so. Raises IdentityError."""
        membership = open_chain(chain, mesh)
        if not isinstance(membership, Membership):
            raise IdentityError(Reason.NOT_MEMBERSHIP, "the membership in this home is none")
        return cls(seed, membership, mesh_name, chain, issuer_chain)

    @property
    def peer_id(self) -> PeerId:
        return PeerId.from_public_key(self._key.verify_key.encode())

    @property
    def mesh(self) -> bytes:
        """The owner's public key, 32 bytes."""
        return self.membership.mesh

    @property
    def mesh_id(self) -> str:
        """The text form: the owner key as a peer id."""
        return str(PeerId.from_public_key(self.mesh))

    @property
    def name(self) -> str:
        """This node's label."""
        return self.membership.name

    @property
    def chain_digest(self) -> bytes:
        """SHA-256 of :attr:`chain`."""
        return self.membership.digest

    @property
    def issuer(self) -> Credential | None:
        """What this node may hand on, if it is an issuer."""
        return open_chain(self.issuer_chain, self.mesh) if self.issuer_chain else None

    def with_membership(self, chain: bytes, now: float) -> Identity:
        """This identity with a newer membership of its own. Raises IdentityError."""
        return replace(self, membership=verify_chain(chain, self.mesh, self.peer_id, now), chain=chain)

    def with_issuer(self, chain: bytes, now: float) -> Identity:
        """This identity with the issuer certificate in *chain* of its own. Raises IdentityError."""
        certificate = verify_issuer(chain, self.mesh, now)
        if certificate.peer != self.peer_id:
            raise IdentityError(Reason.WRONG_AUDIENCE, "this issuer certificate is for another node")
        return replace(self, issuer_chain=chain)

    def sign(self, domain: bytes, payload: bytes) -> bytes:
        """An envelope of *payload* by the node key."""
        return sign(domain, payload, self._key)

    def issue_membership(
        self, subject: PeerId, name: str, scopes: Iterable[str], now: float, token_bytes: TokenBytes,
        revocations: RevocationSet | None = None, *, lifetime: float = MEMBERSHIP_S,
    ) -> bytes:
        """The chain that makes *subject* a member for *lifetime* seconds, at most as long as this issuer.

        Raises IdentityError.
        """
        self._require_issuer(now, revocations)
        chain = issue_link(
            self._key, self.issuer_chain, Kind.MEMBERSHIP, subject, scopes, name, self.mesh, now, lifetime, token_bytes
        )
        verify_chain(chain, self.mesh, subject, now, revocations)  # a revoked key is told so here, not by every node
        return chain

    def renew(
        self, chain: bytes, subject: PeerId, now: float, token_bytes: TokenBytes,
        revocations: RevocationSet | None = None, *, lifetime: float = MEMBERSHIP_S,
    ) -> bytes:
        """A membership like the one in *chain*, from now on. Scopes beyond this issuer's own are refused."""
        old = verify_chain(chain, self.mesh, subject, now, revocations)
        return self.issue_membership(
            subject, old.name, old.scopes, now, token_bytes, revocations, lifetime=lifetime
        )

    def appoint_issuer(
        self, peer: PeerId, scopes: Iterable[str], now: float, token_bytes: TokenBytes, lifetime: float = ISSUER_S,
        *, name: str = "", revocations: RevocationSet | None = None,
    ) -> bytes:
        """The chain that makes *peer* an issuer below this one; needs scope ``issue``. Raises IdentityError.

        It may give memberships within *scopes*; with ``invite`` among them it may invite and redeem invites.
        """
        own = self._require_issuer(now, revocations)
        if not own.allows(scope_rules.ISSUE):
            raise IdentityError(Reason.FORBIDDEN, "this node's scopes do not cover 'issue': ask the owner")
        if len(own.links) + 2 > MAX_LINKS:
            raise IdentityError(
                Reason.TOO_MANY_LINKS, "an issuer below this one could sign no membership: ask an issuer further up"
            )
        if not 0 < lifetime <= ISSUER_S:
            raise IdentityError(Reason.MALFORMED, "an issuer certificate holds for more than 0 and at most 365 days")
        chain = issue_link(
            self._key, self.issuer_chain, Kind.ISSUER, peer, scopes, name, self.mesh, now, lifetime, token_bytes
        )
        if len(chain) > MAX_AUTHORITY_BYTES:
            raise IdentityError(
                Reason.OVERSIZED,
                f"the issuer certificate would have {len(chain)} bytes, {MAX_AUTHORITY_BYTES} are the maximum: "
                "use fewer scopes or a shorter name",
            )
        verify_issuer(chain, self.mesh, now, revocations)
        return chain

    def revoke(self, kind: Target, target: bytes, now: float, reason: str = "", until: int = 0) -> bytes:
        """A signed revocation of *target* by the issuer chain, or by the membership if only that covers ``revoke``.

        *until*: the not_after of a membership; 0 for peers and issuers. Whether the target stands above this node is
        judged wherever the revocation is used. Raises IdentityError.
        """
        issuer = self.issuer
        by_issuer = issuer is not None and issuer.allows(scope_rules.REVOKE)
        authority = self.issuer_chain if by_issuer else self.chain
        return revoke(kind, target, self._key, self.mesh, now, authority=authority, until=until, reason=reason)

    def redeem_record(self, invite: Invite, peer: PeerId, now: float) -> bytes:
        """The statement that *invite* enrolled *peer*; needs an issuer with scope ``invite``. Raises IdentityError.

        One about a time before this node's certificate began says that beginning instead: it must hold by itself.
        """
        issuer = self.issuer
        at = now if issuer is None else max(now, issuer.not_before)
        self._require_issuer(at)
        return redeem_record(self._key, self.issuer_chain, invite, peer, at)

    def create_invite(
        self, addresses: Iterable[str], now: float, token_bytes: TokenBytes, *, lifetime: float = 3600.0,
        uses: int = 1, scopes: Iterable[str] = scope_rules.MEMBER, approval: bool = False,
    ) -> Invite:
        """An invite by this node, good for *lifetime* seconds and *uses* keys. Raises IdentityError."""
        issuer = self._require_inviter(now, lifetime)
        wanted = scope_rules.check(scopes)
        if not scope_rules.is_subset(wanted, issuer.scopes):
            raise IdentityError(Reason.WIDENED_SCOPE, f"this node may give at most {', '.join(issuer.scopes)}")
        return create_invite(
            self._key, self.mesh, self.mesh_name, addresses, expires=int(now + lifetime),
            secret=token_bytes(SECRET_SIZE), uses=uses, scopes=wanted, approval=approval,
        )

    def create_offline_invite(
        self, addresses: Iterable[str], now: float, token_bytes: TokenBytes, *, lifetime: float = 3600.0,
        scopes: Iterable[str] = scope_rules.MEMBER,
    ) -> Invite:
        """An invite that needs no issuer within reach. Anyone who copies it can use it, any number of times."""
        self._require_inviter(now, lifetime)
        seed = token_bytes(32)
        subject = PeerId.from_public_key(SigningKey(seed).verify_key.encode())
        chain = issue_link(
            self._key, self.issuer_chain, Kind.INVITE_KEY, subject, scopes, "", self.mesh, now, lifetime, token_bytes
        )
        return create_offline_invite(
            self._key, self.mesh, self.mesh_name, addresses, key_seed=seed, chain=chain
        )

    def _require_issuer(self, now: float, revocations: RevocationSet | None = None) -> Credential:
        if not self.issuer_chain:
            raise IdentityError(Reason.NOT_ISSUER, "this node may not issue memberships: ask a node that may")
        return verify_issuer(self.issuer_chain, self.mesh, now, revocations)

    def _require_inviter(self, now: float, lifetime: float) -> Credential:
        issuer = self._require_issuer(now)
        if not issuer.allows(scope_rules.INVITE):
            raise IdentityError(Reason.FORBIDDEN, "this node may renew memberships, not invite: ask the owner")
        if not 0 < lifetime <= MAX_INVITE_S:
            raise IdentityError(Reason.MALFORMED, "an invite holds for more than 0 and at most 30 days")
        return issuer


def accept_enrolment(
    invite: Invite, peer: PeerId, chain: bytes, inviter_chain: bytes, now: float, issuer_time: float = 0.0
) -> Membership:
    """Check what a joiner got for *invite*: a membership of that mesh, for *peer*, and an invite by one of its issuers.

    *issuer_time*: the other side's clock, Unix seconds, 0 if it was not told. Raises IdentityError; ``clock`` when this
    machine's time is so far off that everything else would look wrong.
    """
    if issuer_time and abs(now - issuer_time) > CLOCK_SKEW_S:
        side = "ahead of" if now > issuer_time else "behind"
        raise IdentityError(
            Reason.CLOCK,
            f"this machine's clock is {abs(now - issuer_time):.0f} s {side} the issuer's: set it, then join again",
        )
    membership = verify_chain(chain, invite.mesh, peer, now)
    if invite.inviter not in membership.issuers and (
        not inviter_chain or verify_issuer(inviter_chain, invite.mesh, now).peer != invite.inviter
    ):
        raise IdentityError(Reason.NOT_ISSUER, "the invite was not made by an issuer of its mesh: do not trust it")
    return membership


def enrol_offline(invite: Invite, peer: PeerId, name: str, now: float, token_bytes: TokenBytes) -> bytes:
    """The membership that an offline invite gives to *peer*, without asking anybody; it ends with the invite."""
    if not invite.offline:
        raise IdentityError(Reason.NOT_ISSUER, "this invite needs an issuer: connect to one of its addresses")
    check_use(open_chain(invite.chain, invite.mesh), None, now)
    return issue_link(
        SigningKey(invite.key_seed), invite.chain, Kind.MEMBERSHIP, peer, invite.scopes, name, invite.mesh, now,
        MEMBERSHIP_S, token_bytes,
    )
