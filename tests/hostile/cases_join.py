"""Attacks with invites, on those who answer join, and on those who ask."""

from __future__ import annotations

import base64

from atmosphere.identity.identity_pb2 import Invite as WireInvite
from atmosphere.identity.invite import MAX_INVITE_BYTES, PREFIX, create_invite
from atmosphere.identity.link import Kind as LinkKind
from protocols.join import join_pb2
from protocols.join.messages import Enrol, Renew, encode_request
from protocols.records import domains
from protocols.records.records_pb2 import Envelope
from protocols.sync.messages import Kind
from tests.hostile.attack import case, flip
from tests.hostile.house import (
    FALLEN,
    INVITE,
    OFFLINE,
    SECOND,
    SECOND_NODE,
    UNDER_FALLEN,
    Answer,
    House,
    signed,
)
from tests.identity.keys import DAY, MESH, NOW, chain, issuer, key, link, member, peer, public
from tests.identity.test_chain import HOSTILE
from tests.identity.test_invite import ADDRESSES, raw

TEXT = INVITE.text
case("invite text", "nothing", "malformed", "does not begin", lambda h: h.pasted(""))
case("invite text", "one letter changed", "forged", "Copy the whole text",
     lambda h: h.pasted(TEXT[:60] + ("A" if TEXT[60] != "A" else "B") + TEXT[61:]))
case("invite text", "cut off", "malformed", "", lambda h: h.pasted(TEXT[:-8]))
case("invite text", "a last letter with bits that decode to nothing", "malformed", "end", lambda h: h.pasted(
    OFFLINE.text[:-1] + chr(ord(OFFLINE.text[-1]) + 1) if len(OFFLINE.envelope) % 5 else TEXT[:-1]
    + chr(ord(TEXT[-1]) + 1)))
case("invite text", "not of the alphabet", "malformed", "damaged", lambda h: h.pasted("ATM1" + "0189" * 20))
case("invite text", "a megabyte", "oversized", "too long", lambda h: h.pasted("ATM1" + "A" * 1_000_000))


def offline(signer: str = "issuer", **fields: object) -> str:
    """The text of an offline invite with *fields* changed, signed as if all was well."""
    wire = WireInvite.FromString(Envelope.FromString(OFFLINE.envelope).payload)
    for name, value in fields.items():
        setattr(wire, name, value)
    return PREFIX + base64.b32encode(signed(signer, domains.INVITE, wire.SerializeToString())).decode().rstrip("=")


case("invite text", "an offline one with another key in it", "not_issuer", "not for the key",
     lambda h: h.pasted(offline(key_seed=bytes(32))))
case("invite text", "an offline one that holds longer than its chain", "malformed", "another time",
     lambda h: h.pasted(offline(expires=NOW + 30 * DAY)))
case("invite text", "an offline one with the chain of a membership", "not_issuer", "not for the key",
     lambda h: h.pasted(offline(chain=chain(link("owner", "sub", ends=OFFLINE.expires)), key_seed=bytes(32))))
case("invite text", "an offline one that also counts uses", "malformed", "fields of an online one",
     lambda h: h.pasted(offline(uses=1)))
case("invite text", "an offline one with a chain cut off", "malformed", "",
     lambda h: h.pasted(offline(chain=OFFLINE.chain[:-1])))
case("invite text", "an offline one of another mesh", "foreign_mesh", "",
     lambda h: h.pasted(offline(mesh=public("other owner"))))


def enrol(name: str, code: str, words: str, envelope: bytes, who: str = "guest") -> None:
    case("join", name, code, words, lambda h: h.join(who, encode_request(Enrol(envelope, who))))


enrol("a forged invite", "forged", "", flip(INVITE.envelope, 40))
enrol("an invite cut off", "malformed", "", INVITE.envelope[:-9])
enrol("an invite that ended", "expired", "expired", raw(expires=NOW - 301))
enrol("an invite of another mesh", "foreign_mesh", "another mesh", raw(mesh=public("other owner")))
enrol("an invite by a member", "not_issuer", "not known here", raw(signer="alice"))
enrol("an invite by a stranger", "not_issuer", "not known here", raw(signer="mallory"))
enrol("an invite of more than its signer may give: uses", "malformed", "number of uses", raw(uses=2**31))
enrol("an invite for 40 days", "malformed", "30 days", raw(expires=NOW + 40 * DAY))
enrol("an invite for no time at all", "malformed", "expiry", raw(expires=0))
enrol("an invite without a secret", "malformed", "secret", raw(secret=b""))
enrol("an invite with a scope that is none", "malformed", "not a scope", raw(scopes=["call:*/x"]))
enrol("an invite of a newer version", "unknown_version", "Update", raw(version=2))
enrol("an invite signed as a beacon", "forged", "", raw(domain=domains.BEACON))
enrol("an offline invite, to be counted", "not_issuer", "offline", OFFLINE.envelope)
enrol("an oversized invite", "oversized", "bytes", bytes(700))
enrol("an online invite as long as an offline one", "oversized", str(MAX_INVITE_BYTES), raw(
    scopes=[f"call:llm/{number}" + "x" * 40 for number in range(4)]))
enrol("a revoked key with a good invite", "revoked", "", INVITE.envelope, "bob")


def invite_by(name: str, scopes: tuple[str, ...] = ("serve",)) -> bytes:
    return create_invite(
        key(name), MESH, "home", ADDRESSES, expires=NOW + 60, secret=b"s" * 16, scopes=scopes).envelope


def enrol_with(name: str, code: str, words: str, envelope: bytes, issuer_chain: bytes) -> None:
    """An invite whose signer is known here by *issuer_chain*."""
    case("join", name, code, words, lambda h: h.join(
        "guest", encode_request(Enrol(envelope, "")), h.office(h.identity, issuer_chain)))


