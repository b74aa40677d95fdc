"""Attacks on what nodes say of each other's health: suspicions on gossip, questions to a witness."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from protocols.beacons import BeaconError, Health, HealthKind, Suspicion, beacons_pb2, open_suspicion
from protocols.beacons.messages import MAX_SKEW_MS
from protocols.framing import encode_frame
from protocols.probe import probe_pb2
from protocols.probe.messages import MAX_FRAME, ProbeOutcome
from protocols.probe.server import BURST, ProbeServer
from protocols.records import domains, sign
from tests.hostile.attack import case, flip, reordered
from tests.hostile.house import Answer, House, beacon_by, conversation, leave_by, signed
from tests.identity.keys import DAY, NOW, key, peer, public
from transports.peer_id import PeerId

# -- suspicions ----------------------------------------------------------------

SUSPICION = Suspicion(peer("alice"), 3, 10, False, NOW * 1000)


def suspicion_by(name: str, domain: bytes = domains.SUSPICION, **fields: Any) -> bytes:
    """What *name* says of alice, as if all was well."""
    return signed(name, domain, replace(SUSPICION, **fields).encode())


def suspected(envelope: bytes, author: str) -> Answer:
    return published(Health(HealthKind.SUSPICION, envelope).encode(), author)


def published(data: bytes, author: str) -> Answer:
    """A message on the topic of health."""
    try:
        health = Health.decode(data)
        if health is None:
            return "passed over", ""
        if health.kind is not HealthKind.SUSPICION:
            return "leave", ""
        suspicion = open_suspicion(health.envelope, peer(author))
    except BeaconError as error:
        return "bad", str(error)
    return ("new" if suspicion.timely(NOW * 1000) else "old"), ""


def suspicion(name: str, code: str, words: str, body: bytes, author: str = "member") -> None:
    case("suspicion", name, code, words, lambda h: suspected(body, author))


def wire_suspicion(**fields: object) -> bytes:
    message = beacons_pb2.Suspicion.FromString(SUSPICION.encode())
    for name, value in fields.items():
        setattr(message, name, value)
    return signed("member", domains.SUSPICION, message.SerializeToString())


NEWS = suspicion_by("member")
suspicion("signed by another", "bad", "and signed by", suspicion_by("mallory"))
suspicion("a good one, gossiped as another's", "bad", "and signed by", NEWS, "mallory")
suspicion("of itself", "bad", "of itself", suspicion_by("alice"), "alice")
suspicion("with a beacon's signature", "bad", "signature is not", suspicion_by("member", domains.BEACON))
suspicion("with a goodbye's signature", "bad", "signature is not", suspicion_by("member", domains.LEAVE))
suspicion("a goodbye in its place", "bad", "signature is not", leave_by("alice"), "alice")
suspicion("a beacon in its place", "bad", "signature is not", beacon_by("alice"), "alice")
suspicion("a goodbye signed as one", "bad", "subject of", signed(
    "member", domains.SUSPICION, beacons_pb2.Leave(version=1, issued_at_ms=NOW * 1000).SerializeToString()))
suspicion("one bit of the payload", "bad", "signature is not", flip(NEWS, 10))
suspicion("one bit of the signature", "bad", "signature is not", flip(NEWS, len(NEWS) - 1))
suspicion("cut off", "bad", "cut off", NEWS[:-1])
suspicion("nothing", "bad", "signature of 0 bytes", b"")
suspicion("the fields of the envelope in another order", "bad", "one encoding", reordered(NEWS))
suspicion("without its signer", "bad", "signer of 0 bytes", sign(
    domains.SUSPICION, SUSPICION.encode(), key("member"), name_signer=False))
suspicion("a newer version", "bad", "version 2", wire_suspicion(version=2))
suspicion("of nobody", "bad", "subject of 0 bytes", wire_suspicion(subject=b""))
suspicion("of a key of 33 bytes", "bad", "subject of 33 bytes", wire_suspicion(subject=bytes(33)))
suspicion("of no beacon", "bad", "count from 1", wire_suspicion(sequence=0))
suspicion("that no beacon could ever refute", "bad", "2^53", wire_suspicion(epoch=2**63))
suspicion("a day early", "old", "", suspicion_by("member", issued_at_ms=(NOW + DAY) * 1000))
suspicion("a second too early", "old", "", suspicion_by("member", issued_at_ms=NOW * 1000 + MAX_SKEW_MS + 1000))
suspicion("a day old", "old", "", suspicion_by("member", issued_at_ms=(NOW - DAY) * 1000))
suspicion("of the end of time", "old", "", suspicion_by("member", issued_at_ms=2**64 - 1))

for _name, _code, _words, _data in (
    ("oversized", "bad", "256 is the maximum", beacons_pb2.Health(suspicion=bytes(254)).SerializeToString()),
    ("not protobuf", "bad", "not a health message", b"\xff" * 20),
    ("a bare envelope, as before there were suspicions", "bad", "", leave_by("alice")),
    ("nothing", "passed over", "", b""),
    ("of a later release", "passed over", "", b"\x1a\x01x"),
):
    case("health", _name, _code, _words, lambda h, data=_data: published(data, "alice"))  # type: ignore[misc]

# -- questions to a witness ----------------------------------------------------------------


async def probed(house: House, data: bytes) -> Answer:
    """What a member gets that sends *data* as questions. The house notes whom it looked for."""

    async def check(subject: PeerId) -> ProbeOutcome:
        house.told.append(subject)
        return ProbeOutcome.ALIVE

    answers = await conversation("member", data, ProbeServer(check).serve)
    return ("answered" if answers else "reset"), f"{len(answers)} answers"


def question(**fields: object) -> bytes:
    values: dict[str, Any] = {"subject": public("alice"), "timeout_ms": 1000} | fields
    return probe_pb2.Request(**values).SerializeToString()


for _name, _data in (
    ("not protobuf", encode_frame(b"\xff" * 9)),
    ("an empty frame", encode_frame(b"")),
    ("about nobody", encode_frame(question(subject=b""))),
    ("about a key of 31 bytes", encode_frame(question(subject=bytes(31)))),
    ("for no time", encode_frame(question(timeout_ms=0))),
    ("for an hour", encode_frame(question(timeout_ms=3_600_000))),
    ("oversized", encode_frame(bytes(MAX_FRAME + 1))),
    ("a length of eleven bytes", b"\xff" * 11),
    ("cut off", encode_frame(question())[:-1]),
):
    case("probe", _name, "reset", "0 answers", lambda h, data=_data: probed(h, data))  # type: ignore[misc]


FLOOD = encode_frame(question()) * (int(BURST) + 1)
