"""Cards, offers and vectors: canonical bytes, strict reading, nothing heavy loaded."""

from __future__ import annotations

import subprocess
import sys
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atmosphere.capabilities import capabilities_pb2 as pb
from atmosphere.capabilities.card import CARD_MAX_BYTES, Card, CardError, Effects, Tool, card_id, short_id
from atmosphere.capabilities.offer import MAX_ENTRIES, OFFER_MAX_BYTES, Offer, OfferEntry
from atmosphere.capabilities.vector import MAX_DIMENSIONS, CardVector
from tests.capabilities.strategies import cards, offers, vectors
from transports.peer_id import PeerId

CHAT = Card(type="llm/chat", description="A chat model", model="tiny", tools=(Tool("chat"),))
PEER = PeerId.from_public_key(bytes(32))


@given(cards)
def test_a_card_survives_its_bytes(card: Card) -> None:
    assert Card.decode(card.encode()) == card


@given(offers)
def test_an_offer_survives_its_bytes(offer: Offer) -> None:
    assert Offer.decode(offer.encode()) == offer


@given(vectors)
def test_a_vector_survives_its_bytes(vector: CardVector) -> None:
    assert CardVector.decode(vector.encode()) == vector


@given(cards, st.randoms())
def test_sets_in_any_order_give_one_id(card: Card, random: object) -> None:
    shuffled = replace(card, features=card.features[::-1] + card.features, topics=card.topics[::-1])
    assert card_id(shuffled.encode()) == card_id(card.encode())


def test_the_id_is_the_hash_of_exact_bytes() -> None:
    """The vector that another implementation can check: these bytes, this id."""
    data = CHAT.encode()
    assert data.hex() == (
        "0a086c6c6d2f63686174120c412063686174206d6f64656c1a0474696e79320474657874"
        "3a04746578745a0c0a04636861741a027b7d2001"
    )
    assert short_id(card_id(data)) == card_id(data).hex()[:10]
    assert len(card_id(data)) == 32


def test_unknown_fields_are_ignored_and_change_the_id() -> None:
    data = CHAT.encode()
    newer = data + bytes([0xFA, 0x01, 3]) + b"new"  # field 31, a string
    assert Card.decode(newer) == CHAT
    assert card_id(newer) != card_id(data)


def test_an_unknown_effect_is_read_as_once() -> None:
    """A newer node's word must not make a dangerous tool retryable here."""
    for wire in (0, 99):
        message = pb.Card.FromString(CHAT.encode())
        message.tools[0].effects = wire  # type: ignore[assignment]
        assert Card.decode(message.SerializeToString()).tools[0].effects is Effects.ONCE


@given(st.binary(max_size=200))
def test_hostile_bytes_are_read_or_refused_never_a_crash(data: bytes) -> None:
    for decode in (Card.decode, Offer.decode, CardVector.decode):
        with suppress(CardError):  # anything else fails the test
            decode(data)


@pytest.mark.parametrize(
    "change",
    [
        {"type": ""},
        {"type": "chat"},
        {"type": "LLM/Chat"},
        {"type": "llm/" + "x" * 64},
        {"description": "x" * 4097},
        {"model": "é" * 129},
        {"model": "\udc80"},
        {"examples": tuple(map(str, range(65)))},
        {"topics": ("x" * 129,)},
        {"features": tuple(map(str, range(65)))},
        {"context_tokens": -1},
        {"context_tokens": 2**31},
        {"tools": (Tool("a"), Tool("a"))},
        {"tools": (Tool(""),)},
        {"tools": tuple(Tool(str(n)) for n in range(65))},
        {"tools": (Tool("a", input_schema=" " * 16385),)},
        {"tools": tuple(Tool(str(n), input_schema=" " * 16384) for n in range(5))},
    ],
    ids=str,
)
def test_a_card_over_a_limit_is_not_encoded(change: dict[str, object]) -> None:
    with pytest.raises(CardError):
        replace(CHAT, **change).encode()  # type: ignore[arg-type]


