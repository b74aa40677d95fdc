"""Each hard filter by table: what it takes out, what it lets through, and that it says so."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import pytest

from atmosphere.capabilities.card import Card, Tool
from atmosphere.capabilities.offer import OfferEntry
from atmosphere.config import RoutingConfig
from atmosphere.mesh.table import Node, Path, Route
from atmosphere.routing.filters import FILTERS, FREE, Asker, Policy, Sieve, policy_of
from atmosphere.routing.intent import Constraints, Intent
from tests.mesh.people import FOURTH, ME, OTHER
from tests.routing.test_router import CHAT, VISION, World

CARD = Card(
    "llm/chat", "chats", model="llama3.2:latest", inputs=("text", "image"), features=("tools",), context_tokens=4096,
    space="s:3", tools=(Tool("chat"),),
)
CARD_ID = bytes.fromhex("ab" * 32)


class Member:
    """A membership with scopes of the test's choice."""

    def __init__(self, *scopes: str) -> None:
        self.scopes = scopes

    def allows(self, scope: str) -> bool:
        from atmosphere.identity.scopes import covers

        return covers(self.scopes, scope)


def asker(*scopes: str, **policy: Any) -> Asker:
    return Asker(Policy(**policy), Member(*scopes) if scopes else None)  # type: ignore[arg-type]


class Case(NamedTuple):
    filter: str
    stopped: Intent | Asker
    let_through: Intent | Asker
    """The same asked so that it fits."""


def asks(**constraints: Any) -> Intent:
    return Intent(tool="chat", constraints=Constraints(**constraints))


LABELS = ("gpu", "site:home")
CASES = {
    "tool": Case("tool", Intent(tool="paint"), Intent(tool="chat")),
    "no tool": Case("tool", Intent(tool="paint"), Intent(tool=None)),
    "type": Case("type", asks(type="llm/embed"), asks(type="llm/chat")),
    "type family": Case("type", asks(type="vision/*"), asks(type="llm/*")),
    "model": Case("model", Intent(tool="chat", model="gpt-9"), Intent(tool="chat", model="llama3.2")),
    "model, auto": Case("model", Intent(tool="chat", model="gpt-9"), Intent(tool="chat", model="auto")),
    "model, alias": Case("model", Intent(tool="chat", model="x", equivalents=("y",)),
                         Intent(tool="chat", model="x", equivalents=("y", "llama3.2"))),
    "card": Case("card", asks(card="ffffffff"), asks(card="ABABABAB")),
    "node": Case("node", asks(node=FOURTH), asks(node=OTHER)),
    "excluded": Case("node", asks(exclude=frozenset({OTHER})), asks(exclude=frozenset({FOURTH}))),
    "scope": Case("scope", asker("call:llm/embed", "serve"), asker("call:llm/*")),
    "no scope to call": Case("scope", asker("serve"), asker("call:*", "serve")),
    "policy: stays here": Case("owner_policy", asker(stay=frozenset({"llm/*"})), asker(stay=frozenset({"llm/embed"}))),
    "policy: never there": Case("owner_policy", asker(never=frozenset({OTHER.text})),
                                asker(never=frozenset({FOURTH.text}))),
    "policy: labels": Case("owner_policy", asker(labels=frozenset({"site:office"})),
                           asker(labels=frozenset({"site:home"}))),
    "policy: avoided labels": Case("owner_policy", asker(avoid_labels=frozenset({"site:home"})),
                                   asker(avoid_labels=frozenset({"cloud"}))),
    "policy: price": Case("owner_policy", asker(max_price_micros=6), asker(max_price_micros=7)),
    "local_only": Case("local_only", asks(local_only=True), asks(local_only=False)),
    "labels": Case("labels", asks(labels=frozenset({"gpu", "site:office"})), asks(labels=frozenset(LABELS))),
    "privacy labels": Case("labels", asks(avoid_labels=frozenset({"site:home"})),
                           asks(avoid_labels=frozenset({"cloud"}))),
    "latency": Case("max_latency_ms", asks(max_latency_ms=4.9), asks(max_latency_ms=5.0)),
    "modality": Case("modality", Intent(tool="chat", inputs=frozenset({"text", "audio"})),
                     Intent(tool="chat", inputs=frozenset({"text", "image"}))),
    "JSON schema": Case("feature", Intent(tool="chat", features=frozenset({"tools", "json_schema"})),
                        Intent(tool="chat", features=frozenset({"tools"}))),
    "context, counted": Case("context", Intent(tool="chat", tokens=4097), Intent(tool="chat", tokens=4096)),
    "context, asked": Case("context", asks(min_context_tokens=8192), asks(min_context_tokens=4096)),
    "space": Case("space", asks(space="other:3"), asks(space="s:3")),
}


