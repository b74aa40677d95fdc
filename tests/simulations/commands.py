"""Runs `atmosphere-p2p simulate` in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

CODE = "from simulations.cli import simulate; simulate(prog_name='simulate')"


def simulate(*arguments: str) -> dict[str, Any]:
    """The figures of a run."""
    done = subprocess.run(
        [sys.executable, "-c", CODE, *arguments, "--json"], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return dict(json.loads(done.stdout))
