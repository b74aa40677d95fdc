"""How an issuer answers those who want to join or renew."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from atmosphere.identity.approvals import Approval, Approvals
from atmosphere.identity.chain import CLOCK_SKEW_S, verify_issuer
from atmosphere.identity.errors import IdentityError, Reason
from atmosphere.identity.identity import MEMBERSHIP_S, Identity, TokenBytes
from atmosphere.identity.invite import MAX_INVITE_S, Invite, open_invite
from atmosphere.identity.invite_book import NOBODY, InviteBook
from atmosphere.identity.link import MAX_NAME_BYTES, check_name
from atmosphere.identity.revocation import RevocationSet
from atmosphere.identity.scopes import INVITE, is_subset
from protocols.join.messages import Enrol, Enrolled, Outcome, Pending, Refused, Reply, Request
from transports.peer_id import PeerId

APPROVAL_RETRY_MS = 5000  # a person answers within seconds or within hours; asking is cheap


async def _keep_nothing(_: bytes) -> None:
    """For an issuer that is the only one of its mesh: its book is all there is to know."""


class Enrolment:
    """Judges join requests for one node. *identity* is asked anew each time: it changes when the node renews.

    *issuer_chain_of* finds the issuer chain of another inviter, so that this node can redeem its invites; b"" if it is
    not known. *used_elsewhere* tells which keys an invite (by id) has enrolled at any issuer, *lost* whether a peer
    came too late with its invite (:class:`RedemptionSet`). *on_redeemed* gets the record of a redemption to keep and
    to spread; it returns before the reply goes out, and no reply goes out if it raises: the peer asks again, and its
    record is made again for as long as *used_elsewhere* does not know it. *approvals*: where invites that ask first
    are put; without it they are refused. *membership_s*: lifetime of what is granted, seconds.
    """

    def __init__(
        self, identity: Callable[[], Identity], book: InviteBook, revocations: RevocationSet, now: Callable[[], float],
        token_bytes: TokenBytes, issuer_chain_of: Callable[[PeerId], bytes] = lambda _: b"", *,
        used_elsewhere: Callable[[bytes], frozenset[PeerId]] = lambda _: NOBODY,
        lost: Callable[[PeerId], bool] = lambda _: False,
        on_redeemed: Callable[[bytes], Awaitable[None]] = _keep_nothing,
        approvals: Approvals | None = None, membership_s: float = MEMBERSHIP_S,
    ) -> None:
        self._identity = identity
        self._book = book
        self._revocations = revocations
        self._now = now
        self._token_bytes = token_bytes
        self._issuer_chain_of = issuer_chain_of
        self._used_elsewhere = used_elsewhere
        self._lost = lost
        self._on_redeemed = on_redeemed
        self._approvals = approvals
        self._membership_s = membership_s
        self.granted = 0
        self.refused = 0
        self.asked = 0
        """Answers that told somebody to wait for the owner."""

    def __repr__(self) -> str:
        return f"<Enrolment {self.granted} granted, {self.refused} refused, {self.asked} told to wait>"

    async def judge(self, peer: PeerId, request: Request) -> Reply:
        """The answer to *peer*, whose key the connection has proved. A grant is on disk when this returns."""
        outcome: Outcome
        try:
            self._refuse_lost(peer)
            if isinstance(request, Enrol):
                outcome = await self._enrol(peer, request)
            else:
                outcome = self._renew(peer, request.chain)
            if isinstance(outcome, Pending):
                self.asked += 1
            else:
                self.granted += 1
        except IdentityError as error:
            self.refused += 1
            outcome = Refused(str(error.reason), str(error))
        return Reply(outcome, int(self._now() * 1000))

    def _refuse_lost(self, peer: PeerId) -> None:
        if self._lost(peer):
            raise IdentityError(
                Reason.REVOKED, "its invite was used up by others who came first: leave, then join with a new invite"
            )

    def _renew(self, peer: PeerId, chain: bytes) -> Enrolled:
        identity = self._identity()
        renewed = identity.renew(
            chain, peer, self._now(), self._token_bytes, self._revocations, lifetime=self._membership_s
        )
        return Enrolled(renewed, identity.mesh_name)

    async def _enrol(self, peer: PeerId, request: Enrol) -> Enrolled | Pending:
        identity, now = self._identity(), self._now()
        check_name(request.name, MAX_NAME_BYTES)
        invite = open_invite(request.invite)
        inviter_chain = self._check_invite(invite, identity, now)
        own = identity.issuer
        if own is not None and self._revocations.is_peer_revoked(peer, len(own.links) + 1):
            raise IdentityError(Reason.REVOKED, "revoked; only a new key with a new invite can join again")
        used = self._used_elsewhere(invite.id)
        if invite.approval and not await self._is_approved(invite, peer, request.name, used):
            return Pending(APPROVAL_RETRY_MS)

        def issue(since: float) -> tuple[bytes, bytes]:
            chain = identity.issue_membership(
                peer, request.name, invite.scopes, now, self._token_bytes, self._revocations,
                lifetime=self._membership_s,
            )
            return chain, b"" if peer in used else identity.redeem_record(invite, peer, since)

        chain, record = await self._book.redeem(invite, peer, now, issue, used)
        if record:
            await self._on_redeemed(record)
        return Enrolled(chain, identity.mesh_name, b"" if invite.inviter == identity.peer_id else inviter_chain)

    async def _is_approved(self, invite: Invite, peer: PeerId, name: str, used: frozenset[PeerId]) -> bool:
        """Whether the owner said yes. Raises IdentityError when it was no, or when it would be of no use."""
        if self._approvals is None:
            raise IdentityError(Reason.FORBIDDEN, "this invite needs the owner's approval, which cannot be had here")
        if peer in used:  # another issuer's owner was asked
            return True
        await self._book.check(invite, peer, used)  # nobody is asked about an invite that is used up
        state = await self._approvals.request(invite, peer, name, self._now())
        if state is Approval.REFUSED:
            raise IdentityError(Reason.APPROVAL_REFUSED, "the owner of the mesh said no: talk to the owner")
        return state is Approval.APPROVED

    def _check_invite(self, invite: Invite, identity: Identity, now: float) -> bytes:
        """The issuer chain of the inviter, if the invite may be redeemed here and now."""
        if invite.mesh != identity.mesh:
            raise IdentityError(Reason.FOREIGN_MESH, "this node belongs to another mesh than the invite")
        if invite.offline:
            raise IdentityError(Reason.NOT_ISSUER, "an offline invite is used without asking: its key signs for itself")
        if now > invite.expires + CLOCK_SKEW_S:
            raise IdentityError(Reason.EXPIRED, f"the invite expired {now - invite.expires:.0f} s ago: ask for another")
        if invite.expires > now + MAX_INVITE_S + CLOCK_SKEW_S:
            raise IdentityError(Reason.MALFORMED, "an invite that holds for more than 30 days: ask for another")
        own = invite.inviter == identity.peer_id
        chain = identity.issuer_chain if own else self._issuer_chain_of(invite.inviter)
        if not chain:
            raise IdentityError(Reason.NOT_ISSUER, "the invite's signer is not known here as an issuer: ask that node")
        inviter = verify_issuer(chain, identity.mesh, now, self._revocations)
        if inviter.peer != invite.inviter or not inviter.allows(INVITE):
            raise IdentityError(Reason.NOT_ISSUER, "the invite was signed by somebody who may not invite")
        if not is_subset(invite.scopes, inviter.scopes):
            raise IdentityError(Reason.WIDENED_SCOPE, "the invite promises more than its signer may give")
        return chain
