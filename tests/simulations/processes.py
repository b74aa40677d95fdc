"""Runs of tests/simulations/programs.py in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def in_process(
    name: str, *seeds: int, accelerations: str = "", hash_seed: str = "0"
) -> subprocess.CompletedProcess[str]:
    """*accelerations*: names with commas, or ``all``; none is ``vanilla``."""
    return subprocess.run(
        [sys.executable, "-m", "tests.simulations.programs", name, accelerations, *map(str, seeds)],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
