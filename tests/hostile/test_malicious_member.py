"""A member turns against the mesh: what it may say is taken, what it may not do gets nowhere."""

from __future__ import annotations

import hashlib

import pytest

from atmosphere.mesh.table import Path
from protocols.records import domains
from tests.hostile.house import ALICE, CARD_ID, House, beacon_by, offer_of, signed
from tests.identity.keys import chain, issuer, link, peer

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
    table.nodes[peer("mallory")].path = Path.LOCAL  # as mallory's own node sees itself
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
