"""Installs the js peer once, and skips (in CI: fails) with a reason where that cannot be done."""

import fcntl
import gc
import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

FOLDER = Path(__file__).with_name("js")
collect_ignore = [] if os.environ.get("TRANSFORMERS_PYTHON") else ["test_transformers_decisions.py"]
"""Asked for by that variable alone, as a benchmark is: its server needs torch. Stand-ins keep to the same wire."""
INSTALL_S = 300


@pytest.fixture(scope="session")
def js_folder() -> Path:
    """The folder of peer.mjs, with what package-lock.json names in its node_modules (ignored by git)."""
    missing = [program for program in ("node", "npm") if shutil.which(program) is None]
    if missing:
        _give_up(f"{' and '.join(missing)} not found; install Node 20 or newer to test against js-libp2p")
    locked = hashlib.sha256((FOLDER / "package-lock.json").read_bytes()).hexdigest()
    stamp = FOLDER / "node_modules" / ".installed"
    with (FOLDER / ".installing").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two test runs of one checkout
        if not stamp.exists() or stamp.read_text() != locked:
            done = subprocess.run(
                ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"],
                cwd=FOLDER, capture_output=True, text=True, timeout=INSTALL_S, check=False,
            )
            if done.returncode:
                _give_up(f"js-libp2p could not be installed; run npm ci in {FOLDER}: {done.stderr.strip()[-500:]}")
            stamp.write_text(locked)
    return FOLDER


def _give_up(reason: str) -> None:
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(autouse=True)
def collect_garbage() -> Iterator[None]:
    """A socket that a test leaves open is reported in that test."""
    yield
    gc.collect()
