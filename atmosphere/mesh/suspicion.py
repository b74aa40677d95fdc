"""All doubt about one peer: who says what, and how long to wait for a proof of life."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import log

from atmosphere.mesh.detector_actions import Evidence, Order
from atmosphere.mesh.detector_settings import DetectorSettings
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
    """A running doubt. Times are the observer's own."""

    subject: PeerId
    order: Order
    proof: float
    """The last proof of life."""
    since: float
    """The first sign of failure: when the first unanswered ping was sent, or the connection broke. Bytes that came
    after this end the doubt."""
    own: Evidence | None = None
    """What this node itself has seen."""
    suspected: bool = False
    reason: str = ""
    missed: int = 0
    stated: dict[PeerId, Evidence] = field(default_factory=dict)
    asked: set[PeerId] = field(default_factory=set)
    """Vias that got no answer from it either."""
    refused: set[PeerId] = field(default_factory=set)
    """Those of both to whom a connection was refused."""
    alive: set[PeerId] = field(default_factory=set)
    """Who says that it lives."""
    pending: set[PeerId] = field(default_factory=set)
    """Who has been asked in this round and has not answered."""
    asked_at: float = float("-inf")
    heard_in_round: bool = False
    dialling_until: float = float("-inf")
    lost_at: float | None = None
    """When the connection broke, if it did."""
    told: Evidence | None = None

    def silence(self, own: float) -> float:
        """Seconds for which it has owed an answer: that nobody spoke on an idle link before is no sign of failure."""
        return own - (self.proof if self.own is None and not self.missed else self.since)

    def testify(self, witness: PeerId, evidence: Evidence, *, asked: bool) -> None:
        """Another node found it dead: it was *asked*, or said so itself."""
        if asked:
            self.asked.add(witness)
        else:
            self.stated[witness] = evidence
        if evidence is Evidence.REFUSED:
            self.refused.add(witness)

    @property
    def witnesses(self) -> int:
        """How many others found it dead."""
        return len(self.stated.keys() | self.asked) if self.asked else len(self.stated)

    @property
    def refusals(self) -> int:
        """Witnesses, this node included, to whom a connection was refused."""
        return len(self.refused) + (self.own is Evidence.REFUSED)

    def patience(self, settings: DetectorSettings) -> float:
        """Seconds of silence that end in death: Lifeguard's logarithm of the independent confirmations.

        Whoever has seen nothing itself needs a first witness, who confirms nothing yet.
        """
        confirmations = self.witnesses - (self.own is None)
        if confirmations <= 0:
            return settings.dead_max_s
        share = log(confirmations + 1) / log(settings.indirect + 1)
        return max(settings.dead_min_s, settings.dead_max_s - (settings.dead_max_s - settings.dead_min_s) * share)