def test_oversized_bytes_are_refused_before_they_are_parsed() -> None:
    for decode, limit in ((Card.decode, CARD_MAX_BYTES), (Offer.decode, OFFER_MAX_BYTES)):
        with pytest.raises(CardError, match=str(limit)):
            decode(bytes(limit + 1))


def test_an_offer_has_a_bounded_number_of_entries() -> None:
    entries = tuple(OfferEntry(n.to_bytes(32, "big")) for n in range(MAX_ENTRIES))
    offer = Offer(PEER, 1, 1, "n", entries, 0.0)
    assert len(Offer.decode(offer.encode()).entries) == MAX_ENTRIES
    with pytest.raises(CardError, match="limit is 4096"):
        replace(offer, entries=(*entries, OfferEntry(b"\xff" * 32))).encode()
    empty = pb.Offer(peer=PEER.raw, entries=[pb.OfferEntry()] * (MAX_ENTRIES + 1))
    with pytest.raises(CardError, match="limit is 4096"):
        Offer.decode(empty.SerializeToString())


@pytest.mark.parametrize(
    "entry",
    [OfferEntry(b"short"), OfferEntry(bytes(32), concurrency=0), OfferEntry(bytes(32), labels=("x",) * 33)],
    ids=["card id", "concurrency", "labels"],
)
def test_a_bad_entry_is_refused(entry: OfferEntry) -> None:
    with pytest.raises(CardError):
        Offer(PEER, 1, 1, "n", (entry,), 0.0).encode()


def test_an_offer_names_a_card_once_and_an_ed25519_peer() -> None:
    with pytest.raises(CardError, match="twice"):
        Offer(PEER, 1, 1, "n", (OfferEntry(bytes(32)), OfferEntry(bytes(32))), 0.0).encode()
    with pytest.raises(CardError, match="peer id"):
        Offer.decode(pb.Offer(peer=b"nobody").SerializeToString())


def test_quantising_keeps_the_direction() -> None:
    generator = np.random.default_rng(7)
    for _ in range(50):
        floats = generator.normal(size=384).astype(np.float32)
        floats /= np.linalg.norm(floats)
        back = CardVector.from_floats(bytes(32), "m:384", floats).floats()
        assert float(floats @ back / np.linalg.norm(back)) > 0.9995


@pytest.mark.parametrize("bad", [[], [0.0, 0.0], [float("nan")], [float("inf")], [[1.0]], [1e-44]], ids=str)
def test_what_cannot_be_quantised_is_refused(bad: list[float]) -> None:
    with pytest.raises(CardError):
        CardVector.from_floats(bytes(32), "m:1", bad)


@pytest.mark.parametrize(
    "message",
    [
        pb.CardVector(card=b"x", space="s", scale=1, values=b"\x01"),
        pb.CardVector(card=bytes(32), space="", scale=1, values=b"\x01"),
        pb.CardVector(card=bytes(32), space="s", scale=float("nan"), values=b"\x01"),
        pb.CardVector(card=bytes(32), space="s", scale=-1, values=b"\x01"),
        pb.CardVector(card=bytes(32), space="s", scale=1, values=b""),
        pb.CardVector(card=bytes(32), space="s", scale=1, values=bytes(MAX_DIMENSIONS + 1)),
    ],
    ids=["card", "space", "nan", "negative", "empty", "too long"],
)
def test_a_bad_vector_is_refused(message: pb.CardVector) -> None:
    with pytest.raises(CardError):
        CardVector.decode(message.SerializeToString())


@pytest.mark.parametrize("module", ["", ".card", ".offer", ".vector", ".backend", ".registry", ".sse"])
def test_the_pure_modules_load_neither_trio_nor_libp2p(module: str) -> None:
    program = f"import sys, atmosphere.capabilities{module}; print([m for m in ('trio', 'libp2p') if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
