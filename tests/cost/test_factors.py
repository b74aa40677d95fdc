"""The cost by table: each factor alone, then together; what is not known is neutral and says so."""

from __future__ import annotations

import pytest

from atmosphere.config import CostConfig
from atmosphere.cost import Battery, Network, Readings, breakdown
from atmosphere.cost.factors import MAX_MILLI, in_peak

NOON = 12 * 60
IDLE = Readings(cpu=0.03, memory=0.5, metered=False, network=Network("eth0", 1000.0, 2.0))
PLAIN = CostConfig()

TABLE = {
    "an idle machine": (IDLE, PLAIN, 1000),
    "a machine that was not read": (Readings(), PLAIN, 1000),
    "a little work is none": (Readings(cpu=0.25, memory=0.8), PLAIN, 1000),
    "a busy CPU": (Readings(cpu=1.0), PLAIN, 2000),
    "a half busy CPU": (Readings(cpu=0.625), PLAIN, 1500),
    "a busy GPU": (Readings(cpu=0.1, gpu=1.0, gpus=("x",)), PLAIN, 3000),
    "the GPU counts more than the CPU": (Readings(cpu=1.0, gpu=0.625, gpus=("x",)), PLAIN, 2000),
    "memory that is full": (Readings(memory=1.0), PLAIN, 2000),
    "memory half into its reserve": (Readings(memory=0.9), PLAIN, 1500),
    "plugged in": (Readings(battery=Battery(10.0, True)), PLAIN, 1000),
    "on battery": (Readings(battery=Battery(80.0, False)), PLAIN, 2000),
    "on battery at 20 %": (Readings(battery=Battery(20.0, False)), PLAIN, 2000),
    "on battery below 20 %": (Readings(battery=Battery(19.0, False)), PLAIN, 10_000),
    "metered": (Readings(metered=True), PLAIN, 3000),
    "metered, the owner says": (Readings(), CostConfig(metered=True), 3000),
    "not metered, the owner says": (Readings(metered=True), CostConfig(metered=False), 1000),
    "10 Mbit/s": (Readings(network=Network("wlan0", 10.0, 0.0)), PLAIN, 1500),
    "1 Mbit/s": (Readings(network=Network("wlan0", 1.0, 0.0)), PLAIN, 2000),
    "a fast link that is full": (Readings(network=Network("eth0", 1000.0, 999.5)), PLAIN, 2000),
    "bandwidth by the owner": (Readings(network=Network("eth0", 1000.0, None)), CostConfig(bandwidth_mbps=10.0), 1500),
    "the owner's own multiplier": (IDLE, CostConfig(multiplier=4.0), 4000),
    "an owner who wants work": (IDLE, CostConfig(multiplier=0.5), 500),
    "peak hours": (IDLE, CostConfig(peak_hours="09:00-17:00"), 1500),
    "outside peak hours": (IDLE, CostConfig(peak_hours="13:00-17:00"), 1000),
    "the owner's figures": (Readings(battery=Battery(80.0, False)), CostConfig(on_battery_multiplier=3.0), 3000),
    "everything at once": (
        Readings(cpu=1.0, memory=1.0, battery=Battery(5.0, False), metered=True), PLAIN, 2000 * 2 * 10 * 3),
    "bounded": (IDLE, CostConfig(multiplier=1e9), MAX_MILLI),
}


@pytest.mark.parametrize("name", TABLE)
def test_table(name: str) -> None:
    readings, settings, milli = TABLE[name]
    cost = breakdown(readings, settings, NOON)
    assert cost.milli == milli
    product = 1.0
    for factor in cost.factors:
        product *= factor.multiplier
        assert factor.why
    assert cost.milli == MAX_MILLI or cost.milli == round(1000 * product)


RISING = {
    "cpu": [Readings(cpu=value / 10) for value in range(11)],
    "gpu": [Readings(gpu=value / 10) for value in range(11)],
    "memory": [Readings(memory=value / 10) for value in range(11)],
    "bandwidth": [Readings(network=Network("x", 2000.0 / 2**value, 0.0)) for value in range(16)],
    "battery": [Readings(battery=Battery(100.0, True)), *(Readings(battery=Battery(100.0 - 10 * value, False))
                                                           for value in range(11))],
}


@pytest.mark.parametrize("name", RISING)
def test_more_of_it_never_costs_less(name: str) -> None:
    costs = [breakdown(readings, PLAIN, NOON).milli for readings in RISING[name]]
    assert costs == sorted(costs)
    assert costs[0] == 1000 < costs[-1]


def test_what_is_not_known_is_said_and_costs_nothing() -> None:
    readings = Readings(unknown={"metered": "this system does not say", "network": "no way out"})
    factors = {factor.name: factor for factor in breakdown(readings, PLAIN, NOON).factors}
    assert (factors["metered"].known, factors["metered"].why) == (False, "this system does not say")
    assert (factors["bandwidth"].known, factors["bandwidth"].why) == (False, "no way out")
    assert (factors["battery"].known, factors["battery"].why) == (True, "there is no battery")
    assert not factors["compute"].known


@pytest.mark.parametrize(("hours", "minute", "peak"), [
    ("09:00-17:00", 9 * 60, True),
    ("09:00-17:00", 17 * 60, False),
    ("09:00-17:00", 8 * 60 + 59, False),
    ("22:00-06:00", 23 * 60, True),
    ("22:00-06:00", 5 * 60, True),
    ("22:00-06:00", 12 * 60, False),
    ("09:00-12:00, 13:00-17:00", 12 * 60 + 30, False),
    ("09:00-12:00, 13:00-17:00", 13 * 60, True),
    ("00:00-24:00", 1439, True),
    ("", 0, False),
])
def test_peak_hours(hours: str, minute: int, peak: bool) -> None:
    assert in_peak(CostConfig(peak_hours=hours), minute) is peak
