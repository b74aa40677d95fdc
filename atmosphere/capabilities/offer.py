"""What one node does now: a list of card ids with this node's limits and prices.

An offer has a single writer. Its payload is signed by the node's own key as an envelope with the domain
:data:`protocols.records.domains.OFFER`; here are only the payload's bytes. Whoever opens the envelope checks that its
signer is :attr:`Offer.peer`. The offer that the peer's latest beacon names is the one that counts.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from google.protobuf.message import DecodeError

from atmosphere.capabilities import capabilities_pb2 as pb
from atmosphere.capabilities.card import WORD_MAX_BYTES, CardError, CardId, _limit_bytes, _limit_list, _limit_text
from transports.peer_id import PeerId

OFFER_MAX_BYTES = 256 * 1024  # one sync frame; 4096 entries without labels are below 200 KiB
MAX_ENTRIES = 4096
MAX_LABELS = 32
NODE_NAME_MAX_BYTES = 64
MAX_PACE_MS = 3_600_000
"""The longest deadline of a call."""
_CARD_ID_BYTES = 32
_MAX_CONCURRENCY = 2**32 - 1
_MAX_U64 = 2**64 - 1


@dataclass(frozen=True, slots=True)
class OfferEntry:
    """One card as this node offers it."""

    card: CardId
    concurrency: int = 1
    """Calls that run at once, at least 1."""
    price_micros: int = 0
    """Per call, in millionths of the owner's unit."""
    labels: tuple[str, ...] = ()
    pace_ms: int = 0
    """What a call takes there lately until its first answer, without the wait for a slot; 0: not known."""


def without_paces(entries: Iterable[OfferEntry]) -> list[OfferEntry]:
    """*entries* as a node that was never called offers them."""
    return [replace(entry, pace_ms=0) for entry in entries]


@dataclass(frozen=True, slots=True)
class Offer:
    """Everything one node offers; a node that offers nothing has an offer without entries."""

    peer: PeerId
    epoch: int
    sequence: int
    name: str
    """The node's label for people; not unique, proves nothing."""
    entries: tuple[OfferEntry, ...]
    issued_at: float
    """Unix seconds, kept to the millisecond."""

    @property
    def version(self) -> tuple[int, int]:
        """(epoch, sequence): higher with all that a peer changes of what it offers; not where paces alone differ."""
        return self.epoch, self.sequence

    def encode(self) -> bytes:
        """The payload to sign. Raises :class:`CardError` for an offer over a limit."""
        self._check()
        message = pb.Offer(
            peer=self.peer.raw,
            epoch=self.epoch,
            sequence=self.sequence,
            name=self.name,
            entries=[
                pb.OfferEntry(
                    card=entry.card,
                    concurrency=entry.concurrency,
                    price_micros=entry.price_micros,
                    labels=entry.labels,
                    pace_ms=entry.pace_ms,
                )
                for entry in self.entries
            ],
            issued_at_ms=round(self.issued_at * 1000),
        )
        data = message.SerializeToString(deterministic=True)
        _limit_bytes("offer", len(data), OFFER_MAX_BYTES)
        return data

    @classmethod
    def decode(cls, data: bytes) -> Offer:
        """Read the payload of a verified envelope; unknown fields are ignored. Raises :class:`CardError`."""
        _limit_bytes("offer", len(data), OFFER_MAX_BYTES)
        try:
            message = pb.Offer.FromString(data)
            peer = PeerId(message.peer)
        except DecodeError as error:
            raise CardError(f"not an offer: {error}") from None
        except ValueError as error:
            raise CardError(f"offer: {error}") from None
        if len(message.entries) > MAX_ENTRIES:
            raise CardError(f"offer with {len(message.entries)} entries; the limit is {MAX_ENTRIES}")
        offer = cls(
            peer=peer,
            epoch=message.epoch,
            sequence=message.sequence,
            name=message.name,
            entries=tuple(
                OfferEntry(entry.card, entry.concurrency, entry.price_micros, tuple(entry.labels), entry.pace_ms)
                for entry in message.entries
            ),
            issued_at=message.issued_at_ms / 1000,
        )
        offer._check()
        return offer

    def _check(self) -> None:
        _limit_text("node name", self.name, NODE_NAME_MAX_BYTES)
        _check_range("epoch", [self.epoch], 0, _MAX_U64)
        _check_range("sequence", [self.sequence], 0, _MAX_U64)
        _check_range("issued_at", [self.issued_at], 0, _MAX_U64 / 1001)
        if len(self.entries) > MAX_ENTRIES:
            raise CardError(f"offer with {len(self.entries)} entries; the limit is {MAX_ENTRIES}")
        if any(len(entry.card) != _CARD_ID_BYTES for entry in self.entries):
            raise CardError(f"a card id in an offer has {_CARD_ID_BYTES} bytes")
        if len({entry.card for entry in self.entries}) != len(self.entries):
            raise CardError("an offer names a card twice")
        _check_range("concurrency", (entry.concurrency for entry in self.entries), 1, _MAX_CONCURRENCY)
        _check_range("price_micros", (entry.price_micros for entry in self.entries), 0, _MAX_U64)
        _check_range("pace_ms", (entry.pace_ms for entry in self.entries), 0, MAX_PACE_MS)
        for entry in self.entries:
            _limit_list("labels", entry.labels, MAX_LABELS, WORD_MAX_BYTES)


def _check_range(what: str, values: Iterable[float], low: float, high: float) -> None:
    for value in values:
        if not low <= value <= high:
            raise CardError(f"offer: {what} {value} is outside {low}..{high}")
