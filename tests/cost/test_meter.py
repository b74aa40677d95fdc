"""Hysteresis: facts are told at once, loads when they last, flickering never."""

from __future__ import annotations

from atmosphere.config import CostConfig
from atmosphere.cost import Battery, Meter, Readings

NOON = 720


def fed(meter: Meter, readings: list[Readings], start: float = 0.0, every: float = 5.0) -> list[int]:
    """What is told after each of *readings*; whether `read` says so is checked on the way."""
    told = []
    for number, one in enumerate(readings):
        before = meter.told_milli
        says = meter.read(one, start + number * every, NOON)
        assert says is (meter.told_milli != before)
        told.append(meter.told_milli)
    return told


def test_a_peak_of_load_is_not_told_and_a_lasting_one_is() -> None:
    meter = Meter(CostConfig())
    told = fed(meter, [Readings(cpu=0.05), Readings(cpu=1.0), Readings(cpu=0.05), Readings(cpu=0.05)])
    assert told == [1000] * 4
    told = fed(meter, [Readings(cpu=1.0)] * 20, start=20.0)
    assert told[-1] > 1800
    assert len(set(told)) <= 5, "in steps of a fifth"
    told = fed(meter, [Readings(cpu=0.0)] * 30, start=200.0)
    assert told[-1] < 1000 * 1.2


def test_a_load_that_flickers_around_a_level_is_told_once() -> None:
    meter = Meter(CostConfig())
    told = fed(meter, [Readings(cpu=0.7 + 0.05 * (number % 2)) for number in range(50)])
    assert len(set(told)) == 1


def test_the_first_reading_counts_at_once() -> None:
    assert fed(Meter(CostConfig()), [Readings(cpu=1.0)]) == [2000]


def test_facts_are_told_at_once_however_small() -> None:
    meter = Meter(CostConfig(on_battery_multiplier=1.1))
    on = Readings(battery=Battery(90.0, True))
    off = Readings(battery=Battery(89.0, False))
    assert fed(meter, [on, off, on]) == [1000, 1100, 1000]


def test_a_battery_around_its_threshold_is_low_until_it_is_charged() -> None:
    def at(percent: float) -> Readings:
        return Readings(battery=Battery(percent, False))

    told = fed(Meter(CostConfig()), [at(21), at(19), at(21), at(24), at(25), at(21), at(19)])
    assert told == [2000, 10_000, 10_000, 10_000, 2000, 2000, 10_000]
    plugged = Readings(battery=Battery(19.0, True))
    assert fed(Meter(CostConfig()), [at(19), plugged, at(21)]) == [10_000, 1000, 2000]


def test_peak_hours_begin_and_end() -> None:
    meter = Meter(CostConfig(peak_hours="09:00-17:00"))
    idle = Readings()
    assert [meter.read(idle, 0.0, 8 * 60 + 59), meter.told_milli] == [False, 1000]
    assert [meter.read(idle, 60.0, 9 * 60), meter.told_milli] == [True, 1500]
    assert [meter.read(idle, 120.0, 17 * 60), meter.told_milli] == [True, 1000]
