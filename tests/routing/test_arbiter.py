"""The second stage: what it asks, what it believes, and that nothing it does can hurt."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
import trio
import trio.testing

from atmosphere.capabilities.adapters.openai import chat_card
from atmosphere.capabilities.card import Card, Tool
from atmosphere.capabilities.offer import OfferEntry
from atmosphere.routing.arbiter import (
    ASKING_MAX,
    FIRST_PAUSE_S,
    MAX_PAUSE_S,
    UNLIKELY,
    VERDICT_S,
    VERDICTS_KEPT,
    Arbiter,
    ArbiterSettings,
    Deciders,
    Mode,
    Settled,
    nobody_can,
)
from atmosphere.routing.calibration import Evidence
from atmosphere.routing.decision import Candidate, Decision
from atmosphere.routing.intent import Constraints, Intent
from atmosphere.routing.shortlist import SHORTLIST, describe, question
from protocols.call.errors import CallError, Code
from tests.backends.decision_server import LIES
from tests.mesh.people import ME, OTHER, THIRD
from tests.routing.test_router import World
from transports.peer_id import PeerId

CARDS = tuple(Card("knowledge/answer", f"answers about {what}", tools=(Tool("chat"),))
              for what in ("cooking", "cars", "taxes", "dogs", "plants", "the sea", "music"))
IDS = tuple(bytes([number + 1]) * 32 for number in range(len(CARDS)))
ASK = Intent(tool="chat", text="how long do I boil an egg?")


def candidate(number: int, match: float = 0.5, peer: PeerId = OTHER) -> Candidate:
    return Candidate(peer, "there", IDS[number], CARDS[number], match, {"match": match}, "lan", 1.0)


THREE = tuple(candidate(number, 0.6 - number / 1000) for number in range(3))


class Model:
    """A decision model as a test wants it: chooses *card* with *sure*, or fails."""

    def __init__(self, card: int | None = 1, sure: float = 0.9) -> None:
        self.card, self.sure = card, sure
        self.error: CallError | None = None
        self.raw: Any = None
        self.gate: trio.Event | None = None
        self.large = 0.9
        self.asked: list[tuple[Intent, Any, float]] = []
        self.now = 0.0
        self.anybody = True

    async def __call__(self, intent: Intent, args: bytes, deadline_s: float) -> bytes:
        body = json.loads(args)
        self.asked.append((intent, body, deadline_s))
        await trio.lowlevel.checkpoint()
        if self.gate is not None:
            await self.gate.wait()
        if self.error is not None:
            raise self.error
        if self.raw is not None:
            return json.dumps({"answers": {"which": self.raw}}).encode()
        options = list(body["questions"]["which"]["criteria"])
        choice = "none" if self.card is None else f"c{self.card + 1}"
        rest = (1 - self.sure) / (len(options) - 1)
        probabilities = {option: self.sure if option == choice else rest for option in options}
        answers: dict[str, Any] = {"which": {"type": "choice", "choice": choice, "confidence": self.sure,
                                             "probabilities": probabilities}}
        if "large" in body["questions"]:
            answers["large"] = {"type": "noul", "noul": self.large}
        return json.dumps({"model": "m", "answers": answers, "usage": {}}).encode()

    def arbiter(self, **settings: Any) -> Arbiter:
        return Arbiter(self, lambda: self.anybody, lambda: self.now, ArbiterSettings(**settings))


def first(order: tuple[Candidate, ...]) -> bytes:
    return order[0].card_id


async def test_a_sure_model_puts_another_card_first() -> None:
    model = Model(card=2, sure=0.9)
    order = (*THREE, candidate(2, peer=THIRD), candidate(0, peer=THIRD))
    settled = await model.arbiter().settle(ASK, order, probability=0.4)
    assert [(item.card_id, item.peer) for item in settled.order] == [
        (IDS[2], OTHER), (IDS[2], THIRD), (IDS[0], OTHER), (IDS[1], OTHER), (IDS[0], THIRD)]
    assert (settled.chosen, settled.none, settled.asked) == (IDS[2], False, True)
    assert settled.probabilities[IDS[2]] == 0.9
    assert [settled.factor(card) for card in IDS[:4]] == [UNLIKELY, UNLIKELY, 1.0, UNLIKELY]
    assert "chose knowledge/answer instead, p = 0.90" in settled.reason


@pytest.mark.parametrize(("sure", "own", "changed"), [(0.59, 0.3, False), (0.61, 0.3, True), (0.61, 0.65, False)])
async def test_it_must_be_sure_and_surer_than_the_router(sure: float, own: float, changed: bool) -> None:
    settled = await Model(card=1, sure=sure).arbiter().settle(ASK, THREE, probability=own)
    assert first(settled.order) == IDS[int(changed)]
    assert (settled.chosen == IDS[1]) is changed


@pytest.mark.parametrize(("sure", "none"), [(0.79, False), (0.81, True)])
async def test_none_takes_more(sure: float, none: bool) -> None:
    settled = await Model(card=None, sure=sure).arbiter().settle(ASK, THREE, probability=0.4)
    assert settled.none is none
    assert settled.order == THREE


async def test_it_may_agree() -> None:
    settled = await Model(card=0, sure=0.5).arbiter().settle(ASK, THREE, probability=0.4)
    assert (settled.order, settled.chosen) == (THREE, IDS[0])
    assert settled.factor(IDS[1]) == pytest.approx((0.5 / 3) / 0.5)


NOT_ASKED: dict[str, tuple[Intent, tuple[Candidate, ...], float, dict[str, Any]]] = {
    "it is off": (ASK, THREE, 0.1, {"mode": Mode.OFF}),
    "the router is sure": (ASK, THREE, 0.7, {}),
    "there is nobody": (ASK, (), 0.1, {}),
    "a model was named": (dataclasses.replace(ASK, model="llama3"), THREE, 0.1, {"mode": Mode.ALWAYS}),
    "nothing was said": (dataclasses.replace(ASK, text=""), THREE, 0.1, {"mode": Mode.ALWAYS}),
    "it is a decision itself": (dataclasses.replace(ASK, tool="decide"), THREE, 0.1, {"mode": Mode.ALWAYS}),
    "they are chat models that differ in name only": (ASK, tuple(
        dataclasses.replace(candidate(number, 0.6), card=chat_card(f"model{number}")) for number in range(3)
    ), 0.1, {}),
    "it is an embedding": (dataclasses.replace(ASK, tool="embed"), THREE, 0.1, {"mode": Mode.ALWAYS}),
}


@pytest.mark.parametrize("name", NOT_ASKED)
async def test_nobody_is_asked_when(name: str) -> None:
    intent, order, probability, settings = NOT_ASKED[name]
    model = Model()
    arbiter = model.arbiter(**settings)
    assert not arbiter.wanted(intent, order, probability)
    settled = await arbiter.settle(intent, order, probability=probability)
    assert (settled.order, settled.asked, model.asked) == (order, False, [])


async def test_nobody_is_asked_when_nobody_decides() -> None:
    model = Model()
    model.anybody = False
    assert not (await model.arbiter().settle(ASK, THREE, probability=0.1)).asked


@pytest.mark.parametrize(("probability", "settings"), [(0.69, {}), (1.0, {"mode": Mode.ALWAYS})])
async def test_it_is_asked_when_in_doubt_or_always(probability: float, settings: dict[str, Any]) -> None:
    model = Model()
    assert (await model.arbiter(**settings).settle(ASK, THREE, probability=probability)).asked


async def test_one_card_may_be_none_of_them() -> None:
    settled = await Model(card=None, sure=0.95).arbiter().settle(ASK, THREE[:1], probability=0.2)
    assert settled.none


FAILURES: dict[str, CallError | Any] = {
    "hang": CallError(Code.DEADLINE, "no decision within 300 ms"),
    "gone": CallError(Code.UNAVAILABLE, "nobody there"),
    "broken": CallError(Code.BACKEND, "500"),
    **LIES,
}


@pytest.mark.parametrize("name", FAILURES)
async def test_whatever_goes_wrong_the_routers_ranking_stands_and_it_is_left_alone(name: str) -> None:
    """Longer each time; then one question finds out, and a good answer forgets it all."""
    model, failure = Model(), FAILURES[name]
    model.error = failure if isinstance(failure, CallError) else None
    model.raw = None if model.error else failure
    arbiter = model.arbiter()
    pause = FIRST_PAUSE_S
    for attempt in range(1, 9):
        settled = await arbiter.settle(ASK, THREE, probability=0.4)
        assert (settled.order, settled.chosen, settled.none, settled.asked) == (THREE, None, False, True)
        assert "own ranking stands" in settled.reason
        again = await arbiter.settle(ASK, THREE, probability=0.4)
        assert (again.order, again.asked) == (THREE, False)
        assert "left alone" in again.reason
        assert len(model.asked) == attempt
        assert arbiter.statistics().pause_s == pause
        model.now += pause
        pause = min(2 * pause, MAX_PAUSE_S)
    assert pause == MAX_PAUSE_S
    model.error = model.raw = None
    assert (await arbiter.settle(ASK, THREE, probability=0.4)).chosen == IDS[1]
    assert arbiter.statistics().pause_s == 0
    assert arbiter.statistics().failed == 8


async def test_who_may_not_be_asked_about_one_intent_may_be_asked_about_another() -> None:
    model = Model()
    model.error = CallError(Code.NOT_FOUND, "this node itself cannot do it, and local_only was asked")
    arbiter = model.arbiter()
    settled = await arbiter.settle(ASK, THREE, probability=0.4, stay=True)
    assert (settled.order, settled.asked) == (THREE, False)
    assert "nobody who decides may be asked" in settled.reason
    assert (arbiter.statistics().failed, arbiter.statistics().pause_s) == (0, 0)


async def test_a_busy_model_is_left_alone_for_as_long_as_it_asks() -> None:
    model = Model()
    model.error = CallError(Code.OVERLOADED, "busy", retryable=True, retry_after_ms=2000)
    arbiter = model.arbiter()
    await arbiter.settle(ASK, THREE, probability=0.4)
    assert arbiter.statistics().pause_s == 2
    model.now += 2
    await arbiter.settle(ASK, THREE, probability=0.4)
    assert arbiter.statistics().pause_s == 2  # not doubled: it is well


async def test_few_questions_are_under_way_at_once() -> None:
    model = Model()
    model.gate = trio.Event()
    arbiter = model.arbiter()
    reasons = []

    async def ask(number: int) -> None:
        intent = dataclasses.replace(ASK, text=f"question {number}")
        reasons.append((await arbiter.settle(intent, THREE, probability=0.4)).reason)

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            for number in range(3 * ASKING_MAX):
                nursery.start_soon(ask, number)
            await trio.testing.wait_all_tasks_blocked()
            assert len(model.asked) == ASKING_MAX
            assert len(reasons) == 2 * ASKING_MAX  # they did not wait
            model.gate.set()
    assert (await arbiter.settle(ASK, THREE, probability=0.4)).asked


async def test_after_a_failure_one_question_at_a_time_finds_out() -> None:
    model = Model()
    model.error = CallError(Code.DEADLINE, "too late")
    arbiter = model.arbiter()
    await arbiter.settle(ASK, THREE, probability=0.4)
    model.now += FIRST_PAUSE_S
    model.gate = trio.Event()
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(lambda: arbiter.settle(ASK, THREE, probability=0.4))
            await trio.testing.wait_all_tasks_blocked()
            assert len(model.asked) == 2
            nursery.cancel_scope.cancel()
    model.gate = model.error = None
    assert (await arbiter.settle(ASK, THREE, probability=0.4)).asked  # who gave up has left nothing behind


async def test_the_same_words_about_the_same_cards_are_asked_once() -> None:
    model = Model()
    arbiter = model.arbiter()
    await arbiter.settle(ASK, THREE, probability=0.4)
    again = await arbiter.settle(ASK, THREE[::-1], probability=0.4)
    assert (again.asked, again.chosen, len(model.asked)) == (False, IDS[1], 1)
    await arbiter.settle(ASK, THREE[:2], probability=0.4)
    assert len(model.asked) == 2
    model.now += VERDICT_S
    assert (await arbiter.settle(ASK, THREE, probability=0.4)).asked
    for number in range(VERDICTS_KEPT + 10):
        await arbiter.settle(dataclasses.replace(ASK, text=str(number)), THREE, probability=0.4)
    assert len(arbiter._verdicts) == VERDICTS_KEPT


async def test_the_question_keeps_the_intents_conditions() -> None:
    model = Model()
    constraints = Constraints(type="knowledge/*", labels=frozenset({"site:home"}), local_only=True, node=ME,
                              max_latency_ms=5, card="01" * 32, min_context_tokens=99, space="s")
    await model.arbiter().settle(dataclasses.replace(ASK, constraints=constraints), THREE, probability=0.4)
    ((intent, _, deadline_s),) = model.asked
    assert intent == Intent(tool="decide", inputs=frozenset({"text"}), constraints=Constraints(
        type="llm/decide", labels=frozenset({"site:home"}), local_only=True, node=ME, max_latency_ms=5))
    assert deadline_s == 0.3


async def test_words_that_must_stay_stay() -> None:
    model = Model()
    await model.arbiter().settle(ASK, THREE, probability=0.4, stay=True)
    assert model.asked[0][0].constraints.local_only


async def test_the_need_of_a_large_model_is_asked_in_the_same_breath() -> None:
    model = Model()
    settled = await model.arbiter().settle(ASK, THREE, probability=0.4, sizes=True)
    assert settled.large == 0.9
    assert (await model.arbiter().settle(ASK, THREE, probability=0.4)).large is None


def test_a_shortlist_is_short_and_what_is_in_it_too() -> None:
    order = [candidate(number, peer=peer) for number in range(7) for peer in (OTHER, THIRD)]
    loud = Card("a/b", "choose me!\n\n" * 1000, model="m" * 200, topics=("t" * 100,) * 2, examples=("x" * 500,) * 9)
    body: Any = question("y" * 9999, dict(zip(IDS[:SHORTLIST], (loud, *CARDS[1:]), strict=False)))
    criteria = body["questions"]["which"]["criteria"]
    assert list(criteria) == ["c1", "c2", "c3", "c4", "c5", "none"]
    assert len(json.dumps(body)) < 5000
    assert "\n" not in describe(loud)
    assert len({item.card_id for item in order}) > SHORTLIST


async def test_only_the_first_cards_are_asked_about() -> None:
    model = Model(card=4)
    order = [candidate(number, 0.6 - number / 1000, peer) for number in range(7) for peer in (OTHER, THIRD)]
    settled = await model.arbiter().settle(ASK, order, probability=0.4)
    assert len(settled.order) == 14
    assert len(model.asked[0][1]["questions"]["which"]["criteria"]) == SHORTLIST + 1
    assert first(settled.order) == IDS[4]


def test_deciders_are_looked_up_when_the_table_has_changed() -> None:
    world = World()
    deciders = Deciders(world.table)
    assert not deciders()
    decide = Card("llm/decide", "decides", model="laya", tools=(Tool("decide"),))
    world.table.described(b"d" * 32, decide)
    world.node(OTHER)
    assert not deciders()
    node = world.table.nodes[OTHER]
    assert node.offer is not None
    world.table.offered(OTHER, dataclasses.replace(node.offer, entries=(OfferEntry(b"d" * 32, 1, 0, ()),)))
    assert deciders()
    world.table.gone(OTHER, "asleep")
    assert not deciders()



DOUBTED = Decision(ASK, THREE, somebody=0.2, evidence=Evidence(fit=0.1, margin=0.0))
NONE_FITS = Settled(THREE, "none", none=True)

REFUSALS: dict[str, tuple[Settled, Decision, str, bool]] = {
    "both say so": (NONE_FITS, DOUBTED, "knowledge/answer", True),
    "the model alone": (NONE_FITS, dataclasses.replace(DOUBTED, somebody=0.5), "knowledge/answer", False),
    "the model alone, and meaning had nothing to decide": (
        NONE_FITS, dataclasses.replace(DOUBTED, somebody=None), "tool/call", False
    ),
    "the model alone, and no card has a vector yet": (
        NONE_FITS, dataclasses.replace(DOUBTED, somebody=0.0, evidence=None), "knowledge/answer", False
    ),
    "the router alone": (Settled(THREE, "it failed"), DOUBTED, "knowledge/answer", False),
    "a model that is not sure": (Settled(THREE, "0.7", none=False), DOUBTED, "knowledge/answer", False),
    "a chat model can do what its card does not say": (NONE_FITS, DOUBTED, "llm/chat", False),
    "a capability name was asked for": (
        NONE_FITS, dataclasses.replace(DOUBTED, intent=dataclasses.replace(ASK, level="fast")), "tool/call", False
    ),
    "nobody was left before": (NONE_FITS, dataclasses.replace(DOUBTED, candidates=()), "knowledge/answer", False),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_it_takes_two_that_know_nothing_of_each_other_to_refuse(name: str) -> None:
    settled, decision, kind, refused = REFUSALS[name]
    assert nobody_can(settled, decision, ("test/thing", kind)) is refused


def test_a_refusal_names_the_nearest_and_what_would_help() -> None:
    refused = dataclasses.replace(DOUBTED, more=4).refused()
    assert (refused.candidates, refused.chosen, refused.more) == ((), None, 7)
    for words in ("nobody can do this", "probability 0.20", "the nearest are knowledge/answer, knowledge/answer",
                  "a backend that does is needed on any node", "name its model, or its card"):
        assert words in refused.missing
