"""``--sweep``: many runs of one scenario, each in its own process, as many at a time as the machine can hold."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import inf
from pathlib import Path
from typing import Any

import click
import psutil
import trio

from simulations.command import arguments, fitting, interruptible
from simulations.hashing import HASH_SEED
from simulations.report import table

MEMORY_SHARE = 0.8
"""Of what is available, for all runs together."""
BASE_MB, NODE_MB, PAIR_MB = 150.0, 1.6, 0.0001
"""What a run takes, on the safe side: in any case, for each node, and for each node that a node knows."""
TAIL = 2000
"""Characters of what a run that failed has said last."""

SHOWN = ("delivered", "virtual_ms", "hops", "copies", "table_error", "messages_per_node_s", "bytes_per_node_s",
         "cpu_ms_per_node_s", "cpu_s", "wall_s", "peak_rss_mb")  # fmt: skip
"""Figures in the table of a sweep, and over its key on its page."""

Values = Mapping[str, float | int]


@dataclass(frozen=True, slots=True)
class Job:
    """A command to run, and how much memory it may take, MiB."""

    name: str
    words: Sequence[str]
    mb: float
    within_s: float = inf
    """Of real time; what takes longer is ended and has failed."""


@dataclass(frozen=True, slots=True)
class Done:
    """How it ended. *said*: its standard output; *error*: the end of its standard error, None when it went well."""

    said: str
    error: str | None


def sweep_command(context: click.Context, sweeps: Sequence[str], as_json: bool, report: Path | None) -> bool:
    """Run and tell all of it; whether every run went well. Raises BadParameter for what is no sweep."""
    keys = dict(_parsed(context, sweep) for sweep in sweeps)
    if len(keys) < len(sweeps):
        raise click.BadParameter("each option may be swept once; give all its values there", param_hint="--sweep")
    points: list[Values] = [dict(zip(keys, values, strict=True)) for values in product(*keys.values())]
    with interruptible():
        rows = trio.run(_rows, context, points, report)
    if report is not None:
        from simulations.page import write_sweep

        words = ["atmosphere-p2p", "simulate", str(context.command.name), *arguments(context)]
        command = shlex.join([*words, *(word for sweep in sweeps for word in ("--sweep", sweep))])
        write_sweep(report, command, list(keys), rows, curves(list(keys), rows))
    click.echo(json.dumps(rows) if as_json else table([short_row(row) for row in rows]))
    return not any("error" in row for row in rows)


def short_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """What a table shows of a run."""
    shown = {**row["sweep"], "fidelity": row.get("fidelity")}
    for name in SHOWN:
        value = row.get(name)
        if isinstance(value, Mapping):
            shown |= {f"{name} {part}": value.get(part) for part in ("p50", "p99", "max") if part in value}
        elif value is not None:
            shown[name] = value
    if "error" in row:
        shown["error"] = last_words(row["error"])
    return shown


def last_words(error: str) -> str:
    """The last line of *error* that says something, without the frame that groups of exceptions are drawn in."""
    lines = [line.strip(" |+-") for line in error.splitlines()]
    return next((line for line in reversed(lines) if line), "")


def curves(keys: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> list[Any]:
    """A plot of each figure over one key; a line for each combination of the others, seeds together."""
    from simulations.plots import against

    of = next((key for key in keys if key != "seed"), keys[0])
    found: dict[str, dict[str, dict[float, list[float]]]] = {}
    for row in rows:
        others = ", ".join(f"{key} {row['sweep'][key]:g}" for key in keys if key not in (of, "seed"))
        for name, value in short_row(row).items():
            if name not in keys and isinstance(value, (int, float)):
                line = found.setdefault(name, {}).setdefault(others or "mean", {})
                line.setdefault(row["sweep"][of], []).append(float(value))
    drawn = []
    for name, lines in found.items():
        means = {label: [(at, sum(of) / len(of)) for at, of in line.items()] for label, line in lines.items()}
        dots = {"each run": [(at, value) for line in lines.values() for at, of in line.items() for value in of]}
        several = any(len(of) > 1 for line in lines.values() for of in line.values())
        title = name.replace("_", " ")
        drawn.append(against(title.replace(" ", "-"), title, of, title, means, dots=dots if several else None))
    return drawn


def _parsed(context: click.Context, sweep: str) -> tuple[str, list[float | int]]:
    key, is_sweep, values = sweep.partition("=")
    numeric = {
        option.opts[0].removeprefix("--"): option
        for option in context.command.params
        if isinstance(option.type, (click.types.IntParamType, click.types.FloatParamType)) and not option.multiple
    }
    if not is_sweep or key not in numeric:
        raise click.BadParameter(f"{sweep!r} is not OPTION=A,B,... with OPTION one of {', '.join(numeric)}",
                                 param_hint="--sweep")
    option = numeric[key]
    return key, [option.type.convert(value.strip(), option, context) for value in values.split(",")]


async def _rows(context: click.Context, points: Sequence[Values], report: Path | None) -> list[dict[str, Any]]:
    scenario = str(context.command.name)
    rows: list[dict[str, Any]] = []
    jobs: list[Job] = []
    for point in points:
        nodes = int(point.get("nodes", context.params["nodes"]))
        asked = context.params["fidelity"]
        fidelity = fitting(nodes, asked)
        folder = "-".join(f"{key}-{value:g}" for key, value in point.items())
        rows.append({"scenario": scenario, "sweep": dict(point), "nodes": nodes,
                     "seed": int(point.get("seed", context.params["seed"])), "fidelity": fidelity, "folder": folder})
        swept = tuple(option.name or "" for option in context.command.params if option.opts[0][2:] in point)
        words = [scenario, *arguments(context, swept), "--json"]
        words += [word for key, value in point.items() for word in (f"--{key}", str(value))]
        words += ["--report", str(report / folder)] if report is not None else []
        jobs.append(Job(folder, command(words), expected_mb(nodes)))
    done = await run_all(jobs, told=_told if sys.stderr.isatty() else None)
    for row, end in zip(rows, done, strict=True):
        row |= json.loads(end.said) if end.error is None else {"error": end.error}
    return rows


def command(words: Sequence[str]) -> list[str]:
    """``simulate WORDS`` by this Python."""
    return [sys.executable, "-m", "simulations", *words]


def expected_mb(nodes: int) -> float:
    """What a run of so many nodes takes, on the safe side."""
    return BASE_MB + NODE_MB * nodes + PAIR_MB * nodes**2


async def run_all(
    jobs: Sequence[Job], *, cores: int | None = None, room_mb: float | None = None,
    told: Callable[[int, Sequence[str]], None] | None = None,
    ended: Callable[[int, Done], Awaitable[None]] | None = None,
) -> list[Done]:
    """Run *jobs* in processes of their own, the largest first; what came of each, in the order of *jobs*.

    At most *cores* at a time (default: all of this machine), and only together what fits into *room_mb* (default: most
    of what is available now); one that is larger runs alone. A cancel ends them. *told*: called with (how many have
    ended, the names of those that run); *ended*: as soon as one has, with (its place, what came of it).
    """
    cores = cores or os.cpu_count() or 1
    room_mb = room_mb or MEMORY_SHARE * psutil.virtual_memory().available / 2**20
    results: dict[int, Done] = {}
    running: set[int] = set()
    changed = trio.Condition()

    async def run(place: int) -> None:
        result = await _run(jobs[place])
        async with changed:
            running.discard(place)
            results[place] = result
            changed.notify_all()
        if ended is not None:
            await ended(place, result)

    async with trio.open_nursery() as nursery:
        for place in sorted(range(len(jobs)), key=lambda place: -jobs[place].mb):
            async with changed:
                while running and (
                    len(running) >= cores or sum(jobs[each].mb for each in (*running, place)) > room_mb
                ):
                    await changed.wait()
                running.add(place)
            if told is not None:
                told(len(results), [jobs[each].name for each in sorted(running)])
            nursery.start_soon(run, place)
    return [results[place] for place in range(len(jobs))]


async def _run(job: Job) -> Done:
    environment = {**os.environ, "PYTHONHASHSEED": HASH_SEED}  # or each would start Python twice
    with trio.move_on_after(job.within_s) as scope:
        done = await trio.run_process(list(job.words), capture_stdout=True, capture_stderr=True, check=False,
                                      stdin=subprocess.DEVNULL, env=environment)
    if scope.cancelled_caught:
        return Done("", f"ended after {job.within_s:g} s")
    if done.returncode == 0:
        return Done(done.stdout.decode(), None)
    tail = done.stderr.decode(errors="replace")[-TAIL:]
    return Done("", f"exit status {done.returncode}\n{tail}".rstrip())


def _told(ended: int, running: Sequence[str]) -> None:
    click.echo(f"\r\033[K{ended} runs have ended; running: {', '.join(running)}", nl=False, err=True)
