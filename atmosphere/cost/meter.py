"""From readings to the cost that is told: smoothed, with hysteresis, so that no node flickers. Pure."""

from __future__ import annotations

import math
from dataclasses import replace

from atmosphere.config import CostConfig
from atmosphere.cost.factors import LOW_BATTERY_PERCENT, NEUTRAL_MILLI, Cost, Factor, breakdown
from atmosphere.cost.readings import Network, Readings

SMOOTH_S = 15.0
"""Time constant of the loads: a compiler that runs for two seconds is no reason to send work elsewhere."""
STEP = 1.2
"""A cost that has changed by this factor since it was told is told again; what changes less is not."""
CHARGED_PERCENT = 25.0
"""A battery that was low is not, from here on."""
FACTS = ("owner", "battery", "metered", "peak")
"""Factors that are facts and not loads: their change is told whatever its size."""


class Meter:
    """Takes readings in and says what the cost is now, and what to tell."""

    def __init__(self, settings: CostConfig) -> None:
        self.settings = settings
        self.readings = Readings()
        """The latest, with the loads smoothed."""
        self.cost: Cost = breakdown(self.readings, settings, 0)
        """As measured last."""
        self.told_milli = NEUTRAL_MILLI
        """What the mesh is told: *cost* with hysteresis."""
        self._told_facts: tuple[float, ...] = ()
        self._low = False
        self._read_at: float | None = None

    def __repr__(self) -> str:
        return f"<Meter {self.cost.milli}, told {self.told_milli}>"

    def read(self, readings: Readings, now: float, minute: int) -> bool:
        """Take in *readings* made at *now* (Env's clock, seconds); whether to tell others.

        *minute*: of the local day.
        """
        weight = 1.0
        if self._read_at is not None:
            weight = 1.0 - math.exp(-max(now - self._read_at, 0.0) / SMOOTH_S)
        self._read_at = now
        before = self.readings
        self.readings = replace(
            readings,
            cpu=_smooth(before.cpu, readings.cpu, weight),
            gpu=_smooth(before.gpu, readings.gpu, weight),
            network=_smooth_network(before.network, readings.network, weight),
        )
        battery = readings.battery
        if battery is None or battery.plugged:
            self._low = False
        else:
            self._low = battery.percent < (CHARGED_PERCENT if self._low else LOW_BATTERY_PERCENT)
        self.cost = breakdown(self.readings, self.settings, minute, low_battery=self._low)
        facts = tuple(factor.multiplier for factor in self.cost.factors if factor.name in FACTS)
        ratio = self.cost.milli / self.told_milli
        if facts == self._told_facts and 1 / STEP < ratio < STEP:
            return False
        self._told_facts = facts
        changed = self.told_milli != self.cost.milli
        self.told_milli = self.cost.milli
        return changed

    def factors(self) -> tuple[Factor, ...]:
        """Where the cost comes from."""
        return self.cost.factors


def _smooth(before: float | None, now: float | None, weight: float) -> float | None:
    return now if before is None or now is None else before + weight * (now - before)


def _smooth_network(before: Network | None, now: Network | None, weight: float) -> Network | None:
    if before is None or now is None or before.name != now.name:
        return now
    return replace(now, used_mbps=_smooth(before.used_mbps, now.used_mbps, weight))
