"""Checking a membership against checking the same in a Biscuit token: ``python -m tests.benchmarks.trust [--json]``.

A chain of three links (owner, issuer, sub-issuer, node), checked for signatures, narrowing, time, audience and
revocation, and asked whether it covers a tool: once as it comes from the network (uncached), and as at every call
(cached: signatures known, all else again). The peer is biscuit-python, with three blocks that say the same; its cached
figure keeps the parsed token and authorizes anew.

Both take turns for several rounds, and the round with the median p50 counts. Goals: uncached <= 400 us, cached <= 5 us,
membership <= 700 bytes. biscuit-python runs with the Python of ``.bench/venv`` (``make bench`` makes it) or of
``ATMOSPHERE_BENCH_PYTHON``.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from atmosphere.identity import ChainCache, RevocationSet, Target, revoke, verify_chain
from tests.identity.keys import MESH, NOW, deep, key, peer, public

PEER_PYTHON = Path(".bench/venv/bin/python")
PEER_SCRIPT = Path(__file__).parent / "peers" / "biscuit.py"
GOALS_US = {"uncached": 400.0, "cached": 5.0}
GOAL_BYTES = 700
TOOL = "call:llm/chat/generate"
REVOKED = 1000
"""Entries in the set of revocations: a large mesh after some years."""


def microseconds(function: Callable[[], object], calls: int) -> tuple[float, float]:
    """p50 and p99 of single calls."""
    for _ in range(calls // 10 + 1):
        function()
    measured = []
    for _ in range(calls):
        began = time.perf_counter_ns()
        function()
        measured.append((time.perf_counter_ns() - began) / 1000)
    measured.sort()
    return measured[calls // 2], measured[calls * 99 // 100]


def ours(calls: int) -> dict[str, tuple[float, float]]:
    chain, member, cache = deep(), peer("member"), ChainCache(MESH)
    revoked = RevocationSet(MESH)
    for number in range(REVOKED):
        revoked.add(revoke(Target.PEER, public(f"gone {number}"), key("owner"), MESH, NOW), NOW)

    def uncached() -> None:
        assert verify_chain(chain, MESH, member, NOW, revoked).allows(TOOL)

    def cached() -> None:
        assert cache.verify(chain, NOW, revoked, member).allows(TOOL)

    return {"uncached": microseconds(uncached, calls), "cached": microseconds(cached, calls)}


def theirs(python: str, calls: int) -> dict[str, object]:
    process = subprocess.run([python, PEER_SCRIPT, str(calls)], stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, object] = json.loads(process.stdout)
    return result


def peer_python() -> str | None:
    """The Python that has biscuit-python; None when there is none."""
    named = os.environ.get("ATMOSPHERE_BENCH_PYTHON")
    for python in (named, str(PEER_PYTHON) if PEER_PYTHON.exists() else None, sys.executable):
        if python and subprocess.run([python, "-c", "import biscuit_auth"], capture_output=True,
                                     check=False).returncode == 0:
            return python
    return None


def median(rounds: list[dict[str, tuple[float, float]]], name: str) -> tuple[float, float]:
    ordered = sorted((row[name] for row in rounds), key=lambda figures: figures[0])
    return ordered[len(ordered) // 2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON object, for other programs")
    parser.add_argument("--calls", type=int, default=2000, help="per round")
    parser.add_argument("--rounds", type=int, default=5, help="the median one counts")
    options = parser.parse_args()

    python = peer_python()
    mine, biscuit = [], []
    for _ in range(options.rounds):
        mine.append(ours(options.calls))
        if python:
            biscuit.append(theirs(python, options.calls))
    rows = {
        name: {
            "ours_p50_us": median(mine, name)[0], "ours_p99_us": median(mine, name)[1], "goal_us": goal,
            **({
                "biscuit_p50_us": median(biscuit, name)[0], "biscuit_p99_us": median(biscuit, name)[1],  # type: ignore[arg-type]
                "ratio_p50": median(mine, name)[0] / median(biscuit, name)[0],  # type: ignore[arg-type]
            } if biscuit else {}),
        }
        for name, goal in GOALS_US.items()
    }
    size = {"ours": len(deep()), "goal": GOAL_BYTES} | ({"biscuit": biscuit[0]["bytes"]} if biscuit else {})
    if options.json:
        print(json.dumps({**rows, "bytes": size}))
        return
    print(f"{'':9} {'ours p50':>10} {'p99 us':>8} {'goal':>6} {'biscuit p50':>12} {'p99 us':>8} {'ours/theirs':>12}")
    for name, row in rows.items():
        print(f"{name:9} {row['ours_p50_us']:10.1f} {row['ours_p99_us']:8.1f} {row['goal_us']:6.0f}", end=" ")
        print(f"{row['biscuit_p50_us']:12.1f} {row['biscuit_p99_us']:8.1f} {row['ratio_p50']:12.3f}" if biscuit
              else "  biscuit-python is not installed: make bench installs it")
    print("bytes: " + ", ".join(f"{name} {value}" for name, value in size.items()))


if __name__ == "__main__":
    main()
