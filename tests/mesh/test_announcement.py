"""One message on the topic of beacons makes a node routable, and carries nothing that nobody needs."""

from __future__ import annotations

import dataclasses

import pytest

from atmosphere.capabilities.card import Card, card_id
from atmosphere.capabilities.offer import OfferEntry
from atmosphere.env import FixedEnv
from atmosphere.mesh.announcer import FLOOD_S, Announcer, Load
from atmosphere.mesh.intake import Hooks, Intake, Taken
from atmosphere.mesh.library import Library
from atmosphere.mesh.members import Members
from atmosphere.mesh.table import GradientTable
from atmosphere.mesh.trust import Trust
from atmosphere.store import Store
from protocols.beacons import Announcement
from tests.mesh.people import ENV, ME, MESH, OTHER, identity_of

FIRST = Card("llm/chat", "A chat model", model="m")
SECOND = Card("llm/chat", "Another chat model", model="n")
LARGE = Card("llm/chat", "x" * 4000, model="l")


class Speaker:
    """The announcer of OTHER and the cards that it offers."""

    def __init__(self) -> None:
        self.cards: dict[bytes, bytes] = {}
        self.announcer = Announcer(lambda: identity_of(OTHER), 1, ENV, Load)

    def offer(self, *cards: Card) -> None:
        bodies = [card.encode() for card in cards]
        self.cards.update((card_id(body), body) for body in bodies)
        self.announcer.set_offer("other", [OfferEntry(card_id(body)) for body in bodies])

    def say(self) -> Announcement:
        beacon, _ = self.announcer.beacon(nodes=2)
        return self.announcer.announcement(beacon, self.cards.get)


class Hearer:
    """The intake of ME, which knows nothing yet."""

    def __init__(self) -> None:
        self.table = GradientTable(ME)
        library = Library()
        trust = Trust(MESH, Store.memory(ENV), ENV, lambda *_: None, kept_s=86400)
        hooks = Hooks(lambda card, _: None, lambda vector: None, lambda order: None)
        self.intake = Intake(self.table, library, Members(MESH, trust, library, ENV), ENV, hooks)

    def hear(self, said: Announcement) -> Taken:
        return self.intake.announcement(Announcement.decode(said.encode()), OTHER, OTHER)

    @property
    def models(self) -> set[str]:
        return {route.card.model for route in self.table.routes()}


def test_a_node_that_nobody_knew_is_routable_after_one_message() -> None:
    speaker, hearer = Speaker(), Hearer()
    speaker.offer(FIRST)
    assert hearer.hear(speaker.say()) is Taken.NEW
    assert hearer.models == {"m"}
    assert not len(hearer.intake.wanted)


def test_a_new_card_comes_with_its_beacon_and_the_old_ones_are_not_said_again() -> None:
    speaker, hearer = Speaker(), Hearer()
    speaker.offer(FIRST)
    hearer.hear(speaker.say())
    assert not speaker.say().offer
    speaker.offer(FIRST, SECOND)
    said = speaker.say()
    assert said.cards == (SECOND.encode(),)
    assert not said.membership
    assert hearer.hear(said) is Taken.NEW
    assert hearer.models == {"m", "n"}


def test_a_pace_is_told_under_the_number_of_the_offer_and_reaches_the_tables() -> None:
    speaker, hearer = Speaker(), Hearer()
    speaker.offer(FIRST)
    hearer.hear(speaker.say())
    (entry,) = speaker.announcer.offer.entries
    paced = dataclasses.replace(entry, pace_ms=2000)
    version = speaker.announcer.offer.version
    assert speaker.announcer.set_offer("other", [paced])
    assert not speaker.announcer.set_offer("other", [paced]), "the same again"
    said = speaker.say()
    assert said.offer
    assert not said.cards
    assert hearer.hear(said) is Taken.NEW
    assert speaker.announcer.offer.version == version
    assert [route.entry.pace_ms for route in hearer.table.routes()] == [2000]
    speaker.announcer.set_offer("other", [dataclasses.replace(paced, concurrency=2)])
    assert speaker.announcer.offer.version > version


def test_what_is_large_is_fetched() -> None:
    speaker, hearer = Speaker(), Hearer()
    speaker.offer(FIRST, LARGE)
    said = speaker.say()
    assert said.cards == (FIRST.encode(),)
    assert hearer.hear(said) is Taken.NEW
    assert hearer.models == {"m"}
    assert len(hearer.intake.wanted) == 1


def test_an_offer_is_read_once_and_the_cards_it_lacks_are_wanted_with_every_beacon(
    monkeypatch: pytest.MonkeyPatch
) -> None:
    speaker, hearer = Speaker(), Hearer()
    read: list[bytes] = []
    offer = Intake.offer
    monkeypatch.setattr(Intake, "offer", lambda self, body, source: (read.append(body), offer(self, body, source))[1])
    speaker.offer(FIRST, LARGE)
    hearer.hear(speaker.say())
    [missing] = hearer.intake.wanted.due([OTHER], ENV.monotonic())[OTHER]
    hearer.intake.wanted.drop(missing)
    assert hearer.hear(speaker.say()) is Taken.NEW
    assert len(read) == 1
    assert missing in hearer.intake.wanted
    speaker.offer(FIRST)
    hearer.hear(speaker.say())
    assert len(read) == 2


def test_what_the_beacon_does_not_name_is_not_taken() -> None:
    speaker, hearer = Speaker(), Hearer()
    speaker.offer(FIRST)
    said = speaker.say()
    assert hearer.hear(dataclasses.replace(said, cards=(SECOND.encode(),), offer=b"another")) is Taken.NEW
    assert not hearer.table.cards
    assert hearer.models == set()
    assert len(hearer.intake.wanted) == 1  # the offer


def test_a_new_neighbour_is_told_everything_once() -> None:
    speaker = Speaker()
    speaker.offer(FIRST)
    speaker.say()
    assert speaker.announcer.introduce(ENV.monotonic())
    whole = speaker.say()
    assert (bool(whole.membership), bool(whole.offer), len(whole.cards)) == (True, True, 1)
    again = speaker.say()
    assert (again.membership, again.offer, again.cards) == (b"", b"", ())


def test_neighbours_that_come_together_are_told_once() -> None:
    env = FixedEnv()
    announcer = Announcer(lambda: identity_of(OTHER), 1, env, Load)
    met = env.monotonic()
    env.advance(0.5)  # until gossip reaches the first of them
    assert announcer.introduce(met)
    assert not announcer.introduce(met + 0.1)
    assert not announcer.introduce(met + 0.5 + FLOOD_S - 0.01)
    env.advance(FLOOD_S)
    assert announcer.introduce(env.monotonic())
