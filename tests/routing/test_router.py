"""Routing: each hard filter, the orderings of the score, and what is said when nobody can."""

from __future__ import annotations

import dataclasses

import pytest

from atmosphere.capabilities.card import Card, Tool
from atmosphere.capabilities.offer import Offer, OfferEntry
from atmosphere.embedding import HashEmbedder
from atmosphere.env import FixedEnv
from atmosphere.mesh.table import GradientTable, Path
from atmosphere.routing.intent import Constraints, Intent
from atmosphere.routing.matching import card_texts, centroid
from atmosphere.routing.router import Router
from protocols.beacons import Beacon
from tests.mesh.people import FOURTH, ME, OTHER, THIRD, membership_of
from transports.peer_id import PeerId

CHAT = Card(
    "llm/chat", "A general chat model", model="llama3.2:latest", features=("stream", "tools"), context_tokens=4096,
    tools=(Tool("chat"), Tool("complete")),
)
VISION = Card(
    "llm/chat", "Answers questions about pictures", model="llava", inputs=("text", "image"), tools=(Tool("chat"),)
)
COOKING = Card(
    "knowledge/answer", "Recipes: bread, soup, cake and other cooking", topics=("cooking", "baking", "recipes"),
    tools=(Tool("chat"), Tool("search")),
)
EMBED = Card("llm/embed", "Embeddings", model="hash", space="hash:64", tools=(Tool("embed"),))
EMBED_OTHER = Card("llm/embed", "Other embeddings", model="other", space="other:8", tools=(Tool("embed"),))
IDS = {card: bytes([number + 1]) * 32 for number, card in enumerate((CHAT, VISION, COOKING, EMBED, EMBED_OTHER))}
ALIASES = {"best": ("llava",), "any": ("llava", "llama3.2"), "vectors": ("other", "hash")}


class World:
    """A table and a router over nodes that offer cards."""

    def __init__(self) -> None:
        self.table = GradientTable(ME)
        self.embedder = HashEmbedder()
        self.router = Router(self.table, self.embedder, FixedEnv(), ALIASES)
        self.cards = {dataclasses.replace(card, space=self.embedder.space.name) if card is EMBED else card: card
                      for card in IDS}
        for card, key in self.cards.items():
            self.table.described(IDS[key], card)
            vectors = self.embedder.embed(card_texts(card))
            self.router.vectors.put(IDS[key], centroid(vectors))

    def node(self, peer: PeerId, *cards: Card, path: Path = Path.LAN, rtt_ms: float | None = 5.0, load: int = 0,
             queue: int = 0, cost: int = 1000, price: int = 0, labels: tuple[str, ...] = ()) -> None:
        self.table.connected(peer, Path.LOCAL if peer == ME else path, 0.0)
        beacon = Beacon(bytes(32), 1, 1, 15_000, bytes(32), 0, load, queue, cost)
        self.table.observe(peer, beacon, membership_of(peer), 0.0)
        if peer != ME and rtt_ms is not None:
            self.table.measured(peer, rtt_ms)
        entries = tuple(OfferEntry(IDS[card], 1, price, labels) for card in cards)
        self.table.offered(peer, Offer(peer, 1, 1, peer.short, entries, 0.0))

    async def order(self, intent: Intent) -> list[PeerId]:
        return [candidate.peer for candidate in (await self.router.decide(intent)).candidates]


@pytest.fixture
def world() -> World:
    return World()


ASK = Intent(tool="chat", model="llama3.2")

FILTERED = {
    "tool": (Intent(tool="paint"), "tool"),
    "type": (Intent(tool="chat", constraints=Constraints(type="vision/generate")), "type"),
    "type family": (Intent(tool="chat", constraints=Constraints(type="vision/*")), "type"),
    "model": (Intent(tool="chat", model="gpt-9"), "model"),
    "card": (Intent(tool="chat", constraints=Constraints(card="ffffffff")), "card"),
    "node": (Intent(tool="chat", constraints=Constraints(node=FOURTH)), "node"),
    "excluded": (Intent(tool="chat", constraints=Constraints(exclude=frozenset({OTHER}))), "node"),
    "local_only": (Intent(tool="chat", constraints=Constraints(local_only=True)), "local_only"),
    "labels": (Intent(tool="chat", constraints=Constraints(labels=frozenset({"gpu", "site:home"}))), "labels"),
    "latency": (Intent(tool="chat", constraints=Constraints(max_latency_ms=1.0)), "max_latency_ms"),
    "modality": (Intent(tool="chat", inputs=frozenset({"text", "image"})), "modality"),
    "feature": (Intent(tool="chat", features=frozenset({"json_schema"})), "feature"),
    "context": (Intent(tool="chat", constraints=Constraints(min_context_tokens=8192)), "context"),
    "space": (Intent(tool="chat", constraints=Constraints(space="other:8")), "space"),
}


@pytest.mark.parametrize("name", FILTERED)
async def test_each_filter_takes_out_what_it_names_and_says_so(world: World, name: str) -> None:
    world.node(OTHER, CHAT, labels=("gpu",))
    intent, expected = FILTERED[name]
    decision = await world.router.decide(intent)
    assert decision.candidates == ()
    assert decision.filtered == {expected: 1}
    assert decision.missing


async def test_a_missing_model_is_named_with_what_is_served(world: World) -> None:
    world.node(OTHER, CHAT)
    decision = await world.router.decide(Intent(tool="chat", model="gpt-9"))
    assert decision.missing == "the model 'gpt-9' is not served by any node now; served are: llama3.2:latest"


