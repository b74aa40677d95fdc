"""The table: what attackers send to a node, at which door, and the code that each gets.

A case is (name, door, expected code, words that the reason must contain, the attack). Attacks are functions of a fresh
:class:`~tests.hostile.house.House`.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from atmosphere.capabilities import capabilities_pb2
from atmosphere.capabilities.card import CARD_MAX_BYTES
from atmosphere.capabilities.vector import CardVector
from atmosphere.identity import Target, revoke
from atmosphere.identity.identity_pb2 import Invite as WireInvite
from atmosphere.identity.identity_pb2 import Redemption as WireRedemption
from atmosphere.identity.identity_pb2 import Revocation as WireRevocation
from atmosphere.identity.invite import MAX_INVITE_BYTES, PREFIX, create_invite
from atmosphere.identity.link import Kind as LinkKind
from atmosphere.mesh.intake import vector_key
from protocols.beacons import MAX_BEACON_BYTES, beacons_pb2
from protocols.call import call_pb2
from protocols.join import join_pb2
from protocols.join.messages import Enrol, Renew, encode_request
from protocols.records import domains, sign
from protocols.records.records_pb2 import Envelope
from protocols.sync import sync_pb2
from protocols.sync.messages import MAX_HELLO_BYTES, Key, Kind
from tests.hostile.house import (
    ALICE,
    ALICES_OFFER,
    CARD,
    CARD_ID,
    FALLEN,
    INVITE,
    OFFLINE,
    SECOND,
    SECOND_NODE,
    UNDER_FALLEN,
    Answer,
    House,
    beacon_by,
    leave_by,
    offer_of,
    signed,
)
from tests.identity.keys import DAY, MESH, NOW, chain, issuer, key, link, member, peer, public
from tests.identity.test_chain import HOSTILE
from tests.identity.test_invite import ADDRESSES, raw


@dataclass(frozen=True)
class Case:
    """One attack. *words*: found in the reason, so that no case passes for another case's reason."""

    name: str
    door: str
    code: str
    words: str
    attack: Callable[[House], Answer | Awaitable[Answer]]

    def __str__(self) -> str:
        return f"{self.door}: {self.name}"


CASES: list[Case] = []


def case(door: str, name: str, code: str, words: str, attack: Callable[[House], Answer | Awaitable[Answer]]) -> None:
    CASES.append(Case(name, door, code, words, attack))


def flip(data: bytes, position: int) -> bytes:
    """*data* with one bit changed in the byte at *position*."""
    changed = bytearray(data)
    changed[position] ^= 1
    return bytes(changed)


def reordered(envelope: bytes) -> bytes:
    """The same envelope with its fields in another order: other bytes, another digest, the same meaning to protobuf."""
    wire = Envelope.FromString(envelope)
    return b"".join((
        Envelope(signature=wire.signature).SerializeToString(), Envelope(signer=wire.signer).SerializeToString(),
        Envelope(payload=wire.payload).SerializeToString(),
    ))


# -- the greeting: who are you? ----------------------------------------------------------------

for _name, (_data, _reason) in HOSTILE.items():
    _code = "no_membership" if _name == "empty" else str(_reason)
    case("greeting", f"chain: {_name}", _code, "", lambda h, data=_data: h.greeting("member", data))  # type: ignore[misc]

case("greeting", "another mesh's node", "foreign_mesh", "another mesh", lambda h: h.greeting(
    "member", chain(link("other owner", "member", mesh=public("other owner"))), public("other owner")))
case("greeting", "our mesh named, another's membership shown", "foreign_mesh", "another mesh", lambda h: h.greeting(
    "member", chain(link("other owner", "member", mesh=public("other owner")))))
case("greeting", "a stolen membership", "wrong_audience", "another peer id", lambda h: h.greeting(
    "thief", member("alice")))
case("greeting", "a revoked peer", "revoked", "new key", lambda h: h.greeting("bob", member("bob")))
case("greeting", "a revoked peer with a newer membership", "revoked", "", lambda h: h.greeting(
    "bob", chain(issuer("owner", "issuer"), link("issuer", "bob", begins=NOW + 1, ends=NOW + 30 * DAY))))
case("greeting", "a child of a revoked issuer", "revoked", "", lambda h: h.greeting("under fallen", UNDER_FALLEN))
case("greeting", "a child that a revoked issuer made later", "revoked", "", lambda h: h.greeting(
    "mallory", chain(issuer("owner", "fallen"), link("fallen", "mallory", begins=NOW + 60))))
case("greeting", "a grandchild of a revoked issuer", "revoked", "", lambda h: h.greeting(
    "mallory", chain(issuer("owner", "fallen"), issuer("fallen", "sub"), link("sub", "mallory"))))
