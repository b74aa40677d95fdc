"""What a run has shown, as figures and as text."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import psutil

from simulations.virtual import Outcome

ERRORS_SHOWN = 3


def figures(scenario: str, nodes: int, seed: int, fidelity: str, outcome: Outcome[Any]) -> dict[str, Any]:
    """All figures of a run, ready for JSON. What the scenario found is in between, by its own names."""
    return {
        "scenario": scenario,
        "nodes": nodes,
        "seed": seed,
        "fidelity": fidelity,
        **dataclasses.asdict(outcome.value),
        "virtual_s": round(outcome.virtual_s, 3),
        "cpu_s": round(outcome.cpu_s, 2),
        "wall_s": round(outcome.wall_s, 2),
        "rss_mb": round(psutil.Process().memory_info().rss / 2**20, 1),
        "events": outcome.events,
        "trace_hash": outcome.trace_hash,
        "errors": sorted({_short(error) for error in outcome.errors})[:ERRORS_SHOWN],
    }


def text(found: Mapping[str, Any]) -> str:
    """*found*, a line for each figure."""
    return "\n".join(f"{name:22}{_plain(value)}" for name, value in found.items())


def _short(error: str) -> str:
    """The first line of a logged error, and the last one of its traceback, if it has one."""
    lines = error.splitlines()
    return lines[0] if len(lines) == 1 else f"{lines[0]}: {lines[-1]}"


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_plain(inner)}" for name, inner in value.items())
    if isinstance(value, list):
        return "; ".join(map(str, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)
