"""Where this node stands in the mesh, and its word about others: memberships, invites, issuers, revocations."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Sequence

from atmosphere.audit import AuditKind, AuditLog
from atmosphere.config import Config
from atmosphere.env import Env
from atmosphere.identity import (
    Approvals,
    Enrolment,
    Identity,
    IdentityError,
    InviteBook,
    JoinRequest,
    Keyring,
    MemoryKeyring,
    Reason,
    Target,
    open_revocation,
)
from atmosphere.identity.identity import ISSUER_S
from atmosphere.identity.scopes import MEMBER
from atmosphere.mesh.announcer import beacon_addresses
from atmosphere.mesh.renewal import Renewal
from atmosphere.mesh.service import Mesh
from atmosphere.mesh.views import IssuerView, issuer_views
from atmosphere.rates import JoinRates
from atmosphere.store import Store
from protocols.join.messages import Enrol, Enrolled, Refused, Reply, Request
from protocols.join.server import serve_join
from protocols.sync.messages import Kind, Record
from transports.host import Host
from transports.peer_id import PeerId
from transports.stream import Stream

logger = logging.getLogger(__name__)

INVITE_ADDRESSES = 2
"""More would make the QR code larger; the joiner learns the others later."""


class Standing:
    """This node's identity, and what it says and hears about who may act."""

    def __init__(
        self, keyring: Keyring | MemoryKeyring, config: Config, store: Store, audit: AuditLog, env: Env
    ) -> None:
        self.identity: Identity = keyring.load()
        """Changes with every renewal and appointment: ask for it each time."""
        self.approvals = Approvals(store)
        self._keyring = keyring
        self._config = config
        self._store = store
        self._audit = audit
        self._env = env
        self._rates = JoinRates()
        self.on_revoked: Callable[[PeerId], None] = lambda peer: None
        """Called of a peer that is not a member any more, or will never be one again."""
        # Set by connect(): they need a host.
        self.renewal: Renewal
        self._host: Host
        self._mesh: Mesh
        self._enrolment: Enrolment

    def __repr__(self) -> str:
        return f"<Standing of {self.identity.peer_id.short} in {self.identity.mesh_name}, {self.renewal!r}>"

    def connect(self, host: Host, mesh: Mesh) -> None:
        """Take up the work: answer joins, renew, publish this node's own issuer certificate."""
        self._host, self._mesh = host, mesh
        trust, env = mesh.trust, self._env
        self.renewal = Renewal(
            lambda: self.identity, self._renewed, trust, mesh.neighbours, host, env, self._config.membership_s
        )
        self._enrolment = Enrolment(
            lambda: self.identity,
            InviteBook(self._store),
            trust.revocations,
            env.now,
            env.token_bytes,
            trust.issuers.chain_of,
            used_elsewhere=trust.redemptions.uses_of,
            lost=trust.redemptions.lost,
            on_redeemed=self._redeemed,
            approvals=self.approvals,
            membership_s=self._config.membership_s,
        )
        if self.identity.issuer_chain:
            trust.hear(Record(Kind.ISSUER, self.identity.issuer_chain))

    # -- others -----------------------------------------------------------------------------------------------------

    async def serve_join(self, stream: Stream) -> None:
        """Answer one request to join or to renew."""
        await serve_join(stream, self._judge_join, self._env.now, admit=self._may_ask)

    def _may_ask(self, peer: PeerId) -> float:
        """0 when *peer* may ask to join now, otherwise the seconds to wait. Members renew whenever they have to."""
        if self._host.is_admitted(peer):
            return 0.0
        connection = self._host.connections().get(peer)
        address = connection.remote_address.split("/tcp/")[0] if connection is not None else ""
        wait = self._rates.take(peer.raw, address, self._env.monotonic())
        if wait:
            self._audit.record(AuditKind.JOIN_REFUSED, str(peer), outcome="rate_limited")
        return wait

    async def _judge_join(self, peer: PeerId, request: Request) -> Reply:
        """A stranger asks to be let in, or a member to be renewed."""
        reply = await self._enrolment.judge(peer, request)
        what = request.name if isinstance(request, Enrol) else "renewal"
        if isinstance(reply.outcome, Enrolled):
            kind = AuditKind.JOIN if isinstance(request, Enrol) else AuditKind.RENEWAL
            self._audit.record(kind, str(peer), what, "granted")
        elif isinstance(reply.outcome, Refused):
            self._audit.record(AuditKind.JOIN_REFUSED, str(peer), what, reply.outcome.code, reply.outcome.message)
        return reply

    async def _redeemed(self, record: bytes) -> None:
        """An invite was used here: on disk and on its way to the mesh before the joiner has its answer."""
        await self._mesh.say(Record(Kind.REDEMPTION, record))

    def expelled(self, peer: PeerId) -> None:
        """A peer's membership does not hold any more; the mesh has put it out."""
        self._audit.record(AuditKind.EXPELLED, str(peer))
        self.on_revoked(peer)

    def heard(self, record: Record) -> None:
        """A new trust record is in force."""
        if record.kind is Kind.REVOCATION:
            entry = open_revocation(record.body, self.identity.mesh, self._env.now())
            whom = entry.target.hex() if entry.kind is Target.MEMBERSHIP else str(PeerId.from_public_key(entry.target))
            self._audit.record(AuditKind.REVOKED, str(entry.signer), whom, entry.kind.name.lower(), entry.reason)
            if entry.kind is not Target.MEMBERSHIP:
                self.on_revoked(PeerId.from_public_key(entry.target))
        elif record.kind is Kind.ISSUER:
            mine = self._mesh.trust.issuers.chain_of(self.identity.peer_id)
            if mine and mine != self.identity.issuer_chain:
                self._keyring.save_issuer(mine)
                self.identity = self.identity.with_issuer(mine, self._env.now())
                logger.info("this node was appointed an issuer")

    # -- this node --------------------------------------------------------------------------------------------------

    async def _renewed(self, identity: Identity) -> None:
        await self._env.run_blocking(lambda: self._keyring.save_membership(identity))
        self.identity = dataclasses.replace(identity, issuer_chain=self.identity.issuer_chain)
        self._mesh.identity_changed()
        self._audit.record(AuditKind.RENEWAL, str(identity.peer_id), "own membership", "granted")
        logger.info("the membership was renewed until %d", identity.membership.not_after)

    def view(self) -> dict[str, object]:
        """How it stands with this node's membership, for ``status``."""
        membership, renewal = self.identity.membership, self.renewal.state
        return {
            "not_after": membership.not_after,
            "expires_in_s": round(membership.not_after - self._env.now()),
            "renew_at": round(membership.renew_at),
            "renewal": renewal.state + (f": {renewal.reason}" if renewal.reason else ""),
            "revoked": self._is_revoked(),
            "scopes": list(membership.scopes),
            "issuer": str(membership.issuers[-1]) if membership.issuers else None,
            "serial": membership.serial.hex(),
        }

    def _is_revoked(self) -> bool:
        """Whether this node has been put out: by its own records, or as others tell it when they refuse it.

        Usually the second: who revokes closes the connection before the record could come over it.
        """
        refusals = self._mesh.neighbours.refusals.values()
        refused = any(refusal.code == Reason.REVOKED and not refusal.by_us for refusal in refusals)
        return refused or self._mesh.table.nodes[self.identity.peer_id].membership is None

    # -- what the owner asks ----------------------------------------------------------------------------------------

    def create_invite(
        self, uses: int, expires_s: float, *, approval: bool, offline: bool, scopes: Sequence[str] | None
    ) -> str:
        """The text of an invite; see :meth:`Node.create_invite`."""
        addresses = beacon_addresses(self._host.addresses)[:INVITE_ADDRESSES]
        now, random = self._env.now(), self._env.token_bytes
        wanted = tuple(scopes) if scopes else MEMBER
        if offline:
            return self.identity.create_offline_invite(addresses, now, random, lifetime=expires_s, scopes=wanted).text
        return self.identity.create_invite(
            addresses, now, random, lifetime=expires_s, uses=uses, scopes=wanted, approval=approval
        ).text

    async def revoke(self, kind: Target, target: bytes, reason: str) -> None:
        """See :meth:`Node.revoke`. What would strike nobody is made with the owner key, if it is here, or refused."""
        now, until = self._env.now(), 0
        if kind is Target.MEMBERSHIP:
            members = [node.membership for node in self._mesh.table.nodes.values() if node.membership is not None]
            ends = [membership.not_after for membership in members if membership.serial == target]
            until = ends[0] if ends else int(now + self._config.membership_s)
        record = self.identity.revoke(kind, target, now, reason=reason, until=until)
        if not self._would_strike(record):
            if not self._keyring.has_owner_key:
                raise IdentityError(
                    Reason.ABOVE_REVOKER, "it stands beside or above this node: revoke it where the owner key is"
                )
            record = self._keyring.revoke_as_owner(kind, target, now, reason=reason, until=until)
        await self._mesh.say(Record(Kind.REVOCATION, record))

    def _would_strike(self, record: bytes) -> bool:
        """Whether the revocation *record* has an effect on what is known of its target; True if nothing is."""
        revocation = open_revocation(record, self.identity.mesh, self._env.now())
        members = (node.membership for node in self._mesh.table.nodes.values() if node.membership is not None)
        known = [
            credential
            for credential in (*members, *self._mesh.trust.issuers.issuers())
            if revocation.target in (credential.serial, credential.peer.public_key)
        ]
        return not known or any(revocation.strikes(credential) for credential in known)

    async def appoint_issuer(self, peer: PeerId, scopes: Sequence[str], lifetime_s: float = ISSUER_S) -> None:
        """See :meth:`Node.appoint_issuer`."""
        chain = self.identity.appoint_issuer(peer, scopes, self._env.now(), self._env.token_bytes, lifetime_s)
        await self._mesh.say(Record(Kind.ISSUER, chain))
        self._audit.record(AuditKind.ISSUER, str(peer), ", ".join(scopes))

    def issuers(self) -> tuple[IssuerView, ...]:
        return issuer_views(self._mesh.table, self._mesh.trust.issuers)

    def join_requests(self) -> list[JoinRequest]:
        return self.approvals.pending()

    async def decide_join(self, peer: PeerId, approve: bool) -> None:
        """See :meth:`Node.decide_join`."""
        if not await self.approvals.decide(peer, approve):
            raise IdentityError(Reason.FORBIDDEN, f"{peer.short} has not asked to join; see `join requests`")
        self._audit.record(AuditKind.APPROVAL, str(peer), outcome="approved" if approve else "refused")
