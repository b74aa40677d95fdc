"""The scenario spread, by the command, in processes of their own: real nodes, virtual time."""

from __future__ import annotations

from typing import Any

import pytest

from tests.simulations.commands import simulate

NODES = 20


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    return simulate("spread", "--nodes", str(NODES), "--news", "4", "--seed", "1")


def test_news_reaches_every_node(found: dict[str, Any]) -> None:
    assert (found["delivered"], found["by_gossip"], found["usable"]) == (1.0, 1.0, 1.0)
    assert 20 <= found["virtual_ms"]["p50"] < found["virtual_ms"]["p99"] <= 400
    assert found["hops"]["mean"] > 1
    assert found["hops"]["max"] <= found["hops"]["allowed"]


def test_the_figures_are_there(found: dict[str, Any]) -> None:
    assert (found["scenario"], found["nodes"], found["seed"], found["fidelity"]) == ("spread", NODES, 1, "vanilla")
    assert found["news"] == 4
    for name in ("messages_per_node_s", "bytes_per_node_s", "cpu_s", "wall_s", "rss_mb"):
        assert found[name] > 0, name
    assert 6.5 <= found["degree"] <= 9  # of eight: in so small a mesh the rings that it is made of share links


def test_the_same_seed_is_the_same_run_in_another_process(found: dict[str, Any]) -> None:
    again = simulate("spread", "--nodes", str(NODES), "--news", "4", "--seed", "1")
    assert again["trace_hash"] == found["trace_hash"]
    assert again["virtual_ms"] == found["virtual_ms"]
    other = simulate("spread", "--nodes", str(NODES), "--news", "4", "--seed", "2")
    assert other["trace_hash"] != found["trace_hash"]