case("greeting", "a clock one day ahead made it", "not_yet_valid", "clock", lambda h: h.greeting(
    "mallory", chain(link("owner", "mallory", begins=NOW + DAY, ends=NOW + 8 * DAY)), now=NOW + DAY))
case("greeting", "its own clock one day behind, and told so", "expired", "your clock is 86400 s behind",
     lambda h: h.greeting("member", chain(link("owner", "member", begins=NOW - 9 * DAY, ends=NOW - DAY)),
                          now=NOW - DAY))
case("greeting", "an issuer's certificate for a membership", "not_membership", "issuer", lambda h: h.greeting(
    "issuer", chain(issuer("owner", "issuer"))))
case("greeting", "a link of the all-zero key", "forged", "", lambda h: h.greeting(
    "member", chain(Envelope(payload=Envelope.FromString(link("owner", "member")).payload,
                             signature=bytes(64)).SerializeToString())))
case("greeting", "the same link twice", "forged", "", lambda h: h.greeting(
    "issuer", chain(issuer("owner", "issuer"), issuer("owner", "issuer"))))

# -- records: memberships, beacons, leaves, offers, cards, vectors ----------------------------------------------------

for _name in ("truncated", "trailing bytes", "oversized", "four links", "signed by a stranger", "another mesh",
              "wider scope", "longer", "issued by a member", "expired", "a day early", "newer version"):
    case("membership record", _name, "bad", "membership was refused", lambda h, data=HOSTILE[_name][0]: h.record(  # type: ignore[misc]
        lambda intake: intake.membership(data, None)))
case("membership record", "of a revoked peer", "bad", "revoked", lambda h: h.record(
    lambda intake: intake.membership(member("bob"), None)))
case("membership record", "under a revoked issuer", "bad", "revoked", lambda h: h.record(
    lambda intake: intake.membership(UNDER_FALLEN, None)))
case("membership record", "not what was asked for", "bad", "", lambda h: h.fetched(
    Key(Kind.MEMBERSHIP, bytes(32)), member("guest")))


def beacon(name: str, code: str, words: str, body: bytes, author: str | None = "alice") -> None:
    case("beacon", name, code, words, lambda h: h.record(
        lambda intake: intake.beacon(body, peer(author) if author else None, peer("mallory"))))


def wire_beacon(**fields: object) -> bytes:
    message = beacons_pb2.Beacon.FromString(ALICE.encode())
    message.sequence = 11
    for name, value in fields.items():
        setattr(message, name, value)
    return signed("alice", domains.BEACON, message.SerializeToString())


NEWS = beacon_by("alice")
beacon("replayed", "old", "", signed("alice", domains.BEACON, ALICE.encode()))
beacon("a lower sequence", "old", "", beacon_by("alice", sequence=9, load_permille=1000))
beacon("a lower epoch with a higher sequence", "old", "", beacon_by("alice", epoch=2, sequence=99))
beacon("a day old, never seen before", "old", "", beacon_by("alice", issued_at_ms=(NOW - DAY) * 1000))
beacon("a day early", "old", "", beacon_by("alice", issued_at_ms=(NOW + DAY) * 1000))
beacon("signed by another member", "bad", "", beacon_by("member", membership=ALICE.membership))
beacon("signed by another, said to be hers", "bad", "", beacon_by("member"), "alice")
beacon("hers, gossiped as another's", "bad", "", NEWS, "member")
beacon("another's membership in it", "bad", "", beacon_by("member", membership=ALICE.membership), None)
beacon("an offer's signature", "bad", "signature is not", beacon_by("alice", domain=domains.OFFER))
beacon("a leave in a beacon's envelope", "bad", "digest", signed("alice", domains.BEACON, b"\x08\x01\x10\x03\x18\x0b"))
beacon("one bit of the payload", "bad", "signature is not", flip(NEWS, 10))
beacon("one bit of the signature", "bad", "signature is not", flip(NEWS, len(NEWS) - 1))
beacon("one byte short", "bad", "damaged or cut off", NEWS[:-1])
beacon("nothing", "bad", "signature of 0 bytes", b"")
beacon("a byte too many", "bad", "damaged or cut off", NEWS + b"\x08")
beacon("an unknown field in the envelope", "bad", "one encoding", NEWS + b"\x20\x01")
beacon("the fields of the envelope in another order", "bad", "one encoding", reordered(NEWS))
beacon("the envelope twice", "bad", "one encoding", NEWS + NEWS)
beacon("oversized", "bad", "600 is the maximum", NEWS + bytes(MAX_BEACON_BYTES))
beacon("without its signer", "bad", "signer of 0 bytes", sign(domains.BEACON, ALICE.encode(), key("alice"),
                                                             name_signer=False))
