"""What the commands of all scenarios share: options, the run itself, and where its figures go."""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import shlex
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from simulations.hashing import fix_hashing

if TYPE_CHECKING:
    from simulations.scenarios.running import Options
    from simulations.virtual import Virtual

UP_TO = {"vanilla": 300, "fast": 5000}
"""Nodes, by fidelity."""
BEYOND = {
    "vanilla": "take --fidelity fast",
    "fast": "python -m simulations.model computes larger meshes from what smaller ones have shown",
}
AT_ONCE_ABOVE = 1000
"""Nodes; to free what a world of 5,000 consists of takes Python half a minute."""
NOT_OF_THE_RUN = ("as_json", "report", "sweep")
"""Options that say what becomes of the figures."""

Scenario = Callable[["Virtual", "Options"], Awaitable[Any]]


def common(command: Callable[..., None]) -> Callable[..., None]:
    """The options of every scenario."""

    @click.option("--nodes", type=click.IntRange(2), default=100, show_default=True)
    @click.option("--degree", type=click.IntRange(2), default=8, show_default=True, help="Links of each node (even)")
    @click.option("--seed", type=click.IntRange(0), default=1, show_default=True, help="Decides everything")
    @click.option("--fidelity", type=click.Choice(list(UP_TO)), default=None,
                  help="vanilla: the production host, with virtual clocks; fast: accelerated, see simulations/fast.py. "
                  f"By default vanilla up to {UP_TO['vanilla']} nodes, fast above")
    @click.option("--rest", "rest_s", type=click.FloatRange(0.1), default=10.0, show_default=True,
                  help="Seconds of virtual time in which the mesh at rest is measured first")
    @click.option("--json", "as_json", is_flag=True, help="One JSON object instead of lines for people")
    @click.option("--report", type=click.Path(file_okay=False, path_type=Path), metavar="DIR",
                  help="Write result.json and index.html, a page with plots, into this folder")
    @click.option("--sweep", multiple=True, metavar="OPTION=A,B,...",
                  help="A run for each value of a numeric option, on all cores; given twice: for each combination")
    @functools.wraps(command)
    def wrapped(**options: Any) -> None:
        command(**options)

    return wrapped


def run(
    name: str, scenario: Callable[[], Scenario], *, nodes: int, degree: int, seed: int, fidelity: str | None,
    rest_s: float, as_json: bool, report: Path | None, sweep: tuple[str, ...],
) -> None:
    """Run the scenario called *name*, or many of it, and say what was found.

    *scenario* imports what takes seconds: only once hashing is fixed, which starts Python again.
    """
    context = click.get_current_context()
    if report is not None:
        _can_draw()
    if sweep:
        from simulations.sweep import sweep_command

        context.exit(0 if sweep_command(context, sweep, as_json, report) else 1)
    fidelity = fitting(nodes, fidelity)
    fix_hashing()
    from simulations.fast import NAMES, accelerated
    from simulations.progress import ProgressLine, silent
    from simulations.report import distributions, figures, text
    from simulations.scenarios.running import Options
    from simulations.virtual import run as run_virtual

    line = ProgressLine(name) if sys.stderr.isatty() else None
    play, options = scenario(), Options(nodes, degree, rest_s, line or silent)

    async def watched(virtual: Virtual) -> Any:
        with line.watching() if line is not None else nullcontext():
            return await play(virtual, options)

    with interruptible(), accelerated(NAMES if fidelity == "fast" else ()):
        outcome = run_virtual(watched, seed=seed)
    found = {**figures(name, nodes, seed, fidelity, outcome), "command": command_line(context, fidelity)}
    if report is not None:
        from simulations.page import write_run

        write_run(report, found, distributions(outcome.value))
    click.echo(json.dumps(found) if as_json else text(found))
    if nodes > AT_ONCE_ABOVE:
        end_at_once()


def end_at_once() -> None:
    """End this process, successfully, without taking its objects apart one by one first."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


@contextmanager
def interruptible() -> Iterator[None]:
    """Ctrl-C within Trio ends the command without a traceback."""
    try:
        yield
    except BaseExceptionGroup as group:
        if group.subgroup(KeyboardInterrupt) is not None:
            raise click.Abort from None
        raise


def fitting(nodes: int, fidelity: str | None) -> str:
    """*fidelity*, or the one for so many nodes; UsageError when these are too many for it."""
    chosen = fidelity or ("vanilla" if nodes <= UP_TO["vanilla"] else "fast")
    if nodes > UP_TO[chosen]:
        raise click.UsageError(f"{nodes} nodes are too many for the fidelity {chosen}, "
                               f"which is for up to {UP_TO[chosen]}: {BEYOND[chosen]}")
    return chosen


def arguments(context: click.Context, without: tuple[str, ...] = ()) -> list[str]:
    """What was asked for, as arguments of the command; all but defaults, NOT_OF_THE_RUN and *without*."""
    found: list[str] = []
    for option in context.command.params:
        value = context.params.get(option.name or "")
        if option.name in (*NOT_OF_THE_RUN, *without) or value in (None, option.get_default(context)):
            continue
        values: Any = value if option.multiple else (value,)
        found += [word for each in values for word in (option.opts[0], str(each).removesuffix(".0"))]
    return found


def command_line(context: click.Context, fidelity: str) -> str:
    """What repeats the run, on any machine."""
    always = {"nodes": context.params["nodes"], "seed": context.params["seed"], "fidelity": fidelity}
    said = [word for key, value in always.items() for word in (f"--{key}", str(value))]
    name = context.command.name or ""
    return shlex.join(["atmosphere-p2p", "simulate", name, *said, *arguments(context, tuple(always))])


def _can_draw() -> None:
    if importlib.util.find_spec("matplotlib") is None:
        raise click.ClickException(
            "--report draws its plots with matplotlib, which is not installed: "
            "pip install 'atmosphere-p2p[simulation]'"
        )
