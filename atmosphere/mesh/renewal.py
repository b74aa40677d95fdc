"""Renewing this node's own membership at 75 % of its lifetime, from itself if it is an issuer, else from any issuer
within reach. Silent while it works; says what is wrong, days ahead, when it does not.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import trio

from atmosphere.env import Env
from atmosphere.identity import Identity, IdentityError
from atmosphere.mesh.neighbours import Neighbours
from atmosphere.mesh.trust import Trust
from protocols.join.client import ask
from protocols.join.messages import PROTOCOL, Enrolled, JoinError, Refused, Renew
from transports.errors import PeerUnreachable
from transports.host import Host
from transports.peer_id import PeerId
from transports.stream import StreamClosed

logger = logging.getLogger(__name__)

CHECKS = 40
"""Looks at the clock over a membership's lifetime: about four hours apart for a week, seconds for a test's."""
MAX_CHECK_S = 4 * 3600.0


@dataclass(frozen=True, slots=True)
class RenewalState:
    """How it stands: ``ok``, ``due`` (will be tried at the next look), or ``failing`` with the reason."""

    state: str = "ok"
    reason: str = ""


class Renewal:
    """Keeps the membership fresh. :meth:`run` owns its one task."""

    def __init__(
        self,
        identity: Callable[[], Identity],
        renewed: Callable[[Identity], Awaitable[None]],
        trust: Trust,
        neighbours: Neighbours,
        host: Host,
        env: Env,
        lifetime_s: float,
    ) -> None:
        """*renewed*: keeps the new identity (on disk) and lets the mesh know. *lifetime_s*: of
        what this node issues."""
        self._identity = identity
        self._renewed = renewed
        self._trust = trust
        self._neighbours = neighbours
        self._host = host
        self._env = env
        self._lifetime_s = lifetime_s
        self.state = RenewalState()

    def __repr__(self) -> str:
        return f"<Renewal {self.state.state} {self.state.reason}>"

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            membership = self._identity().membership
            if self._env.now() >= membership.renew_at:
                await self._renew()
            lifetime = membership.not_after - membership.not_before
            await trio.sleep(min(MAX_CHECK_S, lifetime / CHECKS))

    async def _renew(self) -> None:
        if self.state.state == "ok":
            self.state = RenewalState("due")
        try:
            identity = await self._from_myself() or await self._from_others()
        except IdentityError as error:
            self.state = RenewalState("failing", str(error))
        else:
            if identity is not None:
                await self._renewed(identity)
                self.state = RenewalState()
                return
        logger.warning("the membership could not be renewed: %s", self.state.reason)

    async def _from_myself(self) -> Identity | None:
        identity = self._identity()
        if not identity.issuer_chain:
            return None
        membership, now = identity.membership, self._env.now()
        chain = identity.issue_membership(
            identity.peer_id, membership.name, membership.scopes, now, self._env.token_bytes,
            self._trust.revocations, lifetime=self._lifetime_s,
        )
        return identity.with_membership(chain, now)

    async def _from_others(self) -> Identity | None:
        """Ask the issuers within reach, one after the other; None when none granted it (the state says why)."""
        issuers = [peer for peer in self._neighbours.ready() if self._trust.issuers.chain_of(peer)]
        if not issuers:
            self.state = RenewalState("failing", "no issuer is within reach: start one, or have the owner appoint one")
        for peer in issuers:
            chain = await self._ask(peer)
            if chain is not None:
                return self._identity().with_membership(chain, self._env.now())
        return None

    async def _ask(self, peer: PeerId) -> bytes | None:
        try:
            stream = await self._host.open_stream(peer, PROTOCOL)
            outcome = (await ask(stream, Renew(self._identity().chain))).outcome
        except (PeerUnreachable, StreamClosed, JoinError) as error:
            self.state = RenewalState("failing", f"the issuer {peer.short} did not answer: {error}")
            return None
        if isinstance(outcome, Enrolled):
            return outcome.chain
        reason = outcome.message if isinstance(outcome, Refused) else "the owner has to approve it"
        self.state = RenewalState("failing", f"the issuer {peer.short} refused: {reason}")
        return None
