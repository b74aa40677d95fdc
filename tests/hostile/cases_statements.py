"""Attacks with revocations, redemptions and issuers' chains."""

from __future__ import annotations

from atmosphere.identity import Target, revoke
from atmosphere.identity.identity_pb2 import Redemption as WireRedemption
from atmosphere.identity.identity_pb2 import Revocation as WireRevocation
from atmosphere.identity.link import Kind as LinkKind
from protocols.records import domains
from protocols.sync.messages import Kind
from tests.hostile.attack import case, flip, reordered
from tests.hostile.house import (
    INVITE,
    SECOND,
    SECOND_NODE,
    signed,
)
from tests.identity.keys import DAY, MESH, NOW, chain, issuer, key, link, member, peer, public


def statement(signer: str = "owner", domain: bytes = domains.REVOCATION, **fields: object) -> bytes:
    wire = WireRevocation(version=1, mesh=MESH, kind=WireRevocation.PEER, target=public("alice"), at=NOW)
    for name, value in fields.items():
        setattr(wire, name, value)
    return signed(signer, domain, wire.SerializeToString())


ADMIN = member("admin", ("revoke",))
STRIKE = revoke(Target.PEER, public("alice"), key("owner"), MESH, NOW)
for _name, _code, _words, _record in (
    ("by a stranger", "forbidden", "does not show", statement("mallory")),
    ("by a member without the scope", "forbidden", "scopes do not cover", statement(
        "member", authority=member("member"))),
    ("with a stolen authority", "wrong_audience", "another key", statement("thief", authority=ADMIN)),
    ("with an authority that ended", "expired", "did not hold", statement("admin", authority=chain(
        issuer("owner", "issuer"), link("issuer", "admin", scopes=("revoke",), ends=NOW + 60)), at=NOW - DAY)),
    ("with another mesh's authority", "foreign_mesh", "", statement("mallory", authority=chain(
        link("other owner", "mallory", mesh=public("other owner"))))),
    ("of another mesh", "foreign_mesh", "", statement("other owner", mesh=public("other owner"))),
    ("of the owner", "above_revoker", "new mesh", statement("admin", authority=ADMIN, target=MESH)),
    ("of the issuer above", "above_revoker", "above the one", statement(
        "admin", authority=ADMIN, target=public("issuer"))),
    ("from the future", "not_yet_valid", "clocks", statement(at=NOW + DAY)),
    ("one bit", "forged", "", flip(STRIKE, 12)),
    ("cut off", "malformed", "cut off", STRIKE[:-1]),
    ("an extra field", "malformed", "one encoding", STRIKE + b"\x20\x01"),
    ("in another order", "malformed", "one encoding", reordered(STRIKE)),
    ("oversized", "oversized", "is the maximum", STRIKE + bytes(3000)),
    ("signed as an invite", "forged", "", statement(domain=domains.INVITE)),
    ("a target of the wrong length", "malformed", "wrong length", statement(target=b"x")),
    ("of a membership, without end", "malformed", "must have one", statement(
        kind=WireRevocation.MEMBERSHIP, target=bytes(16))),
    ("of a kind that is none", "malformed", "unknown kind", statement(kind=0)),
    ("a newer version", "unknown_version", "", statement(version=2)),
    ("a reason that clears the terminal", "malformed", "control", statement(reason="\x1b[2J")),
    ("a reason of a kilobyte", "malformed", "64 bytes", statement(reason="x" * 1000)),
):
    case("revocation", _name, _code, _words, lambda h, record=_record: h.statement(Kind.REVOCATION, record))  # type: ignore[misc]

# -- redemptions and issuers ----------------------------------------------------------------

def redemption(signer: str = "second", domain: bytes = domains.REDEMPTION, **fields: object) -> bytes:
    wire = WireRedemption(
        version=1, mesh=MESH, invite=INVITE.id, peer=public("guest"), at_ms=NOW * 1000, uses=1, expires=INVITE.expires,
        authority=SECOND,
    )
    for name, value in fields.items():
        setattr(wire, name, value)
    return signed(signer, domain, wire.SerializeToString())


