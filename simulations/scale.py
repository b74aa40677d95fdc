"""``python -m simulations.scale``: makes all the runs that docs/scale.md tells of, and writes it from their results.

One run after the other, two at a time while they are small, each in a process of its own. What a run has shown is kept
as JSON beside the page as soon as it has ended, and is not run again while the code that makes it is the same: after an
interruption the same command goes on. ``--quick`` does the same with a handful of nodes, to see that it works.
"""

from __future__ import annotations

import datetime
import importlib.util
import json
import math
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import click
import psutil
import trio

from simulations.command import interruptible
from simulations.scale_page import Scale, write_page
from simulations.sweep import Done, Job, command, expected_mb, last_words, run_all

ROOT = Path(__file__).parents[1]
PACKAGES = ("transports", "protocols", "atmosphere", "simulations")
NO_PART_OF_A_RUN = ("scale.py", "scale_page.py", "page.py", "plots.py", "sweep.py")
"""Modules of this package that only show or order runs; the models, too, only read what runs have left."""
TOGETHER = 2
SMALL = 300
"""Nodes; of runs up to this size TOGETHER go at a time."""
LIMIT_S = 7200.0
"""Of real time, for one run."""


@dataclass(frozen=True, slots=True)
class Run:
    """A run that the page tells of."""

    scenario: str
    nodes: int
    options: tuple[str, ...] = ()
    suffix: str = ""
    """Of its name, where another run of the scenario has that size."""

    @property
    def name(self) -> str:
        return f"{self.scenario}-{self.nodes}{self.suffix}"

    @property
    def words(self) -> list[str]:
        """As arguments of simulate."""
        return [self.scenario, "--nodes", str(self.nodes), "--seed", "1", "--fidelity", "fast", *self.options]


LONG_REST = ("--rest", "30")
"""A mesh tells some four beacons a second, whatever its size: ten seconds of it vary by a sixth."""
RUNS = (
    Run("spread", 100, LONG_REST),
    Run("spread", 300, LONG_REST),
    Run("spread", 1000),
    Run("spread", 1000, LONG_REST, "-rest"),
    Run("spread", 3000, LONG_REST),
    Run("spread", 5000),
    Run("partition", 300),
    Run("crash", 300),
    Run("flash-crowd", 1111),
    Run("poison", 100, ("--share", "0.2")),
    Run("churn", 100),
    Run("routing", 100),
    Run("routing", 100, ("--way", "call"), "-call"),
    Run("day", 100),
)
QUICK = (
    *(Run("spread", nodes, ("--rest", "2", "--news", "2")) for nodes in (10, 20)),
    Run("partition", 12, ("--rest", "2", "--parted", "15")),
    Run("crash", 10, ("--rest", "2")),
    Run("flash-crowd", 10, ("--within", "5")),
    Run("poison", 10, ("--rest", "2", "--lasts", "4", "--share", "0.2")),
    Run("churn", 10, ("--lasts", "10")),
    Run("routing", 10, ("--rest", "2", "--lasts", "5")),
    Run("day", 10, ("--minutes", "1")),
)


@click.command()
@click.option("--quick", is_flag=True, help="A handful of nodes: to see that it works, in a few minutes")
@click.option("--fresh", is_flag=True, help="Run again what the same code has run already")
@click.option("--only", multiple=True, metavar="NAME", help="Make these runs alone, as spread-1000; tell of all")
@click.option("--write-only", is_flag=True, help="Make no run: write the page from those that are there")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), default=Path("docs/scale.md"),
              show_default=True, help="The page; JSON and plots go into a folder of that name beside it")
def main(quick: bool, fresh: bool, only: tuple[str, ...], write_only: bool, out: Path) -> None:
    """Make all the runs that docs/scale.md tells of, and write it."""
    runs = QUICK if quick else RUNS
    unknown = set(only) - {run.name for run in runs}
    if unknown:
        raise click.BadParameter(f"{', '.join(sorted(unknown))}: not among {', '.join(run.name for run in runs)}",
                                 param_hint="--only")
    folder = out.with_suffix("")
    folder.mkdir(parents=True, exist_ok=True)
    code = code_hash()
    wanted = [run for run in runs if not write_only and (not only or run.name in only)]
    due = [run for run in wanted if fresh or not _is_there(folder, run, code)]
    for run in wanted:
        if run not in due:
            click.echo(f"{run.name}: there already")
    with interruptible():
        trio.run(_make, due, folder, code)
    results = {run.name: _kept(folder, run) for run in runs}
    by = "python -m simulations.scale --quick" if quick else "make scale"
    write_page(out, Scale(results, code, model(folder, runs), by))
    missing = [run.name for run in runs if "figures" not in results[run.name]]
    click.echo(f"{out.name} is written" + (f"; without {', '.join(missing)}" if missing else ""))
    if any(run.name in missing for run in wanted):
        raise SystemExit(1)


