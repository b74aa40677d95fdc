"""The scenarios crash and partition, small."""

from __future__ import annotations

from tests.simulations.commands import simulate

NODES = "20"


def test_deaths_are_noticed_and_no_call_is_lost() -> None:
    found = simulate("crash", "--nodes", NODES, "--share", "0.2")
    killed, silent = found["killed"], found["silent"]
    assert (killed["deaths"], killed["found"], silent["deaths"], silent["found"]) == (2, 1.0, 2, 1.0)
    assert killed["offline_ms"]["max"] < 2000 < silent["suspected_ms"]["p50"] < silent["offline_ms"]["p50"] < 11_000
    assert found["wrongly_offline"] == 0
    calls = found["calls"]
    assert calls["made"] > 50
    assert (calls["failed"], calls["to_dead_twice"]) == (0, 0)


def test_halves_that_meet_again_know_everything() -> None:
    found = simulate("partition", "--nodes", NODES, "--parted", "30")
    assert found["given_up"] == 1.0  # they were apart indeed
    assert found["whole"] == 1.0
    assert found["whole_ms"]["max"] <= 5000
