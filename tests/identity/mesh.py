"""Two issuers of one mesh that cannot ask each other, and what they say about an invite."""

from __future__ import annotations

from atmosphere.identity import Identity, Invite
from tests.identity.keys import MESH, NOW, chain, issuer, key, link, peer
from tests.identity.test_invite import ADDRESSES, node, tokens

SECOND_SCOPES = ("call:*", "serve", "invite")


def second() -> Identity:
    """An issuer that the first one appointed."""
    first = node()
    certificate = first.appoint_issuer(peer("second"), SECOND_SCOPES, NOW, tokens, name="laptop")
    membership = first.issue_membership(peer("second"), "second", SECOND_SCOPES, NOW, tokens)
    return Identity.load(key("second").encode(), MESH, "home", membership, certificate)


def third() -> Identity:
    """An issuer of the owner's beside the first."""
    certificate = issuer("owner", "third")
    return Identity.load(
        key("third").encode(), MESH, "home", chain(certificate, link("third", "third")), chain(certificate)
    )


def invite(uses: int = 1, number: int = 0, lifetime: float = 3600.0) -> Invite:
    return node().create_invite(
        ADDRESSES[:1], NOW, lambda size: bytes([number]) * size, uses=uses, lifetime=lifetime
    )
