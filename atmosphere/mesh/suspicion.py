"""All doubt about one peer: who says what, how long to wait for a proof of life, and when it is dead. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf, log

from atmosphere.mesh.detector_actions import Evidence, Order
from atmosphere.mesh.detector_settings import DetectorSettings
from protocols.probe.messages import ProbeOutcome
from transports.peer_id import PeerId

REFUSALS = 2
"""Independent witnesses that nobody listens there any more, after which nothing is waited for."""
WITNESSES = 2
"""Foreign witnesses that make a suspect of a peer without a connection here: one alone may lie."""
ENOUGH = 3
"""Statements of so many witnesses convince everybody: more are neither said nor passed on."""


def enough(stated: Mapping[PeerId, Evidence], evidence: Evidence) -> bool:
    """Whether the mesh has heard of *evidence*, or stronger, from enough nodes."""
    return sum(1 for what in stated.values() if what >= evidence) >= ENOUGH


@dataclass(slots=True)
class Suspicion:
    """A doubt, until a proof of life ends it, and beyond the death in which it may end. Times are the observer's own.

    It takes in what is seen and said, and answers what follows from that. It does nothing itself.
    """

    subject: PeerId
    order: Order
    """Of the last beacon that is known of it."""
    proof: float
    """The last proof of life."""
    since: float
    """The first sign of failure: when the first unanswered ping was sent, or the connection broke. Bytes that came
    after this end the doubt."""
    own: Evidence | None = None
    """What this node itself has seen."""
    suspected: bool = False
    died_at: float = inf
    """When it was declared dead; inf: it has not been."""
    missed: int = 0
    """Pings that were not answered."""
    lost_at: float | None = None
    """When the connection broke, if it did."""
    dialling_until: float = -inf
    told: Evidence | None = None
    """What the mesh has been told."""
    stated: dict[PeerId, Evidence] = field(default_factory=dict)
    """What others have said unasked."""
    asked: set[PeerId] = field(default_factory=set)
    """Vias that got no answer from it either."""
    refused: set[PeerId] = field(default_factory=set)
    """Those of both to whom a connection was refused."""
    alive: set[PeerId] = field(default_factory=set)
    """Vias that say that it lives."""
    asked_at: float = -inf
    pending: set[PeerId] = field(default_factory=set)
    """Who has been asked in this round and has not answered."""
    heard_in_round: bool = False

    # -- what others say ------------------------------------------------------------------------------------------

    def state(self, witness: PeerId, evidence: Evidence) -> None:
        """*witness* says so unasked."""
        self.stated[witness] = evidence
        if evidence is Evidence.REFUSED:
            self.refused.add(witness)

    def ask(self, vias: set[PeerId], own: float) -> None:
        """A round of indirect pings begins; what is still out of the one before does not count any more."""
        self.asked_at, self.pending, self.heard_in_round = own, vias, False

    def answer(self, via: PeerId, outcome: ProbeOutcome | None) -> None:
        """One of the pending has tried; None: it did not answer."""
        self.pending.discard(via)
        self.heard_in_round |= outcome is not None
        if outcome is ProbeOutcome.ALIVE:
            self.alive.add(via)
        elif outcome is ProbeOutcome.SILENT or outcome is ProbeOutcome.REFUSED:
            self.alive.discard(via)
            self.asked.add(via)
            if outcome is ProbeOutcome.REFUSED:
                self.refused.add(via)

    @property
    def witnesses(self) -> int:
        """How many others found it dead."""
        return len(self.stated.keys() | self.asked) if self.asked else len(self.stated)

    @property
    def refusals(self) -> int:
        """Witnesses, this node included, to whom a connection was refused."""
        return len(self.refused) + (self.own is Evidence.REFUSED)

    # -- what follows ---------------------------------------------------------------------------------------------

    @property
    def acted_on(self) -> bool:
        """Whether work keeps away from it: it is suspected or dead."""
        return self.suspected or self.died_at < inf

    def silence(self, own: float) -> float:
        """Seconds for which it has owed an answer: that nobody spoke on an idle link before is no sign of failure."""
        return own - (self.proof if self.own is None and not self.missed else self.since)

    def unanswered(self, own: float, ask_timeout_s: float) -> bool:
        """Whether a neighbour missed two pings, and everybody asked has had time to vouch for it."""
        return self.missed >= 2 and not (self.pending and own < self.asked_at + ask_timeout_s)

    def patience(self, settings: DetectorSettings) -> float:
        """Seconds of silence that end in death: Lifeguard's logarithm of the independent confirmations.

        Whoever has seen nothing itself needs a first witness, who confirms nothing yet.
        """
        confirmations = self.witnesses - (self.own is None)
        if confirmations <= 0:
            return settings.dead_max_s
        share = log(confirmations + 1) / log(settings.indirect + 1)
        return max(settings.dead_min_s, settings.dead_max_s - (settings.dead_max_s - settings.dead_min_s) * share)

    def verdict(self, own: float, settings: DetectorSettings, scale: float, *, connected: bool) -> str | None:
        """Why it is dead now; None: not yet. *scale*: of the local health."""
        idle = own - self.proof
        if connected and idle < settings.fresh_s:
            return None
        if self.refusals >= REFUSALS:
            return f"connections are refused, say {self.refusals} nodes"
        if connected and not self.suspected:
            return None
        if idle < settings.dead_max_s * scale:
            silent = self.silence(own)
            if silent < settings.dead_min_s * scale or silent < self.patience(settings) * scale:
                return None
        others = self.witnesses
        by = f", {others} others agree" if others else ""
        return f"nothing was heard of it for {idle:.1f} s{by}"

    def to_tell(self, own: float, tell_after_s: float) -> Evidence | None:
        """What this node has seen and should say now: it is sure enough, and enough others have not said it yet."""
        if self.own is None or (self.told is not None and self.told >= self.own):
            return None
        if self.own is Evidence.SILENT and self.silence(own) < tell_after_s:
            return None
        return None if enough(self.stated, self.own) else self.own

    def settling(self, own: float, settle_s: float) -> bool:
        """Whether a beacon that comes now may have been sent before the connection broke."""
        if self.lost_at is None:
            return False
        return own - (self.died_at if self.died_at < inf else self.lost_at) < settle_s
