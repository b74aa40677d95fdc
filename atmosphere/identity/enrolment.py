"""How an issuer answers those who want to join or renew."""

from __future__ import annotations

from collections.abc import Callable

from atmosphere.identity.chain import CLOCK_SKEW_S, verify_issuer
from atmosphere.identity.errors import IdentityError, Reason
from atmosphere.identity.identity import Identity, TokenBytes
from atmosphere.identity.invite import Invite, open_invite
from atmosphere.identity.invite_book import InviteBook
from atmosphere.identity.revocation import RevocationSet
from atmosphere.identity.scopes import INVITE, is_subset
from protocols.join.messages import Enrol, Enrolled, Refused, Reply, Request
from transports.peer_id import PeerId


class Enrolment:
    """Judges join requests for one node. *identity* is asked anew each time: it changes when the node renews.

    *issuer_chain_of* finds the issuer chain of another inviter, so that this node can redeem its invites; b"" if it is
    not known.
    """

    def __init__(
        self, identity: Callable[[], Identity], book: InviteBook, revocations: RevocationSet, now: Callable[[], float],
        token_bytes: TokenBytes, issuer_chain_of: Callable[[PeerId], bytes] = lambda _: b"",
    ) -> None:
        self._identity = identity
        self._book = book
        self._revocations = revocations
        self._now = now
        self._token_bytes = token_bytes
        self._issuer_chain_of = issuer_chain_of
        self.granted = 0
        self.refused = 0

    def __repr__(self) -> str:
        return f"<Enrolment {self.granted} granted, {self.refused} refused>"

    async def judge(self, peer: PeerId, request: Request) -> Reply:
        """The answer to *peer*, whose key the connection has proved. A grant is on disk when this returns."""
        try:
            if isinstance(request, Enrol):
                outcome: Enrolled | Refused = await self._enrol(peer, request)
            else:
                identity = self._identity()
                chain = identity.renew(request.chain, peer, self._now(), self._token_bytes, self._revocations)
                outcome = Enrolled(chain, identity.mesh_name)
            self.granted += 1
        except IdentityError as error:
            self.refused += 1
            outcome = Refused(str(error.reason), str(error))
        return Reply(outcome, int(self._now() * 1000))

    async def _enrol(self, peer: PeerId, request: Enrol) -> Enrolled:
        identity, now = self._identity(), self._now()
        invite = open_invite(request.invite)
        inviter_chain = self._check_invite(invite, identity, now)

        def issue() -> bytes:
            return identity.issue_membership(
                peer, request.name, invite.scopes, now, self._token_bytes, self._revocations
            )

        chain = await self._book.redeem(invite, peer, now, issue)
        return Enrolled(chain, identity.mesh_name, b"" if invite.inviter == identity.peer_id else inviter_chain)

    def _check_invite(self, invite: Invite, identity: Identity, now: float) -> bytes:
        """The issuer chain of the inviter, if the invite may be redeemed here and now."""
        if invite.mesh != identity.mesh:
            raise IdentityError(Reason.FOREIGN_MESH, "this node belongs to another mesh than the invite")
        if invite.offline:
            raise IdentityError(Reason.NOT_ISSUER, "an offline invite is used without asking: its key signs for itself")
        if now > invite.expires + CLOCK_SKEW_S:
            raise IdentityError(Reason.EXPIRED, f"the invite expired {now - invite.expires:.0f} s ago: ask for another")
        own = invite.inviter == identity.peer_id
        chain = identity.issuer_chain if own else self._issuer_chain_of(invite.inviter)
        if not chain:
            raise IdentityError(Reason.NOT_ISSUER, "the invite's signer is not known here as an issuer: ask that node")
        inviter = verify_issuer(chain, identity.mesh, now, self._revocations)
        if inviter.peer != invite.inviter or not inviter.allows(INVITE):
            raise IdentityError(Reason.NOT_ISSUER, "the invite was signed by somebody who may not invite")
        if not is_subset(invite.scopes, inviter.scopes):
            raise IdentityError(Reason.WIDENED_SCOPE, "the invite promises more than its signer may give")
        if invite.approval:
            raise IdentityError(
                Reason.FORBIDDEN, "this invite needs the owner's approval, which this release cannot ask for"
            )
        return chain
