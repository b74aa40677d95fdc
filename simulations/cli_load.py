"""The commands of the scenarios in which the mesh has work to do."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from simulations.command import Scenario

WAYS = ("unit", "call")


def register(group: click.Group, common: Callable[[Callable[..., None]], Any], run: Callable[..., None]) -> None:
    """Add them to *group*. *common*: the options of every scenario; *run*: runs one, by name."""

    @group.command("routing", short_help="Intents in words under load: who gets them, how long they take")
    @common
    @click.option("--intents-per-s", type=click.FloatRange(0, min_open=True), default=10.0, show_default=True,
                  help="Of all nodes together")
    @click.option("--lasts", type=click.FloatRange(1), default=30.0, show_default=True, help="Seconds of virtual time")
    @click.option("--slow", type=click.FloatRange(0, 0.9), default=0.1, show_default=True,
                  help="Share of the nodes that are ten times slower")
    @click.option("--way", type=click.Choice(WAYS), default="unit", show_default=True,
                  help="unit: the less busy of two, as plans go; call: the first of the ranking, as HTTP requests go")
    @click.option("--service", type=click.FloatRange(0, min_open=True), default=2.0, show_default=True,
                  help="Seconds of work of an intent, on average")
    def routing(intents_per_s: float, lasts: float, slow: float, way: str, service: float, **options: Any) -> None:
        """Let intents arrive at random nodes; compare who does them, and how soon, with an oracle that knows all."""

        def scenario() -> Scenario:
            from simulations.scenarios.demand import Way
            from simulations.scenarios.routing import routing

            return lambda virtual, options: routing(
                virtual, options, intents_per_s, lasts, slow, way=Way(way), service_s=service
            )

        run("routing", scenario, **options)

    @group.command("day", short_help="A day of machines that get up and go to bed: tables and answers hour by hour")
    @common
    @click.option("--minutes", type=click.FloatRange(1), default=15.0, show_default=True,
                  help="Virtual minutes that the day takes; the nodes' own periods stay as they are")
    @click.option("--intents-per-s", type=click.FloatRange(0, min_open=True), default=1.0, show_default=True,
                  help="Of all nodes together, on average")
    def day(minutes: float, intents_per_s: float, **options: Any) -> None:
        """Let machines in three time zones rise and go to bed; measure tables, answers and traffic in every hour."""

        def scenario() -> Scenario:
            from simulations.scenarios.day import day

            return lambda virtual, options: day(virtual, options, minutes, intents_per_s)

        run("day", scenario, **options)
