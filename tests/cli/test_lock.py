"""One process per home."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from atmosphere.cli.lock import HomeLock, Locked, holder


def test_a_second_holder_is_refused_with_the_process_id(tmp_path: Path) -> None:
    with HomeLock.take(tmp_path / "home"):
        assert holder(tmp_path / "home") == os.getpid()
        with pytest.raises(Locked) as caught:
            HomeLock.take(tmp_path / "home")
        assert caught.value.pid == os.getpid()
    assert holder(tmp_path / "home") is None


def test_the_lock_dies_with_its_process_and_the_file_does_not_count(tmp_path: Path) -> None:
    code = (
        "import os, sys, pathlib\n"
        "from atmosphere.cli.lock import HomeLock\n"
        "lock = HomeLock.take(pathlib.Path(sys.argv[1]))\n"
        "print('held', flush=True)\n"
        "sys.stdin.read()\n"
        "os.abort()"
    )
    child = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE,
                             stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    with child:
        assert child.stdout is not None
        child.stdout.readline()
        assert holder(tmp_path) == child.pid
        child.kill()
        child.wait()
    assert (tmp_path / "lock").exists()
    assert holder(tmp_path) is None
    with HomeLock.take(tmp_path):
        pass


def test_no_home_no_holder(tmp_path: Path) -> None:
    assert holder(tmp_path / "nothing") is None