def route(path: Path = Path.LAN, labels: tuple[str, ...] = LABELS, card: Card = CARD) -> Route:
    peer = ME if path is Path.LOCAL else OTHER
    return Route(Node(peer, 0.0, path=path, rtt_ms=5.0), OfferEntry(CARD_ID, 1, 7, labels), card)


def sieve(asked: Intent | Asker) -> Sieve:
    return Sieve(asked, Asker()) if isinstance(asked, Intent) else Sieve(Intent(tool="chat"), asked)


@pytest.mark.parametrize("name", CASES)
def test_each_filter(name: str) -> None:
    case = CASES[name]
    assert sieve(case.stopped).stops(route()) == case.filter
    assert sieve(case.let_through).stops(route()) is None
    assert sieve(case.stopped).sift([route(), route()]) == ([], {case.filter: 2})


def test_a_gpu_is_a_label() -> None:
    asked = sieve(asks(gpu_required=True))
    assert asked.stops(route()) is None
    assert asked.stops(route(labels=("site:home",))) == "gpu_required"


def test_every_filter_has_a_case_and_a_next_step() -> None:
    assert {case.filter for case in CASES.values()} | {"gpu_required"} == {item.name for item in FILTERS}
    assert all(len(item.hint) > 20 for item in FILTERS)


HERE = ("scope", "policy: stays here", "policy: never there", "policy: labels", "policy: avoided labels",
        "policy: price", "local_only", "latency")


@pytest.mark.parametrize("name", HERE)
def test_what_keeps_work_from_others_does_not_keep_it_from_this_node(name: str) -> None:
    assert sieve(CASES[name].stopped).stops(route(Path.LOCAL)) is None


def test_what_is_not_known_of_a_card_or_node() -> None:
    """An unknown context may be long enough; an unknown distance may be too far."""
    unknown = dataclasses.replace(CARD, context_tokens=0)
    assert sieve(Intent(tool="chat", tokens=100_000)).stops(route(card=unknown)) is None
    far = dataclasses.replace(route(), node=Node(OTHER, 0.0, path=Path.LAN, rtt_ms=None))
    assert sieve(asks(max_latency_ms=1000.0)).stops(far) == "max_latency_ms"


def test_only_what_is_asked_is_looked_at() -> None:
    assert repr(Sieve(Intent(tool=None), Asker())) == "<Sieve >"
    assert repr(Sieve(Intent(tool="chat", tokens=5), asker("call:*"))) == "<Sieve tool, context>"


def test_the_first_filter_that_stops_it_is_the_one_counted() -> None:
    asked = Intent(tool="chat", model="gpt-9", inputs=frozenset({"audio"}))
    assert Sieve(asked, asker("serve")).sift([route()]) == ([], {"model": 1})


def test_the_settings_make_the_policy() -> None:
    assert policy_of(RoutingConfig()) == FREE
    settings = RoutingConfig(stay=("llm/*",), never=(OTHER.text,), labels=("a",), avoid_labels=("b",),
                             max_price_micros=3)
    assert policy_of(settings) == Policy(frozenset({"llm/*"}), frozenset({OTHER.text}), frozenset({"a"}),
                                         frozenset({"b"}), 3)


async def test_the_owners_policy_is_part_of_every_decision() -> None:
    world = World()
    world.router.policy = Policy(stay=frozenset({"llm/*"}))
    world.node(OTHER, CHAT)
    decision = await world.router.decide(Intent(tool="chat"))
    assert (decision.candidates, dict(decision.filtered)) == ((), {"owner_policy": 1})
    assert "config.yaml" in decision.missing
    world.node(ME, CHAT)
    assert await world.order(Intent(tool="chat")) == [ME]


async def test_the_rest_is_recomputed_with_the_filter_of_each() -> None:
    """What stopped each pair, by name: the request's filters, and nodes that get no work at all."""
    world = World()
    world.node(ME, CHAT, VISION)
    world.node(OTHER, CHAT)
    world.node(FOURTH, CHAT)
    world.table.gone(FOURTH, "silent")
    decision, refused = await world.router.explain(Intent(tool="chat", features=frozenset({"tools"}), model="auto"), 10)
    assert [one.peer for one in decision.candidates] == [ME, OTHER]
    assert {(one.peer, one.model, one.filter) for one in refused} == {
        (ME, "llava", "feature"), (FOURTH, CHAT.model, "state")}
    decision, refused = await world.router.explain(Intent(tool="chat"), 1)
    assert (len(decision.candidates), decision.more, len(refused)) == (1, 2, 1)