USED = SECOND_NODE.redeem_record(INVITE, peer("guest"), NOW)
for _name, _code, _words, _record in (
    ("by a stranger", "wrong_audience", "another key", redemption("mallory")),
    ("by a member", "not_issuer", "no issuer", redemption("member", authority=member("member"))),
    ("without authority", "malformed", "empty", redemption(authority=b"")),
    ("with a chain of a stranger's making", "forged", "", redemption(
        "mallory", authority=chain(issuer("mallory", "mallory")))),
    ("by an issuer who may not invite", "forbidden", "'invite'", redemption(
        "plain", authority=chain(issuer("owner", "plain", ("serve",))))),
    ("with an authority that ended", "expired", "did not hold", redemption(
        "late", authority=chain(link("owner", "late", LinkKind.ISSUER, begins=NOW - 9 * DAY, ends=NOW - DAY)))),
    ("of another mesh", "foreign_mesh", "", redemption(mesh=public("other owner"))),
    ("from the future, to be first for ever", "not_yet_valid", "clocks", redemption(
        at_ms=(NOW + DAY) * 1000, expires=NOW + 2 * DAY)),
    ("after the invite's end", "expired", "had expired", redemption(expires=NOW - DAY)),
    ("of an invite for a year", "malformed", "30 days", redemption(expires=NOW + 365 * DAY)),
    ("of no uses", "malformed", "number of uses", redemption(uses=0)),
    ("of a million uses", "malformed", "number of uses", redemption(uses=1_000_000)),
    ("of an invite with a short name", "malformed", "wrong invite", redemption(invite=b"x")),
    ("of no peer", "malformed", "peer", redemption(peer=b"")),
    ("one bit", "forged", "", flip(USED, 30)),
    ("cut off", "malformed", "cut off", USED[:-1]),
    ("in another order", "malformed", "one encoding", reordered(USED)),
    ("an extra field", "malformed", "one encoding", USED + b"\x20\x01"),
    ("oversized", "oversized", "is the maximum", USED + bytes(1200)),
    ("signed as a revocation", "forged", "", redemption(domain=domains.REVOCATION)),
    ("a newer version", "unknown_version", "", redemption(version=2)),
):
    case("redemption", _name, _code, _words, lambda h, record=_record: h.statement(Kind.REDEMPTION, record))  # type: ignore[misc]

for _name, _code, _words, _record in (
    ("a member", "not_issuer", "does not make", member("member")),
    ("of another mesh", "foreign_mesh", "", chain(link(
        "other owner", "mallory", LinkKind.ISSUER, mesh=public("other owner")))),
    ("of his own making", "forged", "", chain(issuer("mallory", "mallory"))),
    ("by an issuer without 'issue'", "not_issuer", "without scope", chain(
        issuer("owner", "plain", ("serve",)), issuer("plain", "mallory", ("serve",)))),
    ("wider than who appointed it", "widened_scope", "", chain(
        issuer("owner", "plain", ("issue",)), issuer("plain", "mallory", ("*",)))),
    ("for longer than who appointed it", "widened_lifetime", "", chain(
        issuer("owner", "plain", ends=NOW + DAY), issuer("plain", "mallory", ends=NOW + 2 * DAY))),
    ("by an invite key", "not_issuer", "may not sign", chain(
        link("owner", "plain", LinkKind.INVITE_KEY), issuer("plain", "mallory", ends=NOW + DAY))),
    ("that ended", "old", "", chain(link("owner", "mallory", LinkKind.ISSUER, begins=NOW - 9 * DAY, ends=NOW - DAY))),
    ("a day early", "not_yet_valid", "clocks", chain(link(
        "owner", "mallory", LinkKind.ISSUER, begins=NOW + DAY, ends=NOW + 9 * DAY))),
    ("one bit", "forged", "", flip(SECOND, -1)),
    ("cut off", "malformed", "", SECOND[:-1]),
    ("oversized", "oversized", "is the maximum", bytes(1000)),
):
    case("issuer", _name, _code, _words, lambda h, record=_record: h.statement(Kind.ISSUER, record))  # type: ignore[misc]
