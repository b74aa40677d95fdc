"""A virtual world: the seed decides everything, nothing gets out."""

from __future__ import annotations

import pytest

from simulations.virtual import run
from tests.simulations import programs
from tests.simulations.processes import in_process


@pytest.mark.parametrize("program", ["market", "hosts"])
def test_the_same_seed_gives_the_same_run_in_any_process(program: str) -> None:
    first, second = in_process(program, 1, 1, 2), in_process(program, 1, hash_seed="77")
    assert (first.stderr, second.stderr) == ("", "")
    one, again, other = first.stdout.split()
    assert one == again == second.stdout.strip()
    assert other != one


def test_what_leaves_the_world_is_refused_and_told_again_at_the_end() -> None:
    done = in_process("caught", 1)
    assert done.stdout.splitlines() == ["thread of Trio", "thread", "sleep", "socket", "process"]
    assert done.returncode != 0
    assert "Escape: a thread of Trio's in a virtual world" in done.stderr


def test_a_package_that_still_holds_the_real_clock_fails_the_run() -> None:
    done = in_process("held_original", 1)
    assert done.returncode != 0
    assert "Escape: transports.rates.clock is the system's" in done.stderr


def test_random_hashes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONHASHSEED", raising=False)
    with pytest.raises(RuntimeError, match="fix_hashing"):
        run(programs.market, seed=1)
