"""README: ``make demo`` shows the main job and ends in ``demo ok``."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes import environment

pytestmark = pytest.mark.e2e


def test_the_demo_ends_well() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "scripts.demo"],
        capture_output=True, text=True, timeout=120, env=environment(), check=False,
        cwd=Path(__file__).resolve().parents[2],
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].startswith("demo ok: ")
