"""Offers, cards and vectors: what is read can be written again, and offers at the door of the node."""

from __future__ import annotations

from tests.fuzz.runner import fuzz, instrumented

with instrumented():
    from atmosphere.capabilities.card import Card, CardError
    from atmosphere.capabilities.offer import Offer
    from atmosphere.capabilities.vector import CardVector
    from atmosphere.mesh.intake import Taken
    from protocols.records import domains, sign
    from protocols.records.records_pb2 import Envelope
    from tests.hostile.cases_records import VECTOR
    from tests.hostile.house import ALICES_OFFER, CARD, House
    from tests.identity.keys import key, peer

HOUSE = House()


def target(data: bytes) -> None:
    """First byte: 0 a card, 1 a vector, 2 an offer, 3 an offer that a stranger has signed, at the node's door."""
    way, body = data[0] % 4 if data else 0, data[1:]
    if way == 0:
        card = Card.decode(body)
        assert Card.decode(card.encode()) == card
    elif way == 1:
        vector = CardVector.decode(body)
        assert CardVector.decode(vector.encode()) == vector
        assert vector.floats().shape == (len(vector.values),)
    elif way == 2:
        offer = Offer.decode(body)
        assert Offer.decode(offer.encode()) == offer
    else:
        taken = HOUSE.intake.offer(sign(domains.OFFER, body, key("mallory")), None)
        assert taken in (Taken.BAD, Taken.OLD)
        assert peer("mallory") not in HOUSE.table.nodes


def seeds() -> list[bytes]:
    offer = Envelope.FromString(ALICES_OFFER).payload
    rich = Card(
        "llm/chat", "speaks", "m", ("hello",), ("talk",), features=("tools",), context_tokens=9, space="a:3",
    )
    return [b"\0" + CARD.encode(), b"\0" + rich.encode(), b"\1" + VECTOR.encode(), b"\2" + offer, b"\3" + offer]


if __name__ == "__main__":
    fuzz(target, seeds(), (CardError,), max_len=9000)
