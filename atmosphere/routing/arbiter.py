"""The second stage: where the router itself is unsure, a decision model of the mesh is asked "which of these, or none".

The router's first stage is local and takes a millisecond; it says how probable it is that its first card is the right
one. Below ``ask_below`` the shortlist goes to a decision model (``llm/decide``), wherever one is, as one typed
question. The answer may put another card first, or say that none fits, and only where the model is sure, and surer
than the router was; that nobody can takes the matcher's own doubt besides (:func:`nobody_can`). Nothing else depends
on it: without such a model, when it does not answer within the deadline, when it fails or says what cannot be true,
the router's own ranking stands, at once.

Guarantees: an intent waits for at most ``deadline_s``; a model that failed is left alone for a while, longer each
time, so that a hanging one does not cost every intent the deadline; few questions are under way at a time; asking is
never itself arbitrated (a question has no text to be matched, and its tool is refused here); the intent's conditions
(``local_only``, labels, node ...) hold for the question as well, because it carries the intent's words.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Protocol

from atmosphere.capabilities.card import Card
from atmosphere.capabilities.decisions import DECIDE_TOOL, DECIDE_TYPE
from atmosphere.config import RoutingConfig
from atmosphere.mesh.table import GradientTable
from atmosphere.routing.decision import Candidate, Decision
from atmosphere.routing.filters import Asker
from atmosphere.routing.intent import Constraints, Intent
from atmosphere.routing.models import EMBED_TOOL
from atmosphere.routing.reach import Reach
from atmosphere.routing.shortlist import MAX_TEXT, NONE, Verdict, believed, name, options, question, shortlist
from protocols.call.errors import CallError, Code

RERANK_AT = 0.6          # the probability at which another card is put first; by chance a sixth
NONE_AT = 0.8            # to say that nobody can, which costs the user more than a wrong card
ASKING_MAX = 4           # questions under way: one node's intents must not occupy the mesh's decision models
FIRST_PAUSE_S = 5.0      # after a failure; doubled with each further one
MAX_PAUSE_S = 300.0      # then the deadline is lost once in five minutes
BUSY_PAUSE_S = 1.0       # when everybody who decides is busy and does not say until when
UNLIKELY = 0.1           # the factor of a card that the model thinks next to nothing of: it may be mistaken
VERDICTS_KEPT = 512
VERDICT_S = 600.0        # an answer to the same words about the same cards holds this long
CHAT_TYPE = "llm/chat"


class Mode(StrEnum):
    """When a decision model is asked."""

    OFF = "off"
    AMBIGUOUS = "ambiguous"
    ALWAYS = "always"


@dataclass(frozen=True, slots=True)
class ArbiterSettings:
    """What the owner may set."""

    mode: Mode = Mode.AMBIGUOUS
    deadline_s: float = 0.3
    """How long an intent may wait: less than a person notices, enough for a small model on a CPU of the LAN."""
    ask_below: float = 0.7
    """The router's own probability below which it asks."""


def settings_of(config: RoutingConfig) -> ArbiterSettings:
    """What the node's settings ask for."""
    return ArbiterSettings(Mode(config.decision_model), config.decision_deadline_ms / 1000, config.decision_below)


class Ask(Protocol):
    """Runs a question on the mesh."""

    async def __call__(self, intent: Intent, args: bytes, deadline_s: float) -> bytes:
        """The body of the answer. Raises CallError, DEADLINE after *deadline_s* at the latest, whatever happens."""


@dataclass(frozen=True, slots=True)
class Settled:
    """What became of a shortlist."""

    order: tuple[Candidate, ...]
    """The candidates; those of the chosen card first, else as they were given."""
    reason: str
    """For people: what was asked and what came of it."""
    chosen: bytes | None = None
    """The card that the model chose, where it is to be put first."""
    none: bool = False
    """The model is sure that none of the cards fits."""
    probabilities: Mapping[bytes, float] = field(default_factory=dict)
    """What the model gave to each card of the shortlist; empty when it was not asked or not believed."""
    large: float | None = None
    """The probability that a large model is needed, where that was asked as well."""
    asked: bool = False
    elapsed_ms: float = 0.0

    def factor(self, card: bytes) -> float:
        """What this makes of the score of *card*, where another one was chosen: how probable it is beside that one."""
        if self.chosen is None or card == self.chosen or not self.probabilities:
            return 1.0
        return max(UNLIKELY, min(1.0, self.probabilities.get(card, 0.0) / self.probabilities[self.chosen]))