enrol_with("an invite that promises more than its signer has", "widened_scope", "promises more",
           invite_by("narrow", ("*",)), chain(issuer("owner", "narrow", ("call:llm/*", "invite"))))
enrol_with("an invite by a revoked issuer", "revoked", "", invite_by("fallen"), FALLEN)
enrol_with("an invite by an issuer who may not invite", "not_issuer", "may not invite",
           invite_by("plain"), chain(issuer("owner", "plain", ("call:*", "serve"))))
enrol_with("an invite with another issuer's chain", "not_issuer", "may not invite", invite_by("mallory"), SECOND)


async def twice(house: House) -> Answer:
    """A photographed invite: its guest was first."""
    assert await house.join("guest", encode_request(Enrol(INVITE.envelope, "guest"))) == ("enrolled", "")
    house.begin()
    return await house.join("thief", encode_request(Enrol(INVITE.envelope, "thief")))


async def twice_elsewhere(house: House) -> Answer:
    """The same at two issuers: the second has heard of the guest only through the mesh."""
    first = await house.join("guest", encode_request(Enrol(INVITE.envelope, "guest")), house.office(SECOND_NODE))
    assert first == ("enrolled", "")
    house.begin()
    return await house.join("thief", encode_request(Enrol(INVITE.envelope, "thief")))


def partition(house: House) -> None:
    """Both halves redeemed one invite: the guest at once, the thief ten seconds later, at the other issuer."""
    house.hear(Kind.REDEMPTION, house.identity.redeem_record(INVITE, peer("guest"), NOW))
    house.hear(Kind.REDEMPTION, SECOND_NODE.redeem_record(INVITE, peer("thief"), NOW + 10))
    house.members.learn(member("guest"))
    house.begin()


def greet_after_partition(house: House) -> Answer:
    partition(house)
    return house.greeting("thief", chain(issuer("owner", "second"), link("second", "thief")))


async def renew_after_partition(house: House) -> Answer:
    partition(house)
    return await house.join("thief", encode_request(Renew(member("thief"))))


case("join", "a stolen single-use invite, second at another node", "used_up", "ask for a new one", twice_elsewhere)
case("greeting", "a single-use invite used in both halves of a partition: the later", "revoked", "another key first",
     greet_after_partition)
case("renew", "of the later one of a partition", "revoked", "came first", renew_after_partition)
case("join", "a stolen single-use invite, second at the same node", "used_up", "ask for a new one", twice)
for _name, _code, _words, _chain, _who in (
    ("with a stolen membership", "wrong_audience", "shown by", member("alice"), "thief"),
    ("of an expired membership", "expired", "join again", HOSTILE["expired"][0], "member"),
    ("of a revoked peer", "revoked", "", member("bob"), "bob"),
    ("under a revoked issuer", "revoked", "", UNDER_FALLEN, "under fallen"),
    ("of another mesh's membership", "foreign_mesh", "", HOSTILE["another mesh"][0], "member"),
    ("of an issuer's certificate", "not_membership", "issuer", chain(issuer("owner", "member")), "member"),
    ("of a membership wider than its issuer", "widened_scope", "", HOSTILE["wider scope"][0], "member"),
):
    case("renew", _name, _code, _words, lambda h, c=_chain, w=_who: h.join(w, encode_request(Renew(c))))  # type: ignore[misc]

case("join", "a request that is not protobuf", "malformed", "damaged", lambda h: h.join("mallory", b"\xff" * 9))
case("join", "a request of version 9", "malformed", "version 9", lambda h: h.join(
    "mallory", join_pb2.Request(version=9).SerializeToString()))
case("join", "a request for nothing", "malformed", "asks for nothing", lambda h: h.join(
    "mallory", join_pb2.Request(version=1).SerializeToString()))
case("join", "a name of a kilobyte", "malformed", "64 bytes", lambda h: h.join("mallory", join_pb2.Request(
    version=1, enrol=join_pb2.Enrol(invite=INVITE.envelope, name="x" * 1000)).SerializeToString()))
case("join", "a request over the frame's bound", "reset", "", lambda h: h.join("mallory", bytes(5000)))
case("join", "a name that clears the terminal", "malformed", "control characters", lambda h: h.join(
    "guest", encode_request(Enrol(INVITE.envelope, "\x1b[2J"))))

# -- what a joiner is told ----------------------------------------------------------------

case("answer", "another key's membership", "wrong_audience", "", lambda h: h.acceptance(INVITE, member("alice")))
case("answer", "a membership of another mesh", "foreign_mesh", "", lambda h: h.acceptance(
    INVITE, chain(link("other owner", "guest", mesh=public("other owner")))))
case("answer", "by an issuer that has nothing to do with the invite", "not_issuer", "do not trust", lambda h:
     h.acceptance(INVITE, chain(issuer("owner", "second"), link("second", "guest"))))
case("answer", "a membership that ended", "expired", "", lambda h: h.acceptance(
    INVITE, chain(link("owner", "guest", begins=NOW - 9 * DAY, ends=NOW - DAY))))
case("answer", "a clock one day off", "clock", "86400 s behind", lambda h: h.acceptance(
    INVITE, member("guest"), issuer_time=NOW + DAY))
case("answer", "nothing", "malformed", "", lambda h: h.acceptance(INVITE, b""))
case("answer", "an invite key that hands out an issuer", "not_issuer", "", lambda h: h.acceptance(INVITE, chain(
    issuer("owner", "issuer"), link("issuer", "sub", LinkKind.INVITE_KEY), issuer("sub", "guest", ends=NOW + DAY))))
