"""What work here costs, factor by factor. Pure.

    cost = owner * battery * compute * memory * bandwidth * metered * peak          each 1 when there is nothing to say

The formula is the seeds' ("Dynamic Cost Model"), whose neutral value is 1:

- battery: 2 on battery, and 5 besides below 20 % of charge;
- compute: 1 + 2 * GPU load, or 1 + CPU load, whichever is more: the beacon has one figure for all work;
- memory: 1 + pressure;
- metered: 3 where the connection is paid by volume;
- owner, peak: what the settings say (``cost:`` in config.yaml, which also replaces the figures above).

Two things the seeds leave open. *When a load is one*: processors below a quarter and memory below four fifths count as
free, so that machines which do nothing cost exactly the same and none of them attracts everybody. *Bandwidth*: 1 from
100 Mbit/s up, 1.5 at 10, 2 at 1 and below; what others already take of it is not there.
The price of an API is a matter of the capability, not of the node: it is in the offer, and routing adds it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from atmosphere.config import CostConfig
from atmosphere.cost.readings import Readings

NEUTRAL_MILLI = 1000
LOW_BATTERY_PERCENT = 20.0
GPU_WEIGHT = 2.0
IDLE = 0.25
"""Of a processor: a desktop, a browser, the node itself. Below it a machine counts as idle."""
ROOMY = 0.8
"""Of the memory: up to here there is room for another model's context."""
AMPLE_MBPS = 100.0
MIN_MILLI = 1
MAX_MILLI = 1_000_000


@dataclass(frozen=True, slots=True)
class Factor:
    """One factor of the cost."""

    name: str
    multiplier: float
    why: str
    """For people: what was measured, or why it is not known."""
    known: bool = True


@dataclass(frozen=True, slots=True)
class Cost:
    """The cost and where it comes from."""

    milli: int
    """1000 is neutral."""
    factors: tuple[Factor, ...]


def breakdown(readings: Readings, settings: CostConfig, minute: int, *, low_battery: bool | None = None) -> Cost:
    """The cost of work on a machine that was read as *readings*.

    *minute*: of the local day, 0..1439. *low_battery*: decided elsewhere (with hysteresis); None: by the charge alone.
    """
    factors = (
        _owner(settings),
        _battery(readings, settings, low_battery),
        _compute(readings),
        _memory(readings),
        _bandwidth(readings, settings),
        _metered(readings, settings),
        _peak(settings, minute),
    )
    return Cost(milli(factors), factors)


def milli(factors: Sequence[Factor]) -> int:
    """The product of *factors* in thousandths."""
    product = math.prod(factor.multiplier for factor in factors)
    return min(MAX_MILLI, max(MIN_MILLI, round(product * NEUTRAL_MILLI)))


def in_peak(settings: CostConfig, minute: int) -> bool:
    """Whether *minute* of the local day is in the owner's peak hours."""
    return any(
        start <= minute < end if start < end else minute >= start or minute < end
        for start, end in settings.peak_ranges()
    )


def _owner(settings: CostConfig) -> Factor:
    return Factor("owner", settings.multiplier, "the owner's multiplier (cost.multiplier)")


def _battery(readings: Readings, settings: CostConfig, low: bool | None) -> Factor:
    battery = readings.battery
    if battery is None:
        return _without(readings, "battery", "there is no battery")
    if battery.plugged:
        return Factor("battery", 1.0, f"plugged in, {battery.percent:.0f} %")
    if low is None:
        low = battery.percent < LOW_BATTERY_PERCENT
    times = settings.on_battery_multiplier * (settings.low_battery_multiplier if low else 1.0)
    return Factor("battery", times, f"on battery, {battery.percent:.0f} %{', low' if low else ''}")


def _compute(readings: Readings) -> Factor:
    if readings.cpu is None and readings.gpu is None:
        return _without(readings, "cpu", "not read yet", name="compute")
    cpu = 1.0 + _above(readings.cpu or 0.0, IDLE)
    gpu = 1.0 + GPU_WEIGHT * _above(readings.gpu or 0.0, IDLE)
    words = [] if readings.cpu is None else [f"CPU {readings.cpu:.0%} busy"]
    if readings.gpu is not None:
        words.append(f"GPU {readings.gpu:.0%} busy")
    else:
        words.append(readings.unknown.get("gpu", "no GPU"))
    return Factor("compute", max(cpu, gpu), ", ".join(words))


def _memory(readings: Readings) -> Factor:
    if readings.memory is None:
        return _without(readings, "memory", "not read yet")
    return Factor("memory", 1.0 + _above(readings.memory, ROOMY), f"{readings.memory:.0%} in use")


def _bandwidth(readings: Readings, settings: CostConfig) -> Factor:
    network = readings.network
    link = settings.bandwidth_mbps or (network.link_mbps if network is not None else None)
    if link is None:
        return _without(readings, "network", "the network interface does not say how fast it is", name="bandwidth")
    used = (network.used_mbps if network is not None else None) or 0.0
    free = max(link - used, 0.0)
    times = 1.0 if free >= AMPLE_MBPS else 2.0 if free <= 1.0 else 1.0 + math.log10(AMPLE_MBPS / free) / 2.0
    where = f" on {network.name}" if network is not None and not settings.bandwidth_mbps else ""
    return Factor("bandwidth", times, f"{free:.0f} of {link:.0f} Mbit/s free{where}")


def _metered(readings: Readings, settings: CostConfig) -> Factor:
    metered = readings.metered if settings.metered is None else settings.metered
    if metered is None:
        return _without(readings, "metered", "not read yet")
    says = "the system says" if settings.metered is None else "the owner says (cost.metered)"
    words = f"{says} that the connection is {'' if metered else 'not '}paid by volume"
    return Factor("metered", settings.metered_connection_multiplier if metered else 1.0, words)


def _peak(settings: CostConfig, minute: int) -> Factor:
    if not settings.peak_hours:
        return Factor("peak", 1.0, "no peak hours are set (cost.peak_hours)")
    now = in_peak(settings, minute)
    words = f"{'in' if now else 'outside'} the peak hours {settings.peak_hours}"
    return Factor("peak", settings.peak_multiplier if now else 1.0, words)


def _without(readings: Readings, reading: str, otherwise: str, name: str = "") -> Factor:
    """Nothing is known: neutral, and the reason."""
    reason = readings.unknown.get(reading)
    known = reading == "battery" and reason is None
    return Factor(name or reading, 1.0, otherwise if reason is None else reason, known)


def _above(share: float, free: float) -> float:
    """How much of what is not *free* is used, 0..1."""
    return min(1.0, max(0.0, (share - free) / (1.0 - free)))
