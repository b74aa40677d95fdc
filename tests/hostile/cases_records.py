"""Attacks at the greeting, and with the records that gossip and sync bring."""

from __future__ import annotations

import hashlib

from atmosphere.capabilities import capabilities_pb2
from atmosphere.capabilities.card import CARD_MAX_BYTES
from atmosphere.capabilities.vector import CardVector
from atmosphere.mesh.intake import vector_key
from protocols.beacons import MAX_BEACON_BYTES, beacons_pb2
from protocols.records import domains, sign
from protocols.records.records_pb2 import Envelope
from protocols.sync.messages import Key, Kind
from tests.hostile.attack import case, flip, reordered
from tests.hostile.house import (
    ALICE,
    ALICES_OFFER,
    CARD,
    CARD_ID,
    UNDER_FALLEN,
    beacon_by,
    leave_by,
    offer_of,
    signed,
)
from tests.identity.keys import DAY, NOW, chain, issuer, key, link, member, peer, public
from tests.identity.test_chain import HOSTILE

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

# -- records ----------------------------------------------------------------

for _name in ("truncated", "trailing bytes", "oversized", "four links", "signed by a stranger", "another mesh",
              "wider scope", "longer", "issued by a member", "expired", "a day early", "newer version"):
    case("membership record", _name, "bad", "membership was refused", lambda h, data=HOSTILE[_name][0]: h.record(  # type: ignore[misc]
        lambda intake: intake.membership(data, None)))
case("membership record", "of a revoked peer", "bad", "revoked", lambda h: h.record(
    lambda intake: intake.membership(member("bob"), None)))
case("membership record", "under a revoked issuer", "bad", "revoked", lambda h: h.record(
    lambda intake: intake.membership(UNDER_FALLEN, None)))
case("membership record", "not what was asked for", "bad", "asked for", lambda h: h.fetched(
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
beacon("signed by another member", "bad", "and signed by", beacon_by("member", membership=ALICE.membership))
beacon("signed by another, said to be hers", "bad", "and signed by", beacon_by("member"), "alice")
beacon("hers, gossiped as another's", "bad", "and signed by", NEWS, "member")
beacon("another's membership in it", "bad", "membership of another", beacon_by(
    "member", membership=ALICE.membership), None)
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


leave("said by another", "bad", "and signed by", leave_by("mallory"))
leave("older than her last beacon", "old", "", leave_by("alice", sequence=9))
leave("of an earlier life", "old", "", leave_by("alice", epoch=2, sequence=99))
leave("of this node itself, signed by another", "bad", "and signed by", leave_by("mallory"), "issuer")
leave("of somebody unknown", "old", "", leave_by("mallory"), "mallory")
leave("a beacon's signature", "bad", "signature is not", signed(
    "alice", domains.BEACON, beacons_pb2.Leave(version=1, epoch=3, sequence=11).SerializeToString()))
leave("a newer version", "bad", "version 2", signed(
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


offer("in another's name", "bad", "another's name", offer_of("mallory", CARD_ID, peer=peer("alice")))
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
offer("a pace of weeks", "bad", "pace_ms", offered(wire_offer(
    entries=[capabilities_pb2.OfferEntry(card=CARD_ID, concurrency=1, pace_ms=2**32 - 1)])))
offer("a peer id that is none", "bad", "offer", signed("alice", domains.OFFER, capabilities_pb2.Offer(
    peer=b"nobody").SerializeToString()))


def card(name: str, words: str, body: bytes, asked: bytes | None = None) -> None:
    """*asked* None: the digest is right, so only the content can be refused."""
    case("card", name, "bad", words, lambda h: h.fetched(Key(Kind.CARD, asked or hashlib.sha256(body).digest()), body))


card("another than was asked for", "asked for", CARD.encode() + b"\x18\x01", CARD_ID)
card("one bit", "asked for", flip(CARD.encode(), 3), CARD_ID)
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


vector("of another card", "another card", card=bytes(32))
vector("of another space", "another card or space", space="space:5")
vector("an infinite scale", "finite", scale=float("inf"))
vector("a scale that is no number", "finite", scale=float("nan"))
vector("no dimensions", "0 dimensions", values=b"")
vector("5,000 dimensions", "5000 dimensions", values=bytes(5000))
