"""Every signed type at its own door: no changed bit, no cut, no splice passes, and no type passes for another.

Links, invites, revocations and redemptions by themselves are in tests/identity; here is what the mesh signs every day,
and all of them against each other.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atmosphere.capabilities.offer import Offer
from atmosphere.identity import IdentityError, open_revocation
from atmosphere.identity.invite import open_invite
from atmosphere.identity.issuers import IssuerDirectory
from atmosphere.identity.redemption import open_redemption
from atmosphere.mesh.intake import MAX_OFFER_ENVELOPE, Taken
from protocols.beacons import MAX_BEACON_BYTES, Beacon, BeaconError, Leave, open_suspicion
from protocols.beacons.messages import MAX_COUNTER
from protocols.records import domains, open_envelope
from tests.capabilities.strategies import offers
from tests.hostile.cases_failure import NEWS
from tests.hostile.cases_statements import STRIKE, USED
from tests.hostile.house import ALICES_OFFER, INVITE, OFFLINE, SECOND, House, beacon_by, leave_by, signed
from tests.identity.keys import MESH, NOW, key, member, peer

Door = Callable[[House, bytes], bool]
"""Whether the bytes were let in."""


def raises(door: Callable[[House, bytes], object], refusal: type[Exception] = IdentityError) -> Door:
    def let_in(house: House, data: bytes) -> bool:
        try:
            door(house, data)
        except refusal:
            return False
        return True

    return let_in


TYPES: dict[str, tuple[bytes, Door]] = {
    "beacon": (beacon_by("alice"), lambda h, data: h.intake.beacon(data, None, None) is not Taken.BAD),
    "leave": (leave_by("alice"), lambda h, data: h.intake.leave(data, None) is not Taken.BAD),
    "suspicion": (NEWS, raises(lambda h, data: open_suspicion(data, peer("alice")), BeaconError)),
    "offer": (ALICES_OFFER, lambda h, data: h.intake.offer(data, None) is not Taken.BAD),
    "membership": (member("guest"), raises(lambda h, data: h.members.learn(data))),
    "issuer": (SECOND, raises(lambda h, data: IssuerDirectory(MESH).add(data, NOW))),
    "invite": (INVITE.envelope, raises(lambda h, data: open_invite(data))),
    "offline invite": (OFFLINE.envelope, raises(lambda h, data: open_invite(data))),
    "revocation": (STRIKE, raises(lambda h, data: open_revocation(data, MESH, NOW))),
    "redemption": (USED, raises(lambda h, data: open_redemption(data, MESH, NOW))),
}
ONE_KIND = ({"invite", "offline invite"},)


@pytest.fixture(scope="module")
def house() -> House:
    return House()


@pytest.mark.parametrize("name", TYPES)
def test_the_door_opens_for_the_real_one(name: str, house: House) -> None:
    data, let_in = TYPES[name]
    assert let_in(house, data)


@pytest.mark.parametrize("name", ["beacon", "leave", "suspicion", "offer", "issuer", "offline invite"])
def test_no_flipped_bit_and_no_cut_passes(name: str, house: House) -> None:
    data, let_in = TYPES[name]
    for position in range(len(data) * 8):
        flipped = bytearray(data)
        flipped[position // 8] ^= 1 << position % 8
        assert not let_in(house, bytes(flipped)), f"bit {position}"
    for length in range(len(data)):
        assert not let_in(house, data[:length]), f"the first {length} bytes"


@pytest.mark.parametrize("door", TYPES)
@pytest.mark.parametrize("name", TYPES)
def test_no_type_passes_for_another(name: str, door: str, house: House) -> None:
    if name != door and {name, door} not in ONE_KIND:
        assert not TYPES[door][1](house, TYPES[name][0])


@given(st.data())
def test_no_splice_of_two_statements_passes(data: st.DataObject) -> None:
    """The head of one beacon and the tail of another, or of a beacon and an offer by the same key."""
    first = beacon_by("alice")
    others = [beacon_by("alice", sequence=12), beacon_by("alice", load_permille=7), ALICES_OFFER]
    second = data.draw(st.sampled_from(others))
    spliced = first[: data.draw(st.integers(0, len(first)))] + second[data.draw(st.integers(0, len(second))) :]
    if spliced not in (first, second):
        assert SHARED.intake.beacon(spliced, None, None) is Taken.BAD


SHARED = House()
digests = st.binary(min_size=32, max_size=32)
counters = st.integers(1, MAX_COUNTER)


@given(digests, counters, counters, digests)
def test_what_is_signed_is_read_back(membership: bytes, epoch: int, sequence: int, offer: bytes) -> None:
    beacon = Beacon(membership, epoch, sequence, 15_000, offer, NOW * 1000)
    payload, by = open_envelope(signed("alice", domains.BEACON, beacon.encode()), domains.BEACON, MAX_BEACON_BYTES)
    assert (Beacon.decode(payload), by) == (beacon, peer("alice"))
    leave = Leave(epoch, sequence, NOW * 1000)
    payload, by = open_envelope(signed("bob", domains.LEAVE, leave.encode()), domains.LEAVE, MAX_BEACON_BYTES)
    assert (Leave.decode(payload), by) == (leave, peer("bob"))


@settings(max_examples=25)  # tests/capabilities has the offers; here it is the envelope around them
@given(offers)
def test_an_offer_that_is_signed_is_read_back(offer: Offer) -> None:
    body = signed("alice", domains.OFFER, offer.encode())
    payload, by = open_envelope(body, domains.OFFER, MAX_OFFER_ENVELOPE)
    assert (Offer.decode(payload), by) == (offer, peer("alice"))


def test_the_same_key_signs_another_thing_in_every_domain() -> None:
    """One payload, all domains: as many signatures, and each opens one door only."""
    names = [name for name in dir(domains) if name.isupper()]
    tags = [getattr(domains, name) for name in names]
    assert len(set(tags)) == len(tags) >= 8
    envelopes = {tag: signed("alice", tag, b"payload") for tag in tags}
    assert len(set(envelopes.values())) == len(tags)
    assert key("alice").verify_key.encode() in envelopes[domains.BEACON]