async def test_a_missing_tool_is_named_with_what_is_offered(world: World) -> None:
    world.node(OTHER, EMBED)
    missing = (await world.router.decide(Intent(tool="chat"))).missing
    assert missing.startswith("no node of the mesh offers 'chat' now; offered are: llm/embed.")
    missing = (await world.router.decide(Intent(tool="embde", constraints=Constraints(type="llm/embed")))).missing
    assert missing == "no node of the mesh offers the tool 'embde' of llm/embed now; the tools of it are: embed"


async def test_a_named_model_is_never_replaced(world: World) -> None:
    world.node(OTHER, CHAT, load=1000, queue=50)
    world.node(THIRD, VISION, COOKING)
    assert await world.order(ASK) == [OTHER]


async def test_an_alias_stands_for_its_model(world: World) -> None:
    world.node(OTHER, CHAT)
    world.node(THIRD, VISION)
    decision = await world.router.decide(Intent(tool="chat", model="best"))
    assert [candidate.card.model for candidate in decision.candidates] == ["llava"]
    assert (decision.intent.model, decision.intent.equivalents) == ("best", ("llava",))


async def test_equivalents_are_the_owners_order_where_nothing_else_tells_them_apart(world: World) -> None:
    """One node with both: the first of the list; it gone: the other; busier: the score decides."""
    intent = Intent(tool="chat", model="any", text="hello")
    world.node(OTHER, CHAT, VISION)
    assert [c.card.model for c in (await world.router.decide(intent)).candidates] == ["llava", "llama3.2:latest"]
    world.table.forget(OTHER)
    world.node(OTHER, VISION, load=900)
    world.node(THIRD, CHAT)
    assert await world.order(intent) == [THIRD, OTHER]
    world.table.forget(OTHER)
    assert await world.order(intent) == [THIRD]
    world.table.forget(THIRD)
    world.node(THIRD, COOKING)
    assert "'any' (alias of llava, llama3.2) is not served" in (await world.router.decide(intent)).missing


async def test_a_model_that_is_named_is_not_replaced_by_its_equivalents(world: World) -> None:
    world.node(OTHER, CHAT)
    decision = await world.router.decide(Intent(tool="chat", model="llava"))
    assert decision.candidates == ()


async def test_an_alias_embeds_with_its_first_model_only(world: World) -> None:
    """Vectors of two models must not be mixed, not even over time, as backends come and go."""
    world.node(OTHER, EMBED)
    assert await world.order(Intent(tool="embed", model="vectors")) == []
    world.node(THIRD, EMBED_OTHER)
    assert await world.order(Intent(tool="embed", model="vectors")) == [THIRD]


async def test_meaning_decides_when_no_model_is_named(world: World) -> None:
    world.node(OTHER, CHAT)
    world.node(THIRD, COOKING)
    assert (await world.order(Intent(tool="chat", text="recipes for baking bread and cake")))[0] == THIRD
    assert (await world.order(Intent(tool="chat", text="a general chat", model="auto")))[0] == OTHER


ORDERINGS = {
    "idle beats busy": ({"load": 0}, {"load": 950}),
    "short queue beats long": ({"queue": 0}, {"queue": 12}),
    "near beats far": ({"rtt_ms": 4.0}, {"rtt_ms": 250.0}),
    "nearer beats near": ({"rtt_ms": 2.0}, {"rtt_ms": 8.0}),
    "measured near beats unmeasured": ({"rtt_ms": 4.0}, {"rtt_ms": None}),
    "neutral cost beats battery": ({"cost": 1000}, {"cost": 3000}),
    "free beats priced": ({"price": 0}, {"price": 500_000}),
}


@pytest.mark.parametrize("name", ORDERINGS)
async def test_orderings_that_the_papers_agree_on(world: World, name: str) -> None:
    better, worse = ORDERINGS[name]
    for first, second in ((OTHER, THIRD), (THIRD, OTHER)):  # whatever the tie-break says
        world.node(first, CHAT, **better)  # type: ignore[arg-type]
        world.node(second, CHAT, **worse)  # type: ignore[arg-type]
        assert await world.order(ASK) == [first, second]
        world.table.forget(first)
        world.table.forget(second)


async def test_local_beats_the_same_elsewhere(world: World) -> None:
    world.node(ME, CHAT)
    world.node(OTHER, CHAT, rtt_ms=0.1)
    assert await world.order(ASK) == [ME, OTHER]


async def test_failures_sink_a_node_and_successes_bring_it_back(world: World) -> None:
    world.node(OTHER, CHAT)
    world.node(THIRD, CHAT, load=300)
    world.router.outcomes.record(OTHER, IDS[CHAT], good=False)
    assert await world.order(ASK) == [THIRD, OTHER]
    for _ in range(10):
        world.router.outcomes.record(OTHER, IDS[CHAT], good=True)
    assert await world.order(ASK) == [OTHER, THIRD]


async def test_embeddings_stay_in_one_space(world: World) -> None:
    world.node(OTHER, EMBED, EMBED_OTHER)
    world.node(THIRD, EMBED)
    decision = await world.router.decide(Intent(tool="embed"))
    assert {candidate.card.space for candidate in decision.candidates} == {world.embedder.space.name}
    assert len(decision.candidates) == 2
    named = await world.router.decide(Intent(tool="embed", model="other"))
    assert [candidate.card.space for candidate in named.candidates] == ["other:8"]


async def test_every_candidate_is_explained_by_factors_whose_product_is_its_score(world: World) -> None:
    world.node(OTHER, CHAT, load=500, rtt_ms=70.0)
    (candidate,) = (await world.router.decide(ASK)).candidates
    product = 1.0
    for factor in candidate.factors.values():
        assert 0 < factor <= 1
        product *= factor
    assert candidate.score == pytest.approx(product)
    assert list(candidate.factors) == [
        "match", "availability", "locality", "cost", "speed", "reliability", "feedback", "affinity"
    ]
