"""What is published with a beacon: whole, bounded, and nothing that cannot be read back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.beacons import MAX_ANNOUNCEMENT_BYTES, Announcement, BeaconError, beacons_pb2
from protocols.beacons.announcement import MAX_CARDS

small = st.binary(max_size=200)


@given(st.binary(min_size=1, max_size=200), small, small, st.lists(st.binary(min_size=1, max_size=50), max_size=16))
def test_decoded_as_it_was_encoded(beacon: bytes, membership: bytes, offer: bytes, cards: list[bytes]) -> None:
    said = Announcement(beacon, membership, offer, tuple(cards))
    assert Announcement.decode(said.encode()) == said


def test_a_card_is_attached_while_there_is_room() -> None:
    said = Announcement(b"beacon")
    for _ in range(8):
        said = said.with_card(bytes(1000))
    assert len(said.cards) == 4
    assert len(said.encode()) <= MAX_ANNOUNCEMENT_BYTES
    assert said.with_card(b"a small one still fits").cards[-1] == b"a small one still fits"
    for _ in range(2 * MAX_CARDS):
        said = said.with_card(b"x")
    assert len(said.cards) == MAX_CARDS


@pytest.mark.parametrize(("data", "words"), [
    (b"", "without a beacon"),
    (b"\xff", "not an announcement"),
    (bytes(MAX_ANNOUNCEMENT_BYTES + 1), "is the maximum"),
    (beacons_pb2.Announcement(offer=b"offer").SerializeToString(), "without a beacon"),
    (beacons_pb2.Announcement(beacon=b"b", cards=[b"c"] * (MAX_CARDS + 1)).SerializeToString(), "more than 16 cards"),
])
def test_refused_with_a_reason(data: bytes, words: str) -> None:
    with pytest.raises(BeaconError, match=words):
        Announcement.decode(data)


def test_too_much_is_not_published() -> None:
    with pytest.raises(BeaconError, match="more than"):
        Announcement(b"beacon", offer=bytes(MAX_ANNOUNCEMENT_BYTES)).encode()
