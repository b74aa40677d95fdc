"""Sweeps: many runs in processes of their own, what came of each, and what becomes of one that fails."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import trio
from click.testing import CliRunner

from simulations.cli import simulate
from simulations.sweep import Done, Job, curves, last_words, run_all

QUICKLY = ("--rest", "1", "--news", "2")


def sweep(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "simulations", "spread", *QUICKLY, *arguments],
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip


def test_each_combination_is_run_and_told(tmp_path: Path) -> None:
    done = sweep("--sweep", "nodes=6,10", "--sweep", "seed=1,2", "--json", "--report", str(tmp_path / "report"))
    assert (done.returncode, done.stderr) == (0, "")
    rows = json.loads(done.stdout)
    assert [(row["nodes"], row["seed"]) for row in rows] == [(6, 1), (6, 2), (10, 1), (10, 2)]
    assert [row["sweep"] for row in rows] == [{"nodes": n, "seed": s} for n, s in ((6, 1), (6, 2), (10, 1), (10, 2))]
    assert len({row["trace_hash"] for row in rows}) == 4
    page = (tmp_path / "report" / "index.html").read_text()
    assert page.count("<svg") > 5
    assert "--sweep nodes=6,10 --sweep seed=1,2" in page
    assert json.loads((tmp_path / "report" / "result.json").read_text()) == rows
    for row in rows:
        assert f'href="{row["folder"]}/index.html"' in page
        assert (tmp_path / "report" / row["folder"] / "index.html").exists()


def test_a_run_that_fails_is_told_and_the_others_go_on(tmp_path: Path) -> None:
    (tmp_path / "seed-1").write_text("where a folder would have to be")
    done = sweep("--nodes", "6", "--sweep", "seed=1,2", "--json", "--report", str(tmp_path))
    failed, well = json.loads(done.stdout)
    assert done.returncode == 1
    assert "is a file" in failed["error"]
    assert failed["error"].startswith("exit status 2\n")
    assert (failed["scenario"], failed["seed"], failed["sweep"]) == ("spread", 1, {"seed": 1})
    assert well["delivered"] == 1.0
    assert "is a file" in (tmp_path / "index.html").read_text()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("nodes",), "is not OPTION=A,B,..."),
        (("fidelity=fast",), "OPTION one of"),
        (("nodes=10,many",), "'many' is not a valid integer range"),
        (("nodes=1",), "1 is not in the range"),
        (("nodes=10", "nodes=20"), "may be swept once"),
        (("nodes=10,6000",), "too many"),
    ],
)
def test_what_is_no_sweep_is_refused_before_any_run(words: tuple[str, ...], says: str) -> None:
    done = CliRunner().invoke(simulate, ["spread", *(each for word in words for each in ("--sweep", word))])
    assert done.exit_code == 2
    assert says in " ".join(done.output.split())


def job(name: str, mb: float, code: str = "") -> Job:
    return Job(name, [sys.executable, "-c", code], mb)


async def run(jobs: list[Job], **limits: Any) -> tuple[list[Done], list[tuple[str, ...]]]:
    seen: list[tuple[str, ...]] = []
    done = await run_all(jobs, told=lambda ended, running: seen.append(tuple(running)), **limits)
    return done, seen


async def test_the_largest_come_first_and_what_does_not_fit_runs_alone() -> None:
    jobs = [job("small", 10), job("huge", 500), job("large", 90)]
    done, seen = await run(jobs, cores=8, room_mb=100.0)
    assert seen[0] == ("huge",)
    assert seen[1] == ("large",)
    assert {*seen[2]} <= {"small", "large"}
    assert [each.error for each in done] == [None] * 3


async def test_no_more_run_than_there_are_cores() -> None:
    _, seen = await run([job(str(number), 1) for number in range(5)], cores=2, room_mb=100.0)
    assert max(map(len, seen)) == 2


async def test_the_end_of_what_was_said_is_the_error() -> None:
    (broken, well), _ = await run([job("a", 1, "raise SystemExit('x' * 9000 + ' broke')"), job("b", 1, "print(1)")])
    assert well == Done("1\n", None)
    assert broken.error is not None
    assert broken.error.startswith("exit status 1\n")
    assert broken.error.endswith(" broke")
    assert len(broken.error) < 2100


async def test_what_takes_too_long_is_ended() -> None:
    endless = Job("endless", [sys.executable, "-c", "while True: pass"], 1.0, within_s=0.1)
    with trio.fail_after(30):
        (done,) = await run_all([endless])
    assert done.error == "ended after 0.1 s"


def test_the_last_words_of_a_group_of_exceptions_are_its_innermost_ones() -> None:
    error = "exit status 1\n  +-+---------------- 1 ----------------\n    | ValueError: no\n    +--------------------\n"
    assert last_words(error) == "ValueError: no"
    assert last_words("") == ""


def test_curves_are_over_the_swept_key_with_a_line_for_each_other_one() -> None:
    rows = [
        {"sweep": {"nodes": nodes, "degree": degree, "seed": seed}, "delivered": 1.0, "virtual_ms": {"p50": nodes / 2}}
        for nodes in (10, 20) for degree in (4, 8) for seed in (1, 2)
    ]  # fmt: skip
    drawn = {plot.name: plot.svg() for plot in curves(["nodes", "degree", "seed"], rows)}
    assert set(drawn) == {"delivered", "virtual-ms-p50"}
    for label in ("degree 4", "degree 8", "each run"):
        assert f">{label}</text>" in drawn["virtual-ms-p50"]
