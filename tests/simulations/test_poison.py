"""The scenario poison, small."""

from __future__ import annotations

from tests.simulations.commands import simulate


def test_the_honest_get_through_and_liars_are_cut_off() -> None:
    found = simulate("poison", "--nodes", "20", "--share", "0.2", "--lasts", "14")
    assert found["liars"] == 4
    assert found["delivered"] >= 0.99
    assert found["calls"] > 20
    assert found["to_load_liars_again"] <= 2
    assert found["calls_failed"] <= found["to_load_liars"]  # a backend's own error is the answer
    assert found["wrongly_avoided"] < 0.01
    cut_off = found["cut_off"]
    assert [each["nodes"] for each in cut_off.values()] == [1, 1, 1]
    for kind in ("flood", "forgery"):
        assert cut_off[kind]["pairs"] > 2
        assert cut_off[kind]["ever"] > 0.8, kind
        assert cut_off[kind]["in_the_end"] == 1.0, kind
        assert cut_off[kind]["after_ms"]["p50"] <= 10_000, kind
    assert cut_off["suspicion"]["in_the_end"] >= 0.8
    for wrongly in (found["honest_shunned"], found["honest_not_believed"]):
        assert wrongly["pairs"] > 50
        assert wrongly["ever"] == 0


def test_accusers_in_concert_are_not_believed_for_long() -> None:
    found = simulate("poison", "--nodes", "20", "--share", "0.2", "--lasts", "20", "--kind", "suspicion")
    accusers = found["cut_off"]["suspicion"]
    assert (accusers["nodes"], accusers["pairs"]) == (4, 64)
    assert accusers["in_the_end"] >= 0.9
    assert accusers["after_ms"]["p50"] <= 10_000
    assert found["honest_not_believed"]["ever"] == 0
    assert found["delivered"] >= 0.99