beacon("a newer version", "bad", "version 2", wire_beacon(version=2))
beacon("a digest of 31 bytes", "bad", "32 bytes", wire_beacon(offer=bytes(31)))
beacon("epoch 0", "bad", "count from 1", wire_beacon(epoch=0))
beacon("a sequence that would mute her for ever", "bad", "2^53", wire_beacon(sequence=2**63))
beacon("a period that never prunes", "bad", "period", wire_beacon(period_ms=2**31))
beacon("a flood's period", "bad", "period", wire_beacon(period_ms=1))
beacon("load over 100 %", "bad", "out of range", wire_beacon(load_permille=1001))
beacon("of a revoked peer", "bad", "revoked", beacon_by("bob"), "bob")
beacon("of a stranger", "waiting", "", beacon_by("mallory"), "mallory")
beacon("under a revoked issuer", "bad", "revoked", beacon_by(
    "under fallen", membership=hashlib.sha256(UNDER_FALLEN).digest()), "under fallen")


def leave(name: str, code: str, words: str, body: bytes, author: str | None = "alice") -> None:
    case("leave", name, code, words, lambda h: h.record(
        lambda intake: intake.leave(body, peer(author) if author else None)))


leave("said by another", "bad", "", leave_by("mallory"))
leave("older than her last beacon", "old", "", leave_by("alice", sequence=9))
leave("of an earlier life", "old", "", leave_by("alice", epoch=2, sequence=99))
leave("of this node itself, signed by another", "bad", "", leave_by("mallory"), "issuer")
leave("of somebody unknown", "old", "", leave_by("mallory"), "mallory")
leave("a beacon's signature", "bad", "signature is not", signed(
    "alice", domains.BEACON, beacons_pb2.Leave(version=1, epoch=3, sequence=11).SerializeToString()))
leave("a newer version", "bad", "", signed(
    "alice", domains.LEAVE, beacons_pb2.Leave(version=2, epoch=3, sequence=11).SerializeToString()))
leave("one bit", "bad", "signature is not", flip(leave_by("alice"), 5))
leave("cut off", "bad", "cut off", leave_by("alice")[:-3])


def offer(name: str, code: str, words: str, body: bytes) -> None:
    case("offer", name, code, words, lambda h: h.record(lambda intake: intake.offer(body, None)))


def wire_offer(**fields: object) -> capabilities_pb2.Offer:
    return capabilities_pb2.Offer(
        peer=peer("alice").raw, epoch=3, sequence=2, issued_at_ms=NOW * 1000, **fields)  # type: ignore[arg-type]


def offered(message: capabilities_pb2.Offer) -> bytes:
    return signed("alice", domains.OFFER, message.SerializeToString())


offer("in another's name", "bad", "", offer_of("mallory", CARD_ID, peer=peer("alice")))
offer("that her beacon does not name", "old", "", offer_of("alice", sequence=2))
offer("of a stranger", "old", "", offer_of("mallory", CARD_ID))
offer("a beacon's signature", "bad", "signature is not", signed(
    "alice", domains.BEACON, Envelope.FromString(ALICES_OFFER).payload))
offer("one bit", "bad", "signature is not", flip(ALICES_OFFER, 20))
offer("oversized", "bad", "is the maximum", ALICES_OFFER + bytes(300 * 1024))
offer("a card id of 31 bytes", "bad", "32 bytes", offered(wire_offer(
    entries=[capabilities_pb2.OfferEntry(card=bytes(31), concurrency=1)])))
offer("a card twice", "bad", "twice", offered(wire_offer(
    entries=[capabilities_pb2.OfferEntry(card=CARD_ID, concurrency=1)] * 2)))
offer("5,000 entries", "bad", "4096", offered(wire_offer(entries=[
    capabilities_pb2.OfferEntry(card=number.to_bytes(32, "big"), concurrency=1) for number in range(5000)])))
offer("a concurrency of nothing", "bad", "concurrency", offered(wire_offer(
    entries=[capabilities_pb2.OfferEntry(card=CARD_ID)])))
offer("a peer id that is none", "bad", "offer", signed("alice", domains.OFFER, capabilities_pb2.Offer(
    peer=b"nobody").SerializeToString()))


def card(name: str, words: str, body: bytes, asked: bytes | None = None) -> None:
    """*asked* None: the digest is right, so only the content can be refused."""
    case("card", name, "bad", words, lambda h: h.fetched(Key(Kind.CARD, asked or hashlib.sha256(body).digest()), body))


card("another than was asked for", "", CARD.encode() + b"\x18\x01", CARD_ID)
card("one bit", "", flip(CARD.encode(), 3), CARD_ID)
card("oversized", "the limit is", bytes(CARD_MAX_BYTES + 1))
card("not protobuf", "not a card", b"\xff" * 20)
card("a type that is none", "family/kind", capabilities_pb2.Card(type="LLM Chat; rm -rf").SerializeToString())
card("the same tool twice", "name of its own", capabilities_pb2.Card(
    type="a/b", tools=[capabilities_pb2.Tool(name="x")] * 2).SerializeToString())