@dataclass(frozen=True, slots=True)
class ArbiterStatistics:
    """Counts since the start."""

    asked: int
    changed: int
    """Another card was put first."""
    none: int
    failed: int
    """No answer in time, an error, or one that could not be believed."""
    remembered: int
    """Answered without asking again."""
    pause_s: float
    """How long the models are still left alone; 0: not at all."""


ANY_DECIDER = Intent(tool=None, constraints=Constraints(type=DECIDE_TYPE))


class Deciders:
    """Whether anybody in the mesh decides now; only the nodes that have changed are looked at again."""

    def __init__(self, table: GradientTable) -> None:
        self._reach = Reach(table)

    def __call__(self) -> bool:
        return len(self._reach.of(ANY_DECIDER, Asker())) > 0


class Arbiter:
    """Asks decision models for one router. Not bound to a task: any number of intents may be settled at once."""

    def __init__(
        self,
        ask: Ask,
        deciders: Callable[[], bool],
        monotonic: Callable[[], float],
        settings: ArbiterSettings | None = None,
    ) -> None:
        """*deciders*: whether there is anybody to ask; called for every intent that is in doubt."""
        self.settings = settings or ArbiterSettings()
        self._ask = ask
        self._deciders = deciders
        self._monotonic = monotonic
        self._verdicts: OrderedDict[tuple[object, ...], tuple[Verdict, float]] = OrderedDict()
        self._asking = 0
        self._pause_s = 0.0
        self._until = 0.0
        self._failing = False
        self._asked = self._changed = self._none = self._failed = self._remembered = 0

    def __repr__(self) -> str:
        return f"<Arbiter {self.settings.mode}, {self._asked} asked, {self._failed} failed>"

    def statistics(self) -> ArbiterStatistics:
        pause = max(0.0, self._until - self._monotonic())
        return ArbiterStatistics(self._asked, self._changed, self._none, self._failed, self._remembered, pause)

    def wanted(self, intent: Intent, candidates: Sequence[Candidate], probability: float) -> bool:
        """Whether *candidates*, ranked, are to be settled: cheap, so that the sure intents pay nothing.

        Chat models that differ in name and size only are no question of meaning: for them it takes ``always``.
        *probability*: the router's own, that its first card is right.
        """
        mode = self.settings.mode
        if mode is Mode.OFF or not intent.text or intent.names_model or intent.tool in (DECIDE_TOOL, EMBED_TOOL):
            return False
        cards = shortlist(candidates)
        if not cards:
            return False
        if mode is Mode.AMBIGUOUS and (probability >= self.settings.ask_below or _alike(cards.values())):
            return False
        return self._deciders()

    async def settle(
        self,
        intent: Intent,
        candidates: Sequence[Candidate],
        *,
        probability: float,
        stay: bool = False,
        sizes: bool = False,
    ) -> Settled:
        """Let a decision model choose among the cards of *candidates* (ranked), the first few. Never raises CallError.

        *probability*: the router's own, which the model must exceed. *stay*: the intent's words must not leave this
        node. *sizes*: ask besides whether a large model is needed.
        """
        order, started = tuple(candidates), self._monotonic()
        if not self.wanted(intent, candidates, probability):
            return Settled(order, "the router decided alone")
        cards = shortlist(candidates)
        key = (intent.text[:MAX_TEXT], tuple(sorted(cards)), sizes)
        verdict = self._remember(key, started)
        if verdict is None:
            why = self._held_back(started)
            if why:
                return Settled(order, why)
            try:
                verdict = await self._question(intent, cards, stay, sizes)
            except CallError as error:
                if error.code is Code.NOT_FOUND:  # says nothing of a model: local_only, labels, the owner's policy
                    return Settled(order, "nobody who decides may be asked about this; the router decided alone")
                self._fail(error)
                elapsed_ms = (self._monotonic() - started) * 1000
                reason = f"the decision model did not settle it ({error.code}: {error.message[:200]})"
                return Settled(order, f"{reason}; the router's own ranking stands", asked=True, elapsed_ms=elapsed_ms)
            self._good()
            self._keep(key, verdict)
            asked = True
        else:
            self._remembered += 1
            asked = False
        settled = self._apply(verdict, order, cards, probability)
        return replace(settled, asked=asked, elapsed_ms=(self._monotonic() - started) * 1000)

    async def _question(self, intent: Intent, cards: Mapping[bytes, Card], stay: bool, sizes: bool) -> Verdict:
        """Ask now. Raises CallError, also for an answer that cannot be believed."""
        body = question(intent.text, cards, sizes=sizes)
        constraints = replace(
            intent.constraints,
            type=DECIDE_TYPE,
            card=None,
            space=None,
            min_context_tokens=0,
            gpu_required=False,
            local_only=intent.constraints.local_only or stay,
        )
        self._asked += 1
        self._asking += 1
        try:
            asking = Intent(tool=DECIDE_TOOL, inputs=frozenset({"text"}), constraints=constraints)
            data = await self._ask(asking, json.dumps(body).encode(), self.settings.deadline_s)
        finally:
            self._asking -= 1
        return believed(body, data)

    def _apply(
        self, verdict: Verdict, order: tuple[Candidate, ...], cards: Mapping[bytes, Card], own: float
    ) -> Settled:
        which = verdict.which
        if which is None:
            return Settled(order, "the decision model declined to choose", large=verdict.large)
        cards_of = options(cards)
        probabilities = {cards_of[option]: p for option, p in which.probabilities.items() if option != NONE}
        sure = which.probabilities[which.choice]
        if which.choice == NONE:
            none = sure >= max(NONE_AT, own)
            self._none += none
            reason = f"the decision model says that none of {len(cards)} cards fits, p = {sure:.2f}"
            return Settled(order, reason + ("" if none else ", which is not sure enough"), none=none,
                           probabilities=probabilities, large=verdict.large)
        card = cards_of[which.choice]
        if card == order[0].card_id:
            return Settled(order, f"the decision model agrees, p = {sure:.2f}", chosen=card,
                           probabilities=probabilities, large=verdict.large)
        what = f"the decision model chose {name(cards[card])} instead, p = {sure:.2f}"
        if sure < max(RERANK_AT, own):
            return Settled(order, f"{what}, which is not sure enough", probabilities=probabilities, large=verdict.large)
        self._changed += 1
        first = tuple(candidate for candidate in order if candidate.card_id == card)
        rest = tuple(candidate for candidate in order if candidate.card_id != card)
        return Settled(first + rest, what, chosen=card, probabilities=probabilities, large=verdict.large)

    def _held_back(self, now: float) -> str:
        """Why nobody is asked at this moment; empty: ask."""
        if self._asking >= (1 if self._failing else ASKING_MAX):
            return "the decision model has enough questions already; the router decided alone"
        if now < self._until:
            left = self._until - now
            return f"the decision model failed and is left alone for {left:.0f} s; the router decided alone"
        return ""

    def _fail(self, error: CallError) -> None:
        self._failed += 1
        now = self._monotonic()
        if error.code in (Code.OVERLOADED, Code.RATE_LIMITED):
            self._until = max(self._until, now + max(BUSY_PAUSE_S, error.retry_after_ms / 1000))
        elif now >= self._until:  # others that were under way say nothing new
            self._failing = True
            self._pause_s = min(max(FIRST_PAUSE_S, 2 * self._pause_s), MAX_PAUSE_S)
            self._until = now + self._pause_s

    def _good(self) -> None:
        self._failing, self._pause_s, self._until = False, 0.0, 0.0

    def _remember(self, key: tuple[object, ...], now: float) -> Verdict | None:
        found = self._verdicts.get(key)
        if found is None:
            return None
        verdict, until = found
        if until <= now:
            del self._verdicts[key]
            return None
        return verdict

    def _keep(self, key: tuple[object, ...], verdict: Verdict) -> None:
        self._verdicts[key] = verdict, self._monotonic() + VERDICT_S
        if len(self._verdicts) > VERDICTS_KEPT:
            self._verdicts.popitem(last=False)


def nobody_can(settled: Settled, decision: Decision, types: Iterable[str]) -> bool:
    """Whether *decision* is to be refused because of what *settled* says. *types*: of all cards that could do it.

    A decision model alone refuses nothing: it may be any member's, and lie. All of this has to hold:

    - it is sure that none of the cards fits (Settled.none);
    - the matcher, which knows nothing of that, has compared the wish with cards and thinks that probably nobody can;
    - the wish was put in words only, and is no capability name;
    - there is no chat model, which can do what its card does not say: of that neither the matcher nor a model knows.
    """
    doubted = decision.evidence is not None and bool(decision.doubt)
    return settled.none and doubted and not decision.intent.level and CHAT_TYPE not in types


def _alike(cards: Collection[Card]) -> bool:
    """Whether they are chat models that say the same of themselves, apart from their names."""
    return len({(card.type, card.examples, card.topics) for card in cards}) == 1 and all(
        card.type == CHAT_TYPE for card in cards
    )
