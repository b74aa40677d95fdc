"""The scenario poison, small."""

from __future__ import annotations

from tests.simulations.commands import simulate


def test_the_honest_get_through_and_forgers_lose_their_place() -> None:
    found = simulate("poison", "--nodes", "20", "--share", "0.2", "--lasts", "10")
    assert found["liars"] == 4
    assert found["delivered"] >= 0.99
    assert found["calls"] > 20
    assert found["to_load_liars_again"] == 0
    assert found["calls_failed"] <= found["to_load_liars"]  # a backend's own error is the answer
    assert found["wrongly_avoided"] < 0.01
    forgers = found["cut_off"]["forgery"]
    assert forgers["liars"] == 1
    assert forgers["shunned"] > 0.5
    assert (found["honest_by_honest"]["shunned"], found["honest_by_honest"]["muted"]) == (0, 0)