def code_hash() -> str:
    """Of everything that a run consists of."""
    found = blake2b(digest_size=6)
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            own = path.parent == ROOT / "simulations"
            if not own or (path.name not in NO_PART_OF_A_RUN and not path.name.startswith("model")):
                found.update(path.relative_to(ROOT).as_posix().encode())
                found.update(path.read_bytes())
    return found.hexdigest()


def model(folder: Path, runs: Sequence[Run]) -> Mapping[str, Any]:
    """What the numerical model says, calibrated by the spreads; {"error": why} without it."""
    if importlib.util.find_spec("simulations.model") is None:
        return {"error": "there is no numerical model"}
    files = {}  # the last one of a size rested longest
    for run in runs:
        if run.scenario == "spread" and "figures" in _kept(folder, run):
            files[run.nodes] = str(folder / f"{run.name}.json")
    if not files:
        return {"error": "there is no run to calibrate it with"}
    named = [word for file in files.values() for word in ("--runs", file)]
    words = [sys.executable, "-m", "simulations.model", *named, "--json"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        return {"error": (done.stderr.strip().splitlines() or ["it failed"])[-1]}
    return dict(json.loads(done.stdout))


async def _make(due: Sequence[Run], folder: Path, code: str) -> None:
    small = [run for run in due if run.nodes <= SMALL]
    large = sorted((run for run in due if run.nodes > SMALL), key=lambda run: run.nodes)
    with tempfile.TemporaryDirectory() as temporary:
        for runs, cores in ((small, TOGETHER), (large, 1)):
            await _make_some(runs, cores, folder, Path(temporary), code)


async def _make_some(runs: Sequence[Run], cores: int, folder: Path, temporary: Path, code: str) -> None:
    jobs = [
        Job(run.name, command([*run.words, "--json", "--report", str(temporary / run.name)]),
            expected_mb(run.nodes), LIMIT_S)
        for run in runs
    ]  # fmt: skip

    async def ended(place: int, done: Done) -> None:
        run = runs[place]
        result = {"command": " ".join(["atmosphere-p2p simulate", *run.words]), "code": code, **_when_and_where()}
        if done.error is None:
            result |= json.loads((temporary / run.name / "result.json").read_text())
        else:
            result["error"] = last_words(done.error)  # all of it has paths of this machine in it
            click.echo(done.error, err=True)
        text = json.dumps(result, separators=(",", ":")) + "\n"
        (folder / f"{run.name}.json").write_text(text)
        click.echo(f"{run.name}: {result.get('error', 'done')}")

    def told(count: int, running: Sequence[str]) -> None:
        click.echo(f"running: {', '.join(running)}")

    await run_all(jobs, cores=cores, told=told, ended=ended)


def _when_and_where() -> dict[str, Any]:
    changed = _git("status", "--porcelain", "--", *PACKAGES) != ""
    return {
        "date": datetime.date.today().isoformat(),
        "commit": _git("rev-parse", "--short", "HEAD") + "+" * changed,
        "machine": {
            "cores": os.cpu_count(),
            "memory_gb": math.ceil(psutil.virtual_memory().total / 2**30),
            "python": platform.python_version(),
            "system": platform.system(),
        },
    }


def _git(*words: str) -> str:
    """Empty outside a repository."""
    try:
        return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()
    except OSError:
        return ""


def _kept(folder: Path, run: Run) -> dict[str, Any]:
    path = folder / f"{run.name}.json"
    return dict(json.loads(path.read_text())) if path.exists() else {"error": "not run"}


def _is_there(folder: Path, run: Run, code: str) -> bool:
    kept = _kept(folder, run)
    return "figures" in kept and kept["code"] == code and kept["command"].split()[2:] == run.words


if __name__ == "__main__":
    main()
