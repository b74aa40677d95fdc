"""``atmosphere-p2p simulate``: worlds of real nodes in virtual time, from the command line."""

from __future__ import annotations

from typing import Any

import click

from simulations import cli_load, cli_membership
from simulations.command import Scenario, common
from simulations.command import run as _run


@click.group(short_help="Run a mesh of many real nodes in virtual time")
def simulate() -> None:
    """Run a mesh of many real nodes in one process and in virtual time, and measure it.

    The nodes are the production code; network, disks and models are in memory. The same seed gives the same run, which
    its trace hash shows.
    """


@simulate.command(short_help="How news travels: a new card, a revocation")
@common
@click.option("--news", type=click.IntRange(1), default=4, show_default=True, help="Pieces of news, one after another")
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


cli_membership.register(simulate, common, _run)
cli_load.register(simulate, common, _run)
