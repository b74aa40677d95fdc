"""What this home has heard about who may act, read from its files: nobody is asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from atmosphere.cli.home import Failure, Home
from atmosphere.env import SystemEnv

if TYPE_CHECKING:
    from atmosphere.identity import Credential
    from atmosphere.mesh.trust import Trust


def heard(home: Home, mesh: bytes) -> Trust:
    """Revocations, redemptions and issuers of *mesh* in the node's database, verified again. Only to be read."""
    from atmosphere.identity import IdentityError
    from atmosphere.mesh.trust import Trust
    from atmosphere.store import Store

    env, kept_s = SystemEnv(), home.config().membership_s
    if not home.has_store:
        return Trust(mesh, Store.memory(env), env, lambda _: None, kept_s)
    with home.store() as store:
        try:
            return Trust(mesh, store, env, lambda _: None, kept_s)
        except IdentityError as error:
            raise Failure(f"{store} holds a statement that is not sound: {error}",
                          "move the file away: a running node hears everything again from the others") from error


def is_struck(trust: Trust, credential: Credential) -> bool:
    """Whether *credential* was revoked, or its key came too late with its invite."""
    return trust.revocations.is_revoked(credential) or trust.redemptions.lost(credential.peer)
