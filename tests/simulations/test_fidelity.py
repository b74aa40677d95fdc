"""``fast`` beside ``vanilla``: a hundred hosts, the same news, the same end."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.simulations.commands import simulate
from tests.simulations.processes import in_process

SEEDS = (1, 2)


def hundred(accelerations: str, *seeds: int) -> list[tuple[dict[str, Any], str]]:
    """What came of each run, and the hash of its trace."""
    done = in_process("hundred", *seeds, accelerations=accelerations)
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    return [(json.loads(result), trace) for result, trace in zip(lines[::2], lines[1::2], strict=True)]


def test_fast_tells_what_vanilla_tells() -> None:
    vanilla, fast = hundred("", *SEEDS), hundred("all", *SEEDS)
    for (slow, slow_trace), (quick, quick_trace) in zip(vanilla, fast, strict=True):
        assert slow["delivered"] == quick["delivered"] == 1.0
        assert quick["delays"] == pytest.approx(slow["delays"], rel=0.1)
        assert quick["frames"] == pytest.approx(slow["frames"], rel=0.1)
        assert quick_trace != slow_trace  # or nothing was accelerated, and this compares a thing with itself
    assert fast[0][1] == hundred("all", SEEDS[0])[0][1]


def test_what_drops_nothing_but_cost_leaves_every_step_as_it_was() -> None:
    plain, quicker = hundred("", SEEDS[0]), hundred("signatures,records,frames,scopes,polls", SEEDS[0])
    assert quicker == plain


def test_fast_tells_of_nodes_what_vanilla_tells() -> None:
    vanilla, fast = (
        simulate("spread", "--nodes", "20", "--news", "4", "--seed", "3", "--fidelity", fidelity)
        for fidelity in ("vanilla", "fast")
    )
    assert (fast["delivered"], fast["usable"]) == (vanilla["delivered"], vanilla["usable"]) == (1.0, 1.0)
    for share in ("p50", "p99", "max"):
        assert fast["virtual_ms"][share] == pytest.approx(vanilla["virtual_ms"][share], rel=0.1)
    for figure in ("messages_per_node_s", "bytes_per_node_s"):
        assert fast[figure] == pytest.approx(vanilla[figure], rel=0.1)
    assert fast["trace_hash"] != vanilla["trace_hash"]
