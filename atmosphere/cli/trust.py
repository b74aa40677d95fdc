"""What this home has heard about who may act, in its files: nobody is asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from atmosphere.cli.home import Failure, Home
from atmosphere.env import SystemEnv

if TYPE_CHECKING:
    from atmosphere.identity import Credential
    from atmosphere.mesh.trust import Trust
    from atmosphere.store import Store


def heard(home: Home, mesh: bytes) -> Trust:
    """Revocations, redemptions and issuers of *mesh* in the node's database, verified again. Only to be read."""
    from atmosphere.store import Store

    if not home.has_store:
        return _load(home, mesh, Store.memory(SystemEnv()))
    with home.store() as store:
        return _load(home, mesh, store)


def keep_revocation(home: Home, mesh: bytes, record: bytes) -> None:
    """Put *record* into the database of this home, which the caller holds. The node spreads it when it runs again."""
    from atmosphere.mesh.trust import Heard
    from protocols.sync.messages import Kind, Record

    with home.store() as store:
        if _load(home, mesh, store).hear(Record(Kind.REVOCATION, record)) is Heard.BAD:
            raise Failure("the statement would be refused by the other nodes", "see `atmosphere-p2p auth show`")


def _load(home: Home, mesh: bytes, store: Store) -> Trust:
    from atmosphere.identity import IdentityError
    from atmosphere.mesh.trust import Trust

    try:
        return Trust(mesh, store, SystemEnv(), lambda *_: None, home.config().membership_s)
    except IdentityError as error:
        raise Failure(f"{home.path} holds a statement of trust that is not sound: {error}",
                      "move node.db away: a running node hears everything again from the others") from error


def is_struck(trust: Trust, credential: Credential) -> bool:
    """Whether *credential* was revoked, or its key came too late with its invite."""
    return trust.revocations.is_revoked(credential) or trust.redemptions.lost(credential.peer)
