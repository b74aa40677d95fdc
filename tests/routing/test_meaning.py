"""What the router makes of meaning: probabilities, thousands of cards, and what people say of the answers."""

from __future__ import annotations

import pytest

from atmosphere.capabilities.card import Card, Tool, card_id
from atmosphere.capabilities.offer import Offer, OfferEntry
from atmosphere.routing.intent import Intent
from atmosphere.routing.matching import RANKED, card_texts, centroid
from atmosphere.routing.phrases import subject
from atmosphere.routing.router import Router
from tests.mesh.people import OTHER, THIRD
from tests.routing.test_router import ASK, CHAT, COOKING, IDS, World

BAKING = Intent(tool="chat", text="recipes for baking bread and cake")
MANY = 100


def offer_many(world: World) -> list[bytes]:
    """OTHER and THIRD both offer MANY cards; their ids."""
    cards = [Card("tool/call", f"thing{number} of the kind {number % 7}", tools=(Tool("work"),))
             for number in range(MANY)]
    ids = [card_id(card.encode()) for card in cards]
    for key, card in zip(ids, cards, strict=True):
        world.table.described(key, card)
        parts = world.embedder.embed(card_texts(card))
        world.router.vectors.describe(key, card)
        world.router.vectors.put(key, centroid(parts, len(subject(card))), parts)
    for peer in (OTHER, THIRD):
        world.node(peer)
        world.table.offered(peer, Offer(peer, 1, 2, peer.short, tuple(OfferEntry(key, 1, 0, ()) for key in ids), 0.0))
    return ids


@pytest.fixture
def world() -> World:
    return World()


async def test_a_decision_by_meaning_says_how_probable_it_is(world: World) -> None:
    world.node(OTHER, CHAT, COOKING)
    near = await world.router.decide(BAKING)
    far = await world.router.decide(Intent(tool="chat", text="xylophone quarks"))
    assert near.meant == IDS[COOKING]
    assert near.right is not None
    assert far.right is not None
    assert 0 < far.right < near.right < 1
    assert near.somebody is not None
    assert far.somebody is not None
    assert 0 < far.somebody < near.somebody < 1


async def test_where_probably_nobody_can_the_nearest_are_named_with_what_would_help(world: World) -> None:
    world.node(OTHER, CHAT, COOKING)
    world.node(THIRD, CHAT)
    assert (await world.router.decide(BAKING)).doubt == ""
    far = await world.router.decide(Intent(tool="chat", text="xylophone quarks"))
    assert far.candidates, "it is a doubt and no refusal"
    assert set(far.nearest) == {CHAT, COOKING}
    assert far.doubt.startswith("probably no card is for this (probability 0.")
    assert "llm/chat llama3.2:latest" in far.doubt
    assert "an example of such a request on its card" in far.doubt
    assert (await world.router.decide(ASK)).doubt == ""


async def test_where_meaning_has_nothing_to_decide_there_is_no_probability(world: World) -> None:
    world.node(OTHER, CHAT, COOKING)
    named = await world.router.decide(ASK)
    assert (named.right, named.somebody, named.meant, named.evidence) == (None, None, b"", None)
    world.node(OTHER, CHAT)
    single = await world.router.decide(BAKING)
    assert single.right is None


async def test_what_people_say_moves_the_probability_of_the_next_pick(world: World) -> None:
    world.node(OTHER, CHAT, COOKING)
    before = await world.router.decide(BAKING)
    for _ in range(5):
        world.router.told(before, IDS[COOKING], good=False)
    after = await world.router.decide(BAKING)
    assert before.right is not None
    assert after.right is not None
    assert after.right < before.right
    assert after.meant == before.meant, "doubt changes how sure the router is, not what fits best"


async def test_an_answer_of_another_card_says_nothing_about_the_pick(world: World) -> None:
    world.node(OTHER, CHAT, COOKING)
    decision = await world.router.decide(BAKING)
    world.router.told(decision, IDS[CHAT], good=False)
    world.router.told(await world.router.decide(ASK), IDS[CHAT], good=False)
    assert world.router.vectors.calibration.right_shift == 0.0


async def test_of_many_cards_the_best_are_scored_on_every_node_and_the_others_counted(world: World) -> None:
    ids = offer_many(world)
    decision = await world.router.decide(Intent(tool="work", text="thing42 please"))
    assert decision.chosen is not None
    assert decision.chosen.card_id == ids[42]
    assert {one.peer for one in decision.candidates if one.card_id == ids[42]} == {OTHER, THIRD}
    assert len(decision.candidates) == RANKED
    assert decision.more == 2 * MANY - RANKED


async def test_an_explanation_looks_at_everything(world: World) -> None:
    offer_many(world)
    decision, _ = await world.router.explain(Intent(tool="work", text="thing42 please"), 150)
    assert len(decision.candidates) == 150
    assert decision.more == 2 * MANY - 150


async def test_no_idle_node_makes_up_for_a_card_that_does_not_fit(world: World) -> None:
    world.node(OTHER, COOKING, load=900, rtt_ms=80.0)
    world.node(THIRD, CHAT)
    assert (await world.order(BAKING))[0] == OTHER


def test_the_router_says_what_it_knows(world: World) -> None:
    assert isinstance(world.router, Router)
    assert "CardVectors" in repr(world.router)
