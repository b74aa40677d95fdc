"""The scenario day, small and short."""

from __future__ import annotations

import random
from typing import Any

import pytest

from simulations.scenarios.day import HOURS, Evening, Rhythm, _rhythms
from simulations.scenarios.growing import BOOTSTRAPS
from tests.simulations.commands import simulate

SMALL = ("day", "--nodes", "14", "--minutes", "2", "--intents-per-s", "0.7", "--fidelity", "fast")


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    return simulate(*SMALL)


def test_machines_rise_and_go_to_bed_and_people_get_answers(found: dict[str, Any]) -> None:
    assert (found["rose"], sum(found["went"].values())) == (11, 11)
    assert set(found["went"]) == set(Evening)
    assert found["compression"] == 720
    assert 30 < found["intents"] == sum(hour["intents"] for hour in found["hours"])
    assert found["answered"] > 0.95
    assert found["ms"]["p50"] > 1000


def test_tables_follow_in_every_hour(found: dict[str, Any]) -> None:
    hours = found["hours"]
    assert [hour["hour"] for hour in hours] == list(range(HOURS))
    assert min(hour["awake"] for hour in hours) < max(hour["awake"] for hour in hours)
    assert 0 < found["table_error"] <= found["table_error_worst_hour"] < 0.5
    quiet = [hour for hour in hours if not hour["rose"] and not hour["went"]]
    busy = [hour for hour in hours if hour["rose"] or hour["went"]]

    def wrong(some: list[dict[str, Any]]) -> float:
        return float(sum(hour["missing"] + hour["ghosts"] for hour in some) / max(1, len(some)))

    assert wrong(quiet) < wrong(busy)
    assert all(hour["messages_per_node_s"] > 0 and hour["bytes_per_node_s"] > 0 for hour in hours)


def test_the_same_seed_is_the_same_day(found: dict[str, Any]) -> None:
    again = simulate(*SMALL)
    assert again["trace_hash"] == found["trace_hash"]
    assert again["hours"] == found["hours"]


def test_a_rhythm_knows_when_it_is_awake() -> None:
    night_shift = Rhythm(morning=20.0, awake=10.0, evening=Evening.KILLED)
    assert night_shift.bedtime == 6.0
    assert [night_shift.is_awake(hour) for hour in (19.9, 20.0, 23.9, 0.0, 5.9, 6.0, 12.0)] == [
        False, True, True, True, True, False, False,
    ]  # fmt: skip


def test_machines_are_numbered_as_they_are_first_awake() -> None:
    rhythms = _rhythms(60, random.Random(1))
    assert len(rhythms) == 60
    assert all(each.awake == HOURS for each in rhythms[:BOOTSTRAPS])
    awake = [each.is_awake(0.0) for each in rhythms]
    assert awake == sorted(awake, reverse=True)
    later = [each.morning for each in rhythms if not each.is_awake(0.0)]
    assert later == sorted(later)
    assert {each.evening for each in rhythms[BOOTSTRAPS:]} == set(Evening)
