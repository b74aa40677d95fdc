"""Which keys an invite has enrolled here: on disk before the answer goes out."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import TypeVar

from atmosphere.identity.chain import CLOCK_SKEW_S
from atmosphere.identity.errors import IdentityError, Reason
from atmosphere.identity.invite import MAX_INVITE_S, Invite
from atmosphere.store import Store
from transports.peer_id import PeerId

T = TypeVar("T")
KEPT_S = MAX_INVITE_S + 2 * CLOCK_SKEW_S
"""After this an invite that was good when it was redeemed has ended for everybody, and nobody need count it."""
NOBODY: frozenset[PeerId] = frozenset()


class InviteBook:
    """Redemptions in the node's database (table ``invites``)."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def redeem(
        self, invite: Invite, peer: PeerId, now: float, issue: Callable[[float], T],
        used_elsewhere: frozenset[PeerId] = NOBODY,
    ) -> T:
        """What *issue* makes for *peer*, counted as one use of *invite*; *issue* is told when that use began.

        *used_elsewhere*: the keys that other issuers say it enrolled; they count like those enrolled here. A peer that
        asks again, here or there, costs no further use: its reply may have been lost. On disk when this returns;
        nothing is counted when *issue* raises. Raises IdentityError (used_up).
        """

        def change(connection: sqlite3.Connection) -> T:
            connection.execute("DELETE FROM invites WHERE redeemed_at < ?", (now - KEPT_S,))
            here = _uses(connection, invite)
            at = here.get(peer, now)
            _refuse_used_up(invite, peer, used_elsewhere.union(here))
            if peer not in here and peer not in used_elsewhere:
                connection.execute("INSERT INTO invites VALUES (?, ?, ?)", (invite.id, peer.raw, now))
            return issue(at)

        return await self._store.write(change)

    async def check(self, invite: Invite, peer: PeerId, used_elsewhere: frozenset[PeerId] = NOBODY) -> None:
        """Raises IdentityError (used_up) when *peer* could not redeem *invite* now."""
        here = await self._store.read(lambda connection: _uses(connection, invite))
        _refuse_used_up(invite, peer, used_elsewhere.union(here))


def _uses(connection: sqlite3.Connection, invite: Invite) -> dict[PeerId, float]:
    rows = connection.execute("SELECT peer, redeemed_at FROM invites WHERE invite = ?", (invite.id,))
    return {PeerId(raw): at for raw, at in rows}


def _refuse_used_up(invite: Invite, peer: PeerId, used: frozenset[PeerId]) -> None:
    if peer not in used and len(used) >= invite.uses:
        raise IdentityError(
            Reason.USED_UP, f"the invite was good for {invite.uses} and is used up: ask for a new one"
        )
