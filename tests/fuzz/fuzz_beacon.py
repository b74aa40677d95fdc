"""Beacons and goodbyes at the door that gossip uses: as they come, and payloads that a member has signed."""

from __future__ import annotations

from dataclasses import replace

from tests.fuzz.runner import fuzz, instrumented

with instrumented():
    from atmosphere.mesh.intake import MAX_WAITING, Taken
    from atmosphere.mesh.wanted import CAPACITY
    from protocols.beacons import MAX_ANNOUNCEMENT_BYTES, Announcement, BeaconError
    from protocols.records import domains, sign
    from protocols.records.records_pb2 import Envelope
    from tests.hostile.house import ALICE, House, beacon_by, leave_by
    from tests.identity.keys import key, peer

HOUSE = House()
SIGNERS = ("", "alice", "member", "mallory")


def target(data: bytes) -> None:
    """First byte: who signs (0: the bytes are an envelope), whether it is a goodbye, or an announcement as it comes."""
    first, body = data[0] if data else 0, data[1:]
    if first & 8:
        announced(body)
        return
    signer, goodbye = SIGNERS[first % 4], first & 4
    if signer:
        body = sign(domains.LEAVE if goodbye else domains.BEACON, body, key(signer))
    intake, nodes = HOUSE.intake, HOUSE.table.nodes
    taken = intake.leave(body, None) if goodbye else intake.beacon(body, None, None)
    assert not (taken is Taken.NEW and signer == "mallory"), "a stranger is heard"
    assert set(nodes) <= {peer("issuer"), peer("alice"), peer("member")}, "a node that nobody vouched for"
    assert nodes[peer("alice")].beacon is not None
    assert len(intake.wanted) <= CAPACITY
    assert len(intake._waiting) <= MAX_WAITING
    if taken is Taken.NEW:  # begin anew, so that the next input meets the same node
        nodes.pop(peer("member"), None)
        nodes[peer("alice")] = replace(nodes[peer("alice")], beacon=ALICE)


def announced(body: bytes) -> None:
    try:
        announcement = Announcement.decode(body)
    except BeaconError:
        return
    assert len(announcement.encode()) <= MAX_ANNOUNCEMENT_BYTES
    cards = len(HOUSE.table.cards)
    taken = HOUSE.intake.announcement(announcement, peer("mallory"), None)
    assert taken is not Taken.NEW, "a stranger is heard"
    assert len(HOUSE.table.cards) == cards, "cards that nobody asked for"


def seeds() -> list[bytes]:
    beacons = [beacon_by("alice"), beacon_by("member"), beacon_by("mallory")]
    payloads = [Envelope.FromString(body).payload for body in beacons]
    leave = Envelope.FromString(leave_by("alice")).payload
    whole = Announcement(beacons[2], b"chain", b"offer", (b"card", b"another")).encode()
    return [b"\x08" + whole, b"\0" + beacons[0], b"\4" + leave_by("alice"), b"\5" + leave] + [
        bytes([number]) + payload for number, payload in enumerate(payloads, 1)]


if __name__ == "__main__":
    fuzz(target, seeds(), (), max_len=800)
