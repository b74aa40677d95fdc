"""The scenario flash-crowd, small."""

from __future__ import annotations

from tests.simulations.commands import simulate


def test_who_joins_in_a_crowd_is_routable_everywhere() -> None:
    found = simulate("flash-crowd", "--nodes", "20", "--within", "15")
    assert (found["first"], found["joined"]) == (3, 17)
    assert found["routable"] == 1.0
    assert 0 < found["routable_ms"]["p50"] <= found["routable_ms"]["max"]
    assert found["whole_after_last_ms"] <= 15_000
    assert found["degree"] > 3
    assert found["errors"] == []
