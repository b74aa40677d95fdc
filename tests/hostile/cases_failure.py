"""Attacks on what nodes say of each other's health: suspicions on gossip, questions to a witness."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from atmosphere.mesh.detector import Detector
from atmosphere.mesh.detector_settings import lan
from atmosphere.mesh.intake import Taken
from atmosphere.mesh.watch import Watch
from protocols.beacons import BeaconError, Health, Suspicion, beacons_pb2
from protocols.beacons.messages import MAX_SKEW_MS
from protocols.framing import encode_frame
from protocols.probe import probe_pb2
from protocols.probe.messages import MAX_FRAME, ProbeOutcome
from protocols.probe.server import BURST, ProbeServer
from protocols.records import domains, sign
from tests.hostile.attack import case, flip, reordered
from tests.hostile.house import Answer, House, beacon_by, conversation, heard, leave_by, signed
from tests.identity.keys import DAY, NOW, key, peer, public
from transports.peer_id import PeerId

# -- suspicions ----------------------------------------------------------------

SUSPICION = Suspicion(peer("member"), 3, 10, False, NOW * 1000)


def suspicion_by(name: str, domain: bytes = domains.SUSPICION, **fields: Any) -> bytes:
    """What *name* says of "member", as if all was well."""
    return signed(name, domain, replace(SUSPICION, **fields).encode())


def watch(house: House) -> Watch:
    """The failure detector of the house, which has the beacons of alice and "member" and is connected to nobody."""
    house.intake.beacon(beacon_by("member", sequence=10), peer("member"), None)

    async def publish(data: bytes) -> None:
        house.told.append(data)

    detector = Detector(house.table.me, lan(), lambda: 0.5)
    nobody: Any = None  # it is asked for nothing before the watch runs
    door = Watch(
        nobody, nobody, house.table, detector, lambda: house.identity, house.env,
        publish=publish, refute=lambda: house.told.append("refuted"), ready=list,
        inquire=lambda: None,
    )
    for name in ("alice", "member"):
        door.proves(peer(name), (3, 10))
    house.begin()
    return door


def suspected(house: House, envelope: bytes, author: str) -> Answer:
    """The door of suspicions. What is not taken has changed nothing in the detector either."""
    door = watch(house)
    before = door.detector.statistics()
    with heard("atmosphere.mesh.watch") as lines:
        taken = door.hear(envelope, peer(author))
    assert taken is Taken.NEW or door.detector.statistics() == before
    return taken.value, lines[-1] if lines else ""


def published(data: bytes) -> Answer:
    """A message on the topic of health."""
    try:
        health = Health.decode(data)
    except BeaconError as error:
        return "bad", str(error)
    return ("passed over", "") if health is None else (health.kind.value, "")


def suspicion(name: str, code: str, words: str, body: bytes, author: str = "alice") -> None:
    case("suspicion", name, code, words, lambda h: suspected(h, body, author))


def wire_suspicion(**fields: object) -> bytes:
    message = beacons_pb2.Suspicion.FromString(SUSPICION.encode())
    for name, value in fields.items():
        setattr(message, name, value)
    return signed("alice", domains.SUSPICION, message.SerializeToString())


NEWS = suspicion_by("alice")
suspicion("signed by another", "bad", "and signed by", suspicion_by("mallory"))
suspicion("a good one, gossiped as another's", "bad", "and signed by", NEWS, "mallory")
suspicion("of itself", "bad", "of itself", suspicion_by("alice", subject=peer("alice")))
suspicion("with a beacon's signature", "bad", "signature is not", suspicion_by("alice", domains.BEACON))
suspicion("with a goodbye's signature", "bad", "signature is not", suspicion_by("alice", domains.LEAVE))
suspicion("a goodbye in its place", "bad", "signature is not", leave_by("alice"))
suspicion("a beacon in its place", "bad", "signature is not", beacon_by("alice"))
suspicion("a goodbye signed as one", "bad", "subject of", signed(
    "alice", domains.SUSPICION, beacons_pb2.Leave(version=1, issued_at_ms=NOW * 1000).SerializeToString()))
suspicion("one bit of the payload", "bad", "signature is not", flip(NEWS, 10))
suspicion("one bit of the signature", "bad", "signature is not", flip(NEWS, len(NEWS) - 1))
suspicion("cut off", "bad", "cut off", NEWS[:-1])
suspicion("nothing", "bad", "signature of 0 bytes", b"")
suspicion("the fields of the envelope in another order", "bad", "one encoding", reordered(NEWS))
suspicion("without its signer", "bad", "signer of 0 bytes", sign(
    domains.SUSPICION, SUSPICION.encode(), key("alice"), name_signer=False))
suspicion("a newer version", "bad", "version 2", wire_suspicion(version=2))
suspicion("of nobody", "bad", "subject of 0 bytes", wire_suspicion(subject=b""))
suspicion("of a key of 33 bytes", "bad", "subject of 33 bytes", wire_suspicion(subject=bytes(33)))
suspicion("of no beacon", "bad", "count from 1", wire_suspicion(sequence=0))
suspicion("that no beacon could ever refute", "bad", "2^53", wire_suspicion(epoch=2**63))
suspicion("a day early", "old", "", suspicion_by("alice", issued_at_ms=(NOW + DAY) * 1000))
suspicion("a second too early", "old", "", suspicion_by("alice", issued_at_ms=NOW * 1000 + MAX_SKEW_MS + 1000))
suspicion("a day old", "old", "", suspicion_by("alice", issued_at_ms=(NOW - DAY) * 1000))
suspicion("of a stranger's", "old", "", suspicion_by("mallory"), "mallory")
suspicion("refuted by a later beacon", "old", "", suspicion_by("alice", sequence=9))
suspicion("of an earlier life", "old", "", suspicion_by("alice", epoch=2, sequence=99))
suspicion("of the end of time", "old", "", suspicion_by("alice", issued_at_ms=2**64 - 1))

for _name, _code, _words, _data in (
    ("oversized", "bad", "256 is the maximum", beacons_pb2.Health(suspicion=bytes(254)).SerializeToString()),
    ("not protobuf", "bad", "not a health message", b"\xff" * 20),
    ("nothing", "passed over", "", b""),
    ("of a later release", "passed over", "", b"\x1a\x01x"),
):
    case("health", _name, _code, _words, lambda h, data=_data: published(data))  # type: ignore[misc]

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