card("a tool's schema of a megabyte", "the limit is", capabilities_pb2.Card(
    type="a/b", tools=[capabilities_pb2.Tool(name="x", input_schema="x" * 20_000)]).SerializeToString())

VECTOR = CardVector.from_floats(CARD_ID, "space:4", [1.0, 0.5, -1.0, 0.25])


def vector(name: str, words: str, **fields: object) -> None:
    message = capabilities_pb2.CardVector.FromString(VECTOR.encode())
    for field, value in fields.items():
        setattr(message, field, value)
    body = message.SerializeToString()
    case("vector", name, "bad", words, lambda h: h.fetched(vector_key(CARD_ID, "space:4"), body))


vector("of another card", "", card=bytes(32))
vector("of another space", "", space="space:5")
vector("an infinite scale", "finite", scale=float("inf"))
vector("a scale that is no number", "finite", scale=float("nan"))
vector("no dimensions", "0 dimensions", values=b"")
vector("5,000 dimensions", "5000 dimensions", values=bytes(5000))

# -- invites and join ----------------------------------------------------------------

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

# -- revocations ----------------------------------------------------------------


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

# -- redemptions and issuers ------------------------------------------------------------------


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

# -- streams: sync, call ----------------------------------------------------------------


def hello(membership: bytes, mesh: bytes = MESH, version: int = 1) -> sync_pb2.Frame:
    return sync_pb2.Frame(hello=sync_pb2.Hello(version=version, mesh=mesh, membership=membership, now_ms=NOW * 1000))


ASK = sync_pb2.Frame(ask=sync_pb2.Ask())
READY = sync_pb2.Frame(ready=sync_pb2.Ready())
for _name, _code, _words, _who, _frames in (
    ("no membership", "no_membership", "invite", "mallory", (hello(b""), READY, ASK)),
    ("a stolen membership", "wrong_audience", "another peer id", "thief", (hello(member("alice")), READY, ASK)),
    ("a revoked peer", "revoked", "", "bob", (hello(member("bob")), READY, ASK)),
    ("a child of a revoked issuer", "revoked", "", "under fallen", (hello(UNDER_FALLEN), READY, ASK)),
    ("another mesh", "foreign_mesh", "", "mallory", (hello(b"", public("other owner")), READY, ASK)),
    ("a version that is not spoken", "version", "update", "member", (hello(member("member"), version=9),)),
    ("a question before the greeting", "broken", "hello was due", "mallory", (ASK,)),
    ("ready before the greeting", "broken", "hello was due", "mallory", (READY, ASK)),
    ("a frame that is not protobuf", "broken", "not protobuf", "mallory", (b"\xff" * 9,)),
    ("an empty frame", "broken", "unknown message", "mallory", (b"",)),
    ("a greeting of more than 4 KiB", "broken", "maximum", "mallory", (bytes(MAX_HELLO_BYTES + 1),)),
    ("an end where the greeting was due", "broken", "ended the session", "mallory", ()),
):
    case("sync", _name, _code, _words, lambda h, w=_who, f=_frames: h.sync(w, *f))  # type: ignore[misc]


def opening(number: int = 1, **fields: object) -> bytes:
    values = {"card": CARD_ID, "tool": "x", "args": b"{}"} | fields
    return call_pb2.Frame(call=number, open=call_pb2.Open(**values)).SerializeToString()  # type: ignore[arg-type]


for _name, _code, _words, _calls in (
    ("not protobuf", "invalid", "not a protobuf", (b"\xff" * 5,)),
    ("call 0", "invalid", "call id 0", (opening(0),)),
    ("a card id of 31 bytes", "invalid", "32 bytes", (opening(card=bytes(31)),)),
    ("no tool", "invalid", "tool or trigger name", (opening(tool=""),)),
    ("a tool's name of a kilobyte", "invalid", "128 bytes", (opening(tool="x" * 1000),)),
    ("a trace id of 3 bytes", "invalid", "trace id", (opening(trace_id=b"abc"),)),
    ("an idempotency key of a kilobyte", "invalid", "idempotency key", (opening(idempotency_key=bytes(1000)),)),
    ("a result from the caller", "invalid", "only the callee", (
        call_pb2.Frame(call=1, result=call_pb2.Result()).SerializeToString(),)),
    ("a frame of a kind that is none", "invalid", "not known here", (
        call_pb2.Frame(call=1).SerializeToString() + b"\xfa\x06\x00",)),
    ("a trigger that is not there", "not_found", "no such trigger", (
        call_pb2.Frame(call=1, subscribe=call_pb2.Subscribe(card=CARD_ID, trigger="x")).SerializeToString(),)),
):
    case("call", _name, _code, _words, lambda h, calls=_calls: h.call("mallory", *calls))  # type: ignore[misc]

