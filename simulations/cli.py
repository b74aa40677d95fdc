"""``atmosphere-p2p simulate``: worlds of real nodes in virtual time, from the command line."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import click

from simulations import cli_load, cli_membership
from simulations.hashing import fix_hashing

if TYPE_CHECKING:
    from simulations.scenarios.running import Options
    from simulations.virtual import Virtual

FIDELITIES = ("vanilla", "fast")

Scenario = Callable[["Virtual", "Options"], Awaitable[Any]]


@click.group(short_help="Run a mesh of many real nodes in virtual time")
def simulate() -> None:
    """Run a mesh of many real nodes in one process and in virtual time, and measure it.

    The nodes are the production code; network, disks and models are in memory. The same seed gives the same run, which
    its trace hash shows.
    """


def common(command: Callable[..., None]) -> Callable[..., None]:
    """The options of every scenario."""

    @click.option("--nodes", type=click.IntRange(2), default=100, show_default=True)
    @click.option("--degree", type=click.IntRange(2), default=8, show_default=True, help="Links of each node (even)")
    @click.option("--seed", type=click.IntRange(0), default=1, show_default=True, help="Decides everything")
    @click.option("--fidelity", type=click.Choice(FIDELITIES), default="vanilla", show_default=True,
                  help="vanilla: the production host, with virtual clocks; fast: accelerated, see simulations/fast.py")
    @click.option("--rest", "rest_s", type=click.FloatRange(0.1), default=10.0, show_default=True,
                  help="Seconds of virtual time in which the mesh at rest is measured first")
    @click.option("--json", "as_json", is_flag=True, help="One JSON object instead of lines for people")
    @functools.wraps(command)
    def wrapped(**options: Any) -> None:
        command(**options)

    return wrapped


@simulate.command(short_help="How news travels: a new card, a revocation")
@common
@click.option("--news", type=click.IntRange(1), default=10, show_default=True, help="Pieces of news, one after another")
def spread(news: int, **options: Any) -> None:
    """Tell pieces of news in a mesh at rest; measure when, how and whether every node has them."""

    def scenario() -> Scenario:
        from simulations.scenarios.spread import spread

        return lambda virtual, options: spread(virtual, options, news)

    _run("spread", scenario, **options)


@simulate.command(short_help="Some nodes die at once: who notices when, and what becomes of calls")
@common
@click.option("--share", type=click.FloatRange(0, 0.9, min_open=True), default=0.2, show_default=True, help="That die")
def crash(share: float, **options: Any) -> None:
    """Kill a share of the nodes, half as processes and half as machines; measure until everybody knows."""

    def scenario() -> Scenario:
        from simulations.scenarios.crash import crash

        return lambda virtual, options: crash(virtual, options, share)

    _run("crash", scenario, **options)


@simulate.command(short_help="Two halves that cannot reach each other for a while: when all is whole again")
@common
@click.option("--parted", type=click.FloatRange(1), default=60.0, show_default=True, help="Seconds of virtual time")
def partition(parted: float, **options: Any) -> None:
    """Part the mesh into two halves, have news in both, heal it; measure until every node knows everything."""

    def scenario() -> Scenario:
        from simulations.scenarios.partition import partition

        return lambda virtual, options: partition(virtual, options, parted)

    _run("partition", scenario, **options)


def _run(
    name: str, scenario: Callable[[], Scenario], *, nodes: int, degree: int, seed: int, fidelity: str, rest_s: float,
    as_json: bool,
) -> None:
    """*scenario* imports what takes seconds: only once hashing is fixed, which starts Python again."""
    fix_hashing()
    from simulations.fast import NAMES, accelerated
    from simulations.report import figures, text
    from simulations.scenarios.running import Options
    from simulations.virtual import run

    told = _Progress(sys.stderr.isatty())
    play, options = scenario(), Options(nodes, degree, rest_s, told)
    with accelerated(NAMES if fidelity == "fast" else ()):
        outcome = run(lambda virtual: play(virtual, options), seed=seed)
    told.end()
    found = figures(name, nodes, seed, fidelity, outcome)
    click.echo(json.dumps(found) if as_json else text(found))


cli_membership.register(simulate, common, _run)
cli_load.register(simulate, common, _run)


class _Progress:
    """One line on the terminal that says how far it is."""

    def __init__(self, shown: bool) -> None:
        self._shown = shown

    def __call__(self, text: str) -> None:
        if self._shown:
            click.echo(f"\r\033[K{text}", nl=False, err=True)

    def end(self) -> None:
        if self._shown:
            click.echo("\r\033[K", nl=False, err=True)
