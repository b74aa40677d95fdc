"""The router with its second stage and triage: whom it asks about what, and what becomes of the ranking."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio

from atmosphere.capabilities.adapters.openai import chat_card
from atmosphere.capabilities.card import Card, Tool
from atmosphere.capabilities.offer import Offer, OfferEntry
from atmosphere.embedding import Embedder, HashEmbedder, MiniLM
from atmosphere.env import FixedEnv
from atmosphere.mesh.table import GradientTable, Path
from atmosphere.routing.arbiter import Arbiter, ArbiterSettings, Mode
from atmosphere.routing.filters import FREE, Policy
from atmosphere.routing.intent import Constraints, Intent, Prefer
from atmosphere.routing.matching import card_texts, centroid
from atmosphere.routing.router import Router
from atmosphere.routing.shortlist import SHORTLIST
from protocols.beacons import Beacon
from protocols.call.errors import CallError, Code
from tests.mesh.people import ME, OTHER, THIRD, membership_of
from transports.peer_id import PeerId

EASY = "What's 2 + 2?"
HARD = "Analyze the security implications of our network topology"
SMALL = chat_card("llama3.1:7b")
BIG = chat_card("llama3.1:70b")
UNSIZED = chat_card("other")
RECIPES = Card("knowledge/answer", "Recipes for soup and bread", tools=(Tool("chat"),))


class World:
    """Cards offered by nodes, a router, and a decision model that a test scripts."""

    def __init__(self, embedder: Embedder, policy: Policy = FREE) -> None:
        self.table = GradientTable(ME)
        self.embedder = embedder
        self.router = Router(self.table, embedder, FixedEnv(), {}, policy=policy)
        self.asked: list[tuple[Intent, Any]] = []
        self.likes = ""
        self.sure_of_none = 0.5
        self.large: float | None = None
        self.fails = False

    def offer(self, peer: PeerId, *cards: Card, rtt_ms: float | None = 20.0) -> None:
        entries = []
        for card in cards:
            card_id = card.encode()[:32].ljust(32, b"0") if card.model == "" else card.model.encode().ljust(32, b"0")
            self.table.described(card_id, card)
            self.router.vectors.put(card_id, centroid(self.embedder.embed(card_texts(card))))
            entries.append(OfferEntry(card_id, 1, 0, ()))
        self.table.connected(peer, Path.LOCAL if peer == ME else Path.LAN, 0.0)
        self.table.observe(peer, Beacon(bytes(32), 1, 1, 15_000, bytes(32), 0), membership_of(peer), 0.0)
        if peer != ME and rtt_ms is not None:
            self.table.measured(peer, rtt_ms)
        self.table.offered(peer, Offer(peer, 1, 1, peer.short, tuple(entries), 0.0))

    def decides(self, mode: Mode = Mode.ALWAYS) -> None:
        self.router.arbiter = Arbiter(self, lambda: True, lambda: 0.0, ArbiterSettings(mode=mode))

    async def __call__(self, intent: Intent, args: bytes, deadline_s: float) -> bytes:
        body = json.loads(args)
        self.asked.append((intent, body))
        await trio.lowlevel.checkpoint()
        if self.fails:
            raise CallError(Code.DEADLINE, "too late")
        criteria = body["questions"]["which"]["criteria"]
        choice = next((option for option, text in criteria.items() if self.likes and self.likes in text), "none")
        sure = 0.9 if self.likes else self.sure_of_none
        rest = (1 - sure) / (len(criteria) - 1)
        answers: dict[str, Any] = {"which": {
            "type": "choice", "choice": choice, "confidence": sure,
            "probabilities": {option: sure if option == choice else rest for option in criteria},
        }}
        if self.large is not None and "large" in body["questions"]:
            answers["large"] = {"type": "noul", "noul": self.large}
        return json.dumps({"answers": answers}).encode()

    async def model(self, text: str, **intent: Any) -> str:
        decision = await self.router.decide(Intent(tool="chat", text=text, **intent))
        return decision.candidates[0].card.model


@pytest.fixture(scope="module")
def minilm() -> MiniLM:
    return MiniLM.load()


@pytest.fixture
def sized(minilm: MiniLM) -> World:
    """The founding scenario: 7B at hand, 70B one hop away."""
    world = World(minilm)
    world.offer(ME, SMALL)
    world.offer(OTHER, BIG)
    world.router.triage.learn()
    return world


async def test_the_founding_scenario(sized: World) -> None:
    assert await sized.model(EASY) == SMALL.model
    assert await sized.model(HARD) == BIG.model
    decision = await sized.router.decide(Intent(tool="chat", text=HARD))
    assert [candidate.factors["size"] for candidate in decision.candidates] == [1.0, pytest.approx(0.7, abs=0.05)]


async def test_a_busy_large_model_loses_to_a_small_one(sized: World) -> None:
    sized.table.load(OTHER, 1000, 20, 1.0)
    assert await sized.model(HARD) == SMALL.model


@pytest.mark.parametrize("intent", [{"model": SMALL.model}, {"prefer": Prefer.FAST}])
async def test_who_asks_for_something_else_gets_it(sized: World, intent: dict[str, Any]) -> None:
    assert await sized.model(HARD, **intent) == SMALL.model
    decision = await sized.router.decide(Intent(tool="chat", text=HARD, **intent))
    assert "size" not in decision.candidates[0].factors


async def test_models_of_unknown_size_are_told_apart_by_nothing(minilm: MiniLM) -> None:
    world = World(minilm)
    world.offer(ME, SMALL)
    world.offer(OTHER, UNSIZED)
    decision = await world.router.decide(Intent(tool="chat", text=HARD))
    assert all("size" not in candidate.factors for candidate in decision.candidates)


async def test_a_decision_model_knows_the_need_better(sized: World) -> None:
    sized.decides()
    sized.large = 0.95
    assert await sized.model(EASY) == BIG.model
    sized.large = 0.05
    assert await sized.model(HARD) == SMALL.model
    sized.router.arbiter = None
    assert await sized.model(HARD) == BIG.model


async def test_a_failing_decision_model_leaves_the_guess(sized: World) -> None:
    sized.decides()
    sized.fails = True
    assert await sized.model(HARD) == BIG.model


async def test_the_chosen_card_comes_first_on_all_its_nodes() -> None:
    world = World(HashEmbedder())
    world.offer(ME, SMALL)
    world.offer(OTHER, UNSIZED, SMALL)
    world.offer(THIRD, UNSIZED)
    world.decides()
    world.likes = "other"
    decision = await world.router.decide(Intent(tool="chat", text="zzz"))
    assert [candidate.card.model for candidate in decision.candidates] == ["other", "other", SMALL.model, SMALL.model]
    scores = [candidate.score for candidate in decision.candidates]
    assert scores == sorted(scores, reverse=True)


async def test_what_people_found_wrong_for_an_intent_is_no_option_for_it(sized: World) -> None:
    """A decision model must not overrule the person whose answer it was."""
    sized.decides()
    sized.likes = BIG.model
    assert await sized.model(EASY) == BIG.model
    big = BIG.model.encode().ljust(32, b"0")
    sized.router.vectors.lessons.teach(OTHER, big, await sized.router.embed(EASY), good=False)
    assert await sized.model(EASY) == SMALL.model
    assert BIG.model not in json.dumps(sized.asked[-1][1])
    assert await sized.model(HARD) == BIG.model, "another intent"


async def test_every_card_is_in_the_question_however_many_nodes_offer_the_first() -> None:
    """The best candidates may all be of one card: the shortlist is one of cards."""
    world = World(HashEmbedder())
    cards = [Card("llm/chat", f"model number{number}", model=f"m{number}", tools=(Tool("chat"),))
             for number in range(SHORTLIST + 2)]
    world.offer(ME, *cards)
    world.offer(OTHER, *cards[:1])
    world.offer(THIRD, *cards[:1])
    world.decides()
    await world.router.decide(Intent(tool="chat", text="number0"), keep=2)
    ((_, body),) = world.asked
    assert len(body["questions"]["which"]["criteria"]) == SHORTLIST + 1


@pytest.mark.parametrize(("policy", "constraints", "stays"), [
    (FREE, Constraints(), False),
    (Policy(stay=frozenset({"knowledge/*"})), Constraints(), True),
    (Policy(stay=frozenset({"llm/embed"})), Constraints(), False),
    (FREE, Constraints(local_only=True), True),
])
async def test_what_stays_here_is_not_asked_elsewhere(policy: Policy, constraints: Constraints, stays: bool) -> None:
    world = World(HashEmbedder(), policy)
    world.offer(ME, RECIPES, UNSIZED)
    world.decides()
    await world.router.decide(Intent(tool="chat", text="soup", constraints=constraints))
    ((intent, _),) = world.asked
    assert intent.constraints.local_only is stays


async def test_the_reason_is_part_of_the_decision() -> None:
    world = World(HashEmbedder())
    world.offer(ME, RECIPES, UNSIZED)
    world.decides()
    decision = await world.router.decide(Intent(tool="chat", text="soup"))
    assert decision.second.startswith("the decision model says that none of 2 cards fits, p = 0.50")
    world.router.arbiter = None
    assert (await world.router.decide(Intent(tool="chat", text="soup"))).second == ""


SAILING = Card("knowledge/answer", "Sailing: knots, tides and harbours", tools=(Tool("chat"),))


@pytest.mark.parametrize(("text", "sure", "cards", "refused"), [
    ("xylophone quarks", 0.9, (RECIPES, SAILING), True),
    ("xylophone quarks", 0.7, (RECIPES, SAILING), False),
    ("recipes for soup and bread", 0.99, (RECIPES, SAILING), False),
    ("xylophone quarks", 0.99, (RECIPES, UNSIZED), False),
])
async def test_nobody_can_where_the_model_and_the_matcher_say_so(
    text: str, sure: float, cards: tuple[Card, ...], refused: bool
) -> None:
    world = World(HashEmbedder())
    world.offer(ME, *cards)
    world.decides()
    world.sure_of_none = sure
    decision = await world.router.decide(Intent(tool="chat", text=text))
    assert len(world.asked) == 1
    assert (decision.chosen is None) is refused
    assert decision.missing.startswith("nobody can do this: a decision model says") is refused
    if refused:
        assert decision.more == 2
        assert "the nearest are knowledge/answer, knowledge/answer" in decision.missing
        card = RECIPES.encode()[:32].hex()
        named = await world.router.decide(Intent(tool="chat", text=text, constraints=Constraints(card=card)))
        assert named.chosen is not None, "who names the card gets it"
