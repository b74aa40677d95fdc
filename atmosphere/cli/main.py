"""The root command: global options, and the group that finds its commands through entry points."""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

import click

from atmosphere import __version__
from atmosphere.cli.home import Failure, Home
from atmosphere.config import HOME_VARIABLE

COMMANDS = "atmosphere.commands"
ORDER = ("init", "run", "invite", "join", "status", "ask", "route", "call", "plan", "knowledge", "backend", "cost",
         "keys", "auth", "issuer", "revoke", "owner", "audit", "stop", "leave",
         "simulate")
"""The order in which a person needs them; commands of other distributions follow, by name."""


class EntryPointGroup(click.Group):
    """A group whose commands are entry points: only the command that is asked for is imported.

    A command that cannot be imported is still listed, says why in the list, and fails with that reason when it is
    called; the other commands keep working.
    """

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; a disk that is full, read-only or somebody else's is an expected failure."""
        try:
            return super().invoke(ctx)
        except Exception as error:
            from atmosphere.store import disk_trouble

            why = disk_trouble(error)
            if not why:
                raise
            raise Failure(f"the disk refuses: {why}", "make room, or check who owns the folder") from error

    def list_commands(self, ctx: click.Context) -> list[str]:
        names = {point.name for point in entry_points(group=COMMANDS)} | set(self.commands)
        rank = {name: position for position, name in enumerate(ORDER)}
        return sorted(names, key=lambda name: (rank.get(name, len(ORDER)), name))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        known = super().get_command(ctx, cmd_name)
        if known is not None:
            return known
        for point in entry_points(group=COMMANDS, name=cmd_name):
            command = _load(point)
            self.add_command(command, cmd_name)
            return command
        return None


def _load(point: EntryPoint) -> click.Command:
    try:
        command = point.load()
    except (ImportError, AttributeError) as error:
        return _broken(point, f"{type(error).__name__}: {error}")
    return command if isinstance(command, click.Command) else _broken(point, f"{point.value} is not a click command")


def _broken(point: EntryPoint, reason: str) -> click.Command:
    def fail() -> None:
        raise Failure(f"the command {point.name} cannot be loaded ({point.value}): {reason}",
                      "install the distribution that brings it again")

    return click.Command(point.name, callback=fail, short_help=f"(cannot be loaded: {reason})")


@click.group(cls=EntryPointGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--home", type=click.Path(file_okay=False, path_type=Path), metavar="DIR",
              help=f"The node's home folder  [default: ${HOME_VARIABLE}, else ~/.atmosphere]")
@click.version_option(__version__, prog_name="atmosphere-p2p")
@click.pass_context
def main(ctx: click.Context, home: Path | None) -> None:
    """A node of a peer-to-peer mesh that routes work to whoever can do it.

    Start with `run`: it creates a mesh where there is none. `invite` on that node prints what `join` takes on the
    next one.
    """
    ctx.obj = ctx.obj or Home.choose(home)
