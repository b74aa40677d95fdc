"""A member turns against the mesh: what it may say is taken, what it may not do gets nowhere."""

from __future__ import annotations

import hashlib
from contextlib import suppress

import pytest
import trio

from atmosphere.mesh.table import Path
from protocols.framing import encode_frame
from protocols.records import domains, records_pb2
from protocols.sync import sync_pb2 as pb
from protocols.sync.messages import Hello, Key, Kind, SyncError
from protocols.sync.session import open_session
from tests.hostile.house import ALICE, CARD_ID, House, beacon_by, offer_of, signed
from tests.identity.keys import MESH, NOW, chain, issuer, link, member, peer
from transports.stream import StreamClosed, memory_stream_pair

MAY_CALL = chain(issuer("owner", "issuer"), link("issuer", "mallory", scopes=("call:*",), name="mallory"))
MAY_SERVE = chain(issuer("owner", "issuer"), link("issuer", "mallory", scopes=("serve",), name="mallory"))


def settled(membership: bytes) -> House:
    """Mallory is a member and offers the same card as alice."""
    house = House()
    house.members.learn(membership)
    offer = offer_of("mallory", CARD_ID)
    digest = hashlib.sha256(membership).digest()
    beacon = beacon_by("mallory", membership=digest, offer=hashlib.sha256(offer).digest())
    house.intake.beacon(beacon, peer("mallory"), None)
    house.intake.offer(offer, None)
    return house


@pytest.mark.parametrize(("membership", "gets_work"), [(MAY_SERVE, True), (MAY_CALL, False)])
def test_no_work_goes_to_a_member_that_may_only_call(membership: bytes, gets_work: bool) -> None:
    """Or everybody who was let in to ask could attract the prompts of the others."""
    table = settled(membership).table
    expected = {peer("alice"), peer("mallory")} if gets_work else {peer("alice")}
    assert {route.node.peer for route in table.routes()} == expected


def test_its_own_capabilities_stay_its_own() -> None:
    table = settled(MAY_CALL).table
    table.connected(peer("mallory"), Path.LOCAL, 0.0)  # as mallory's own node sees itself
    assert peer("mallory") in {route.node.peer for route in table.routes()}


def test_it_cannot_speak_for_another_nor_make_another_mute() -> None:
    house = settled(MAY_SERVE)
    house.begin()
    for lie in (
        signed("mallory", domains.BEACON, ALICE.encode()),  # alice's words, mallory's signature
        beacon_by("mallory", membership=ALICE.membership, sequence=2**52),
    ):
        assert house.intake.beacon(lie, peer("alice"), None).value == "bad"
    assert house.state() == house.before
    assert house.intake.beacon(beacon_by("alice"), peer("alice"), None).value == "new"


@pytest.mark.parametrize(("limit", "frame"), [
    ("MAX_OVERVIEW_BYTES", pb.Frame(overview=pb.Overview(trust=[pb.Key(kind=2, key=bytes(5000))]))),
    ("MAX_RECORDS_BYTES", pb.Frame(records=pb.Records(records=[records_pb2.Record(body=bytes(5000))]))),
])
async def test_its_answers_in_sync_end_somewhere(
    limit: str, frame: pb.Frame, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.abc.Clock
) -> None:
    """Entries of any length, kinds that nobody knows: what has no last frame is cut off."""
    monkeypatch.setattr(f"protocols.sync.session.{limit}", 20_000)
    near, far = memory_stream_pair(peer("alice"), peer("mallory"))
    hello = Hello(MESH, member("mallory"), bytes(32), "", NOW * 1000)

    async def endless() -> None:
        await far.write(encode_frame(pb.Frame(hello=hello.to_proto()).SerializeToString()))
        with suppress(StreamClosed):
            while True:
                await far.write(encode_frame(frame.SerializeToString()))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(endless)
        session = await open_session(near, hello, lambda who, said: None)
        with pytest.raises(SyncError, match="more"):
            await (session.overview() if "OVERVIEW" in limit else session.fetch([Key(Kind.CARD, bytes(32))]))
        await near.reset()
