"""The router's answer: a ranking, and the reasons for it; and the memory of the last answers."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from atmosphere.capabilities.card import Card
from atmosphere.routing.calibration import Evidence
from atmosphere.routing.intent import Intent
from transports.peer_id import PeerId

DECISIONS_KEPT = 1000
"""Decisions that can be asked about later: about 2 KB each."""
RUNNERS_UP_KEPT = 3
"""Candidates of each; the others are recomputed when somebody asks."""
NEAREST = 3
"""Cards that are named when probably nobody can."""
UNSURE = 0.5
TEXT_KEPT = 512
"""Characters of the intent's text that are kept with it: enough to recompute the match."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One (card, node) pair that can do the work."""

    peer: PeerId
    node_name: str
    card_id: bytes
    card: Card
    score: float
    """0..1, higher is better; only the order means anything."""
    factors: Mapping[str, float]
    """Every factor of the score by name, as multiplied or added (see scoring.py)."""
    path: str
    """``local``, ``lan``, ``direct``, ``relay`` or ``unknown`` (it would have to be dialled)."""
    rtt_ms: float | None


@dataclass(frozen=True, slots=True)
class Refused:
    """One (card, node) pair that a filter took out, or that no work may be sent to now."""

    peer: PeerId
    node_name: str
    card_id: bytes
    type: str
    model: str
    filter: str
    """The filter's name; ``state`` or ``scope`` for a node that gets no work at all."""


@dataclass(frozen=True, slots=True)
class Decision:
    """Ranked candidates for one intent. Empty: nobody can, and *missing* says what would be needed."""

    intent: Intent
    candidates: tuple[Candidate, ...]
    filtered: Mapping[str, int] = field(default_factory=dict)
    """How many (card, node) pairs each filter took out, by the filter's name, in the order of the filters."""
    missing: str = ""
    """For people: why there is no candidate and what would change that."""
    elapsed_ms: float = 0.0
    more: int = 0
    """Pairs that passed every filter and are not among *candidates*, which are the best."""
    second: str = ""
    """What came of the second stage (arbiter.py), for people; empty: the router was sure, or there is none."""
    right: float | None = None
    """Probability that the best matching card is what was meant; None: meaning had nothing to decide."""
    somebody: float | None = None
    """Probability that any card is; low, and the candidates are merely the nearest."""
    meant: bytes = b""
    """The best matching card; empty: meaning had nothing to decide."""
    evidence: Evidence | None = None
    """What both probabilities were read off."""

    @property
    def chosen(self) -> Candidate | None:
        return self.candidates[0] if self.candidates else None

    @property
    def nearest(self) -> tuple[Card, ...]:
        """The cards of the candidates that match best, at most NEAREST, best first."""
        best: dict[bytes, Candidate] = {}
        for one in self.candidates:
            best.setdefault(one.card_id, one)
        ordered = sorted(best.values(), key=lambda one: one.factors.get("match", 1.0), reverse=True)
        return tuple(one.card for one in ordered[:NEAREST])

    @property
    def doubt(self) -> str:
        """For people: that probably nobody can, what comes nearest, and what would help; empty where somebody can."""
        if self.somebody is None or self.somebody >= UNSURE or not self.candidates:
            return ""
        names = ", ".join(f"{card.type} {card.model}".strip() for card in self.nearest)
        return (
            f"probably no card is for this (probability {self.somebody:.2f} that one is); the nearest are {names}. If "
            "one of them can do it, an example of such a request on its card would say so; if none can, a backend that "
            "does is needed on any node"
        )

    def refused(self) -> Decision:
        """The same with nobody in it, because a decision model shares the doubt."""
        return replace(self, candidates=(), more=self.more + len(self.candidates), missing=(
            f"nobody can do this: a decision model says that no card is for it, and the router agrees: {self.doubt}. "
            "To have one of them try nevertheless, name its model, or its card in atmosphere.constraints.card"
        ))


@dataclass(slots=True)
class Decided:
    """A decision that was acted on."""

    request: str
    """The request id (the call's trace id, hex)."""
    at: float
    """Unix seconds."""
    decision: Decision
    """With the best few candidates only, and the beginning of the intent's text."""
    ran: Candidate | None = None
    """Who did it."""
    outcome: str = ""
    """``ok`` once an answer has begun, else the code of the error; empty: still being asked."""
    tried: int = 0
    """Candidates that were asked before and failed."""
    feedback: str = ""
    """``good`` or ``bad``, once somebody has said so."""

    def ended(self, ran: Candidate | None, outcome: str, tried: int) -> None:
        """It has come to something."""
        self.ran, self.outcome, self.tried = ran, outcome, tried


class DecisionLog:
    """The last decisions by request id, bounded. In memory only: it holds what people asked."""

    def __init__(self, capacity: int = DECISIONS_KEPT) -> None:
        self._capacity = capacity
        self._decided: OrderedDict[str, Decided] = OrderedDict()

    def __repr__(self) -> str:
        return f"<DecisionLog of {len(self._decided)}>"

    def __len__(self) -> int:
        return len(self._decided)

    def add(self, request: str, decision: Decision, at: float) -> Decided:
        """Remember *decision*; a request that comes back replaces its earlier one."""
        intent = decision.intent
        if len(intent.text) > TEXT_KEPT:
            intent = replace(intent, text=intent.text[:TEXT_KEPT])
        more = decision.more + max(0, len(decision.candidates) - RUNNERS_UP_KEPT)
        kept = replace(decision, intent=intent, candidates=decision.candidates[:RUNNERS_UP_KEPT], more=more)
        self._decided.pop(request, None)
        entry = self._decided[request] = Decided(request, at, kept)
        if len(self._decided) > self._capacity:
            self._decided.popitem(last=False)
        return entry

    def get(self, request: str) -> Decided | None:
        """The decision of a request, by its id or an unambiguous beginning of at least 8 digits."""
        found = self._decided.get(request)
        if found is None and len(request) >= 8:
            like = [entry for key, entry in self._decided.items() if key.startswith(request)]
            found = like[0] if len(like) == 1 else None
        return found

    def latest(self, count: int) -> Sequence[Decided]:
        """At most *count*, the newest first."""
        entries = list(self._decided.values())[-count:] if count > 0 else []
        return entries[::-1]
