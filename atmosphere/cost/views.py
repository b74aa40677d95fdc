"""What work here costs, as people and programs see it: plain values, ready for JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from atmosphere.cost.factors import Factor
from atmosphere.cost.meter import Meter


@dataclass(frozen=True, slots=True)
class Price:
    """What is asked for one call of a capability."""

    capability: str
    type: str
    model: str
    micros: int
    """Millionths of the owner's unit."""


@dataclass(frozen=True, slots=True)
class CostView:
    """The cost, where it comes from, and what of it was told."""

    cost_milli: int
    """As measured last; 1000 is neutral."""
    told_milli: int
    """What the mesh was told: it follows in steps, so that nobody flickers."""
    factors: tuple[Factor, ...]
    gpus: tuple[str, ...]
    prices: tuple[Price, ...]

    @classmethod
    def of(cls, meter: Meter, prices: Sequence[Price]) -> CostView:
        return cls(meter.cost.milli, meter.told_milli, meter.factors(), meter.readings.gpus, tuple(prices))
