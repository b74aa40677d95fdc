"""The scenario churn, small."""

from __future__ import annotations

from tests.simulations.commands import simulate


def test_tables_follow_who_comes_and_goes() -> None:
    found = simulate("churn", "--nodes", "16", "--rate", "0.4", "--lasts", "20")
    assert (found["joined"], found["ended"], found["nodes_after"]) == (8, 8, 16)
    assert found["after"] == {"missing": 0.0, "ghosts": 0.0}
    assert 0 < found["mean"]["ghosts"] <= found["worst"]["ghosts"] < 0.3
    assert 0 < found["mean"]["missing"] <= found["worst"]["missing"] < 0.5
    assert len(found["over_time"]) == 2
    for ended in ("goodbye", "killed"):
        assert found["avoided_ms"][ended]["p50"] < 500
        assert found["avoided_ms"][ended]["max"] < 5000  # who is just joining hears of it by sync
    assert 2000 < found["avoided_ms"]["silent"]["p50"] < 7000
    # Who joins meanwhile may be told that it lives by one who has not found out yet, and otherwise a little later.
    assert found["avoided_ms"]["silent"]["max"] < 20_000
