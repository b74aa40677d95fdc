"""Which keys an invite has enrolled: on disk before the answer goes out."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

from atmosphere.identity.errors import IdentityError, Reason
from atmosphere.identity.invite import Invite
from atmosphere.store import Store
from transports.peer_id import PeerId


class InviteBook:
    """Redemptions in the node's database (table ``invites``)."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def redeem(self, invite: Invite, peer: PeerId, now: float, issue: Callable[[], bytes]) -> bytes:
        """The chain that *issue* makes for *peer*, counted as one use of *invite*.

        A peer that asks again gets a new chain and costs no further use: its reply may have been lost. On disk when
        this returns; nothing is counted when *issue* raises. Raises IdentityError (used_up).
        """

        def change(connection: sqlite3.Connection) -> bytes:
            rows = connection.execute("SELECT peer FROM invites WHERE invite = ?", (invite.id,)).fetchall()
            if (peer.raw,) not in rows:
                if len(rows) >= invite.uses:
                    raise IdentityError(
                        Reason.USED_UP,
                        f"the invite was good for {invite.uses} and is used up: ask for a new one",
                    )
                connection.execute("INSERT INTO invites VALUES (?, ?, ?)", (invite.id, peer.raw, now))
            return issue()

        return await self._store.write(change)
