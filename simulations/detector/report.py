"""What a run has shown, and what may be concluded from it."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import exp, sqrt

import numpy as np

CONFIDENCE = 0.95
NORMAL = 400
"""Beyond so many events their distribution is normal enough, and exp(-mean) too small."""


def upper_bound(events: int) -> float:
    """The largest mean of a Poisson count with which so few *events* still have a chance of 5 %.

    For none it is 3.0 (the rule of three).
    """
    if events > NORMAL:
        return events + 1.645 * sqrt(events) + 1.4
    low, high = float(events), events + 20.0 + 5.0 * sqrt(events)
    while high - low > 1e-6 * high:
        mean = (low + high) / 2
        term = total = exp(-mean)
        for number in range(1, events + 1):
            term *= mean / number
            total += term
        low, high = (mean, high) if total > 1 - CONFIDENCE else (low, mean)
    return high


@dataclass(slots=True)
class Result:
    """Counts of one run; times are seconds after a death."""

    nodes: int
    node_hours: float
    deaths: int = 0
    false_deaths: int = 0
    """Neighbours declared dead that lived and had not been stopped for longer than the silence limit."""
    false_elsewhere: int = 0
    """The same, of nodes that were no neighbours: by the statements of others."""
    stalled_deaths: int = 0
    """Neighbours declared dead that lived, but were stopped for longer than the silence limit: counted apart."""
    false_suspicions: int = 0
    """Suspected neighbours that lived and had not been stopped: for a moment no work goes there."""
    missed: int = 0
    """Deaths that no neighbour had noticed when the node came back."""
    first: list[float] = field(default_factory=list)
    """Until the first neighbour knew."""
    everywhere: list[float] = field(default_factory=list)
    """Until 99 % of the undisturbed nodes knew."""
    everywhere_refused: list[float] = field(default_factory=list)
    first_refused: list[float] = field(default_factory=list)
    """The same, of killed processes alone; the others went silent."""
    probes: int = 0
    """Messages of pings and asks, sent."""
    gossip: int = 0
    """Copies of statements sent on, and refutations."""

    @property
    def false_per_node_hour(self) -> float:
        return self.false_deaths / self.node_hours

    @property
    def bound_per_node_hour(self) -> float:
        """The 95 % upper bound of the false deaths."""
        return upper_bound(self.false_deaths) / self.node_hours

    def per_node_second(self, messages: int) -> float:
        return messages / (self.node_hours * 3600)

    def add(self, other: Result) -> None:
        """Take in a further run of a world of the same kind."""
        for name in ("node_hours", "deaths", "false_deaths", "false_elsewhere", "stalled_deaths", "false_suspicions",
                     "missed", "first", "everywhere", "everywhere_refused", "first_refused", "probes", "gossip"):
            setattr(self, name, getattr(self, name) + getattr(other, name))


def quantile(values: list[float], share: float) -> float:
    """nan without values."""
    return float(np.quantile(values, share, method="higher")) if values else float("nan")
