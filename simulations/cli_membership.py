"""The commands of the scenarios in which the members are what changes, or what is wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from simulations.command import Scenario

KINDS = ("flood", "forgery", "load", "suspicion")


def register(group: click.Group, common: Callable[[Callable[..., None]], Any], run: Callable[..., None]) -> None:
    """Add them to *group*. *common*: the options of every scenario; *run*: runs one, by name."""

    @group.command("flash-crowd", short_help="Most nodes join within a minute, through three others")
    @common
    @click.option("--within", type=click.FloatRange(1), default=60.0, show_default=True, help="Seconds of virtual time")
    def flash_crowd(within: float, **options: Any) -> None:
        """Let nine tenths of the nodes join through three bootstrap nodes; measure until all can call each other."""

        def scenario() -> Scenario:
            from simulations.scenarios.flash_crowd import flash_crowd

            return lambda virtual, options: flash_crowd(virtual, options, within)

        run("flash-crowd", scenario, **options)

    @group.command("churn", short_help="Nodes come and go all the time: how far the tables are from the truth")
    @common
    @click.option("--rate", type=click.FloatRange(0, min_open=True), default=0.5, show_default=True,
                  help="Nodes that join, and as many that end, per second")
    @click.option("--lasts", type=click.FloatRange(1), default=60.0, show_default=True, help="Seconds of virtual time")
    def churn(rate: float, lasts: float, **options: Any) -> None:
        """Let nodes join and others leave, crash or go silent; compare every table with the truth all the time."""

        def scenario() -> Scenario:
            from simulations.scenarios.churn import churn

            return lambda virtual, options: churn(virtual, options, rate, lasts)

        run("churn", scenario, **options)

    @group.command("poison", short_help="Some members are malicious: what the others notice of it")
    @common
    @click.option("--share", type=click.FloatRange(0, 0.5), default=0.2, show_default=True, help="That are malicious")
    @click.option("--lasts", type=click.FloatRange(2), default=30.0, show_default=True, help="Seconds of virtual time")
    @click.option("--kind", type=click.Choice(KINDS), multiple=True, help="Of malice; default: all, as many of each")
    def poison(share: float, lasts: float, kind: tuple[str, ...], **options: Any) -> None:
        """Let some members flood, forge, lie about their load and accuse others; measure what it does to the rest."""

        def scenario() -> Scenario:
            from simulations.scenarios.poison import Malice, poison

            kinds = tuple(Malice(each) for each in kind or KINDS)
            return lambda virtual, options: poison(virtual, options, share, lasts, kinds)

        run("poison", scenario, **options)
