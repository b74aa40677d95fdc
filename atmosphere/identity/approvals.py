"""Invites that ask first: who wants in, and what the owner said. On disk, so a restart asks nobody twice."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, replace
from enum import StrEnum

from atmosphere.identity.errors import IdentityError, Reason
from atmosphere.identity.invite import Invite
from atmosphere.identity.invite_book import KEPT_S
from atmosphere.store import Store
from transports.peer_id import PeerId

MAX_PENDING = 1000             # more than a person will read
MAX_PENDING_PER_INVITE = 100   # so that one invite that got around does not shut out the others
MAX_DECIDED = 10_000           # the oldest are forgotten: those who ask again are asked about again


class Approval(StrEnum):
    """Where a request stands. The text is what the database keeps."""

    PENDING = "pending"
    APPROVED = "approved"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class JoinRequest:
    """*peer* showed an invite that asks first."""

    invite_id: bytes
    peer: PeerId
    name: str
    """The label it would like; proves nothing."""
    asked_at: float
    """When it first asked, Unix seconds."""
    state: Approval


class Approvals:
    """Join requests in the node's database (table ``join_requests``), mirrored in memory. Bounded."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._requests = {(request.invite_id, request.peer): request for request in store.read_now(_load)}

    def __repr__(self) -> str:
        return f"<Approvals {len(self.pending())} pending of {len(self._requests)}>"

    async def request(self, invite: Invite, peer: PeerId, name: str, now: float) -> Approval:
        """What was said about *peer* and *invite*; the first time, put before the owner. On disk when it returns.

        Raises IdentityError (too_many_requests) when more wait than a person will read.
        """
        key = (invite.id, peer)
        known = self._requests.get(key)
        if known is not None:
            return known.state
        dropped = self._forget(now)
        pending = self.pending()
        of_invite = sum(request.invite_id == invite.id for request in pending)
        if len(pending) >= MAX_PENDING or of_invite >= MAX_PENDING_PER_INVITE:
            raise IdentityError(
                Reason.TOO_MANY_REQUESTS, "too many requests wait for the owner's answer: ask the owner to answer them"
            )
        added = JoinRequest(invite.id, peer, name, now, Approval.PENDING)
        self._requests[key] = added  # before anything else can run: two requests at a time are one

        def change(connection: sqlite3.Connection) -> None:
            connection.executemany(
                "DELETE FROM join_requests WHERE invite = ? AND peer = ?", [(key[0], key[1].raw) for key in dropped]
            )
            connection.execute(
                "INSERT OR REPLACE INTO join_requests VALUES (?, ?, ?, ?, ?)",
                (added.invite_id, peer.raw, name, now, str(added.state)),
            )

        await self._store.write(change)
        return added.state

    def pending(self) -> list[JoinRequest]:
        """Those that wait for an answer, the oldest first."""
        return [request for request in self._requests.values() if request.state is Approval.PENDING]

    async def decide(self, peer: PeerId, approve: bool) -> bool:
        """Answer what *peer* asked; whether it had asked. On disk when it returns.

        An answer may be changed until the peer has been enrolled; after that only a revocation helps.
        """
        state = Approval.APPROVED if approve else Approval.REFUSED
        asked = [key for key, request in self._requests.items() if request.peer == peer]
        if not asked:
            return False
        await self._store.write(lambda connection: connection.execute(
            "UPDATE join_requests SET state = ? WHERE peer = ?", (str(state), peer.raw)
        ))
        for key in asked:  # only after it is on disk: a grant must not rest on an answer that a crash forgets
            self._requests[key] = replace(self._requests[key], state=state)
        return True

    def _forget(self, now: float) -> set[tuple[bytes, PeerId]]:
        """Drop requests whose invites have surely ended, and the oldest answers beyond the bound; which they were.

        The caller takes them off the disk; if it then refuses, they come back with a restart and go again.
        """
        decided = [key for key, request in self._requests.items() if request.state is not Approval.PENDING]
        ended = [key for key, request in self._requests.items() if request.asked_at < now - KEPT_S]
        dropped = {*ended, *decided[: max(0, len(decided) - MAX_DECIDED)]}
        for key in dropped:
            del self._requests[key]
        return dropped


def _load(connection: sqlite3.Connection) -> list[JoinRequest]:
    rows = connection.execute("SELECT invite, peer, name, asked_at, state FROM join_requests ORDER BY asked_at, peer")
    return [JoinRequest(invite, PeerId(peer), name, at, Approval(state)) for invite, peer, name, at, state in rows]
