"""What clients may write into ``model``: a model, an alias, a capability name, nothing; and what each never becomes."""

from __future__ import annotations

import dataclasses
import json

import pytest

from atmosphere.capabilities.offer import Offer
from atmosphere.config import NameConfig
from atmosphere.mesh.table import SERVED_KEPT, State
from atmosphere.routing.decision import Candidate
from atmosphere.routing.intent import Constraints, Intent, Prefer
from atmosphere.routing.models import BUILT_IN, args_for, levels_of, resolve_alias, resolve_level
from tests.mesh.people import FOURTH, OTHER, THIRD
from tests.routing.test_router import CHAT, COOKING, EMBED, IDS, VISION, World


@pytest.fixture
def world() -> World:
    return World()


def nobody(model: str) -> bool:
    return False


def test_a_capability_name_asks_for_what_it_stands_for() -> None:
    levels = {"see": NameConfig(type="llm/chat", text="pictures", inputs=("text", "image"), features=("stream",),
                                labels=("gpu",), min_context_tokens=100, gpu_required=True, prefer="fast")}
    asked = Intent(tool="chat", text="what is this", model="see", constraints=Constraints(labels=frozenset({"x"})))
    intent = resolve_level(asked, levels, nobody)
    assert (intent.level, intent.text, intent.prefer) == ("see", "pictures", Prefer.FAST)
    assert (intent.inputs, intent.features) == ({"text", "image"}, {"stream"})
    assert intent.constraints == Constraints(type="llm/chat", labels=frozenset({"x", "gpu"}), min_context_tokens=100,
                                             gpu_required=True)
    assert not intent.names_model
    assert resolve_level(intent, levels, nobody) is intent
    stricter = dataclasses.replace(asked, prefer=Prefer.CHEAP, constraints=Constraints(type="llm/vision"))
    intent = resolve_level(stricter, levels, nobody)
    assert (intent.prefer, intent.constraints.type) == (Prefer.CHEAP, "llm/vision"), "the request's own word counts"


@pytest.mark.parametrize("model", [None, "auto", "llama3.2"])
def test_anything_else_is_left_as_it_is(model: str | None) -> None:
    intent = Intent(tool="chat", model=model)
    assert resolve_level(intent, BUILT_IN, nobody) is intent


def test_a_model_or_an_alias_of_that_very_name_comes_first() -> None:
    intent = Intent(tool="chat", model="fast")
    assert resolve_level(intent, BUILT_IN, lambda model: model == "fast") is intent
    alias = resolve_alias(intent, {"fast": ("llama3.2",)})
    assert resolve_level(alias, BUILT_IN, nobody) is alias


def test_the_owners_names_come_to_the_built_in_ones() -> None:
    levels = levels_of({"fast": NameConfig(type="llm/chat", prefer="cheap"), "draw": NameConfig(type="image/generate")})
    assert set(levels) == {"fast", "vision", "best-code", "draw"}
    assert levels["fast"].prefer == "cheap"
    assert levels["vision"] == BUILT_IN["vision"]


async def test_vision_never_goes_to_a_model_that_cannot_see(world: World) -> None:
    world.node(OTHER, CHAT)
    decision = await world.router.decide(Intent(tool="chat", model="vision"))
    assert (decision.candidates, dict(decision.filtered)) == ((), {"modality": 1})
    world.node(THIRD, VISION)
    assert [one.card.model for one in (await world.router.decide(Intent(tool="chat", model="vision"))).candidates] == [
        "llava"]


async def test_the_backend_is_given_its_models_own_name(world: World) -> None:
    world.node(THIRD, VISION)
    decision = await world.router.decide(Intent(tool="chat", model="vision"))
    candidate: Candidate = decision.candidates[0]
    sent = args_for(candidate, decision.intent, b'{"model": "vision", "messages": []}')
    assert json.loads(sent) == {"model": "llava", "messages": []}


async def test_only_names_that_somebody_serves_are_listed(world: World) -> None:
    assert world.router.offered_levels() == {}
    world.node(OTHER, EMBED)
    assert world.router.offered_levels() == {}
    world.node(OTHER, CHAT, COOKING)
    assert world.router.offered_levels() == {"fast": {"llm/chat"}, "best-code": {"llm/chat"}}
    world.node(THIRD, VISION)
    assert set(world.router.offered_levels()) == {"fast", "best-code", "vision"}


async def test_auto_never_picks_what_nobody_serves_now(world: World) -> None:
    """Whatever a node offered: offline, withdrawn, left, suspected, or never allowed to serve."""
    for model in (None, "auto", "fast"):
        for state in (State.OFFLINE, State.LEFT):
            world.node(OTHER, CHAT)
            world.table.gone(OTHER, "silent", state)
            assert await world.order(Intent(tool="chat", model=model)) == []
            world.table.forget(OTHER)
    world.node(OTHER, CHAT)
    world.table.doubt(OTHER, "late", 0.0)
    assert await world.order(Intent(tool="chat")) == []
    world.table.alive(OTHER, 0.0)
    assert await world.order(Intent(tool="chat")) == [OTHER]
    world.table.offered(OTHER, Offer(OTHER, 1, 2, "", (), 0.0))
    assert await world.order(Intent(tool="chat")) == []


ASK = Intent(tool="chat", model="llama3.2")


async def said(world: World, intent: Intent = ASK) -> str:
    decision = await world.router.decide(intent)
    assert decision.candidates == ()
    return decision.missing


async def test_who_served_a_model_last_is_said(world: World) -> None:
    world.node(THIRD, COOKING)
    assert "last served" not in await said(world)
    world.node(OTHER, CHAT)
    world.table.gone(OTHER, "silent")
    assert f"(last served by {OTHER.short}, which is offline); served are: none" in await said(world)
    world.table.alive(OTHER, 1.0)
    world.table.offered(OTHER, Offer(OTHER, 1, 2, "laptop", (), 0.0))
    assert f"(last served by {OTHER.short}, which does not offer it any more)" in await said(world)
    world.node(FOURTH, CHAT)
    world.table.forget(FOURTH)
    assert f"(last served by {FOURTH.short}, which has gone)" in await said(world)
    assert f"(last served by {FOURTH.short}" in await said(world, Intent(tool="chat", model="any")), "an alias, too"


async def test_of_several_the_one_seen_last(world: World) -> None:
    for peer, seen in ((OTHER, 1.0), (THIRD, 2.0), (FOURTH, 1.5)):
        world.node(peer, CHAT)
        world.table.alive(peer, seen)
        world.table.gone(peer, "silent")
    assert f"last served by {THIRD.short}" in await said(world)


def test_the_memory_of_models_is_bounded(world: World) -> None:
    card = IDS[CHAT]
    for number in range(SERVED_KEPT + 5):
        world.table.cards[card] = dataclasses.replace(CHAT, model=f"m{number}")
        world.node(OTHER, CHAT)
        world.table.forget(OTHER)
    assert len(world.table.served) == SERVED_KEPT
    assert "m4" not in world.table.served
