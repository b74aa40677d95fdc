"""Every parser against coverage-guided fuzzing: CI_BUDGET_S for all in CI, 2 s each at a desk, 5 min in ``make fuzz``.

Each target is a process of its own; as many run at a time as there are cores to use.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

TARGETS = sorted(path.stem for path in Path(__file__).parent.glob("fuzz_*.py"))
CI_BUDGET_S = 400
"""Of fuzzing, shared by all targets, so that a new one does not make CI slower: two cores are done in half the time."""
SECONDS = os.environ.get("FUZZ_SECONDS") or (str(CI_BUDGET_S // len(TARGETS)) if os.environ.get("CI") else "2")
ROOT = Path(__file__).parents[2]


def run(name: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", f"tests.fuzz.{name}", SECONDS]
    return subprocess.run(
        command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=float(SECONDS) + 120,
        check=False,
    )


@pytest.mark.timeout(float(SECONDS) * len(TARGETS) + 120)  # on one core they run one after the other
@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="atheris has no wheel for this machine")
def test_no_parser_crashes_or_grows() -> None:
    assert len(TARGETS) >= 15
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        ended = list(pool.map(run, TARGETS))
    for name, process in zip(TARGETS, ended, strict=True):
        figures = dict(
            line.removeprefix("stat::").split(":", 1) for line in process.stdout.splitlines() if line.startswith("stat")
        )
        runs, peak = figures.get("number_of_executed_units", " 0"), figures.get("peak_rss_mb", " ?")
        print(f"{name}:{runs.rjust(9)} inputs in {SECONDS} s, peak{peak} MB")
    failed = {name: p.stdout[-4000:] for name, p in zip(TARGETS, ended, strict=True) if p.returncode}
    assert not failed, "\n".join(f"{name}:\n{output}" for name, output in failed.items())
