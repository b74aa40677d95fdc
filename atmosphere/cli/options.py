"""Options and parameter types that several commands share."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from atmosphere.cli.plain import plain, plain_json

F = TypeVar("F", bound=Callable[..., Any])

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_PLAN_NAME = re.compile(r"[A-Za-z0-9_\[\]-]{1,80}")
_DURATION = re.compile(r"(\d+(?:\.\d+)?)([smhd])")


def duration(text: str) -> float:
    """Seconds of ``90s``, ``30m``, ``1h``, ``7d`` or a sum like ``1h30m``; more than zero."""
    seconds = sum(float(number) * _UNITS[unit] for number, unit in _DURATION.findall(text))
    if not seconds or _DURATION.sub("", text):
        raise click.BadParameter(f"{text!r} is not a duration; write 90s, 30m, 1h, 7d or 1h30m")
    return seconds


def scopes(text: str) -> tuple[str, ...]:
    """Scopes separated by commas: ``call:llm/*,serve``."""
    from atmosphere.identity import IdentityError
    from atmosphere.identity.scopes import check

    try:
        return check(word for word in re.split(r"[,\s]+", text) if word)
    except IdentityError as error:
        raise click.BadParameter(str(error)) from None


def label(limit: int, text: str) -> str:
    """A text for people: printable, 1 to *limit* bytes."""
    text = text.strip()
    if not text or not text.isprintable() or len(text.encode()) > limit:
        raise click.BadParameter(f"it has 1 to {limit} bytes, all printable")
    return text


def plan_name(text: str) -> str:
    """The id of a plan, or of a unit in one: nothing else goes into the path of a request."""
    if not _PLAN_NAME.fullmatch(text):
        raise click.BadParameter("not an id; `atmosphere-p2p plan list` shows those of plans, `plan show` of units")
    return text


def json_object(text: str) -> dict[str, Any]:
    """A JSON object on the command line."""
    def constant(name: str) -> Any:
        raise ValueError(f"{name} is no number there")

    try:
        data = json.loads(text, parse_constant=constant)
    except (ValueError, RecursionError) as error:
        raise click.BadParameter(f"not JSON: {error}") from None
    if not isinstance(data, dict):
        raise click.BadParameter('expected an object like {"text": "hello"}')
    return data


def json_option(command: F) -> F:
    """Add ``--json``: the command prints one JSON document instead of text for people."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)


yes_option = click.option("--yes", is_flag=True, help="Do not ask.")


def clock(seconds: float) -> str:
    """A moment (Unix seconds) in this machine's time zone."""
    from datetime import UTC, datetime

    return datetime.fromtimestamp(seconds, UTC).astimezone().strftime("%Y-%m-%d %H:%M")


def print_json(data: Any) -> None:
    """Write *data* as one JSON document to standard output."""
    click.echo(plain_json(json.dumps(data, indent=2, ensure_ascii=False)))


def print_table(columns: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    """Write *rows* as a table that fits the terminal; piped output is never cut."""
    import sys

    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(plain(cell)) for cell in row))  # Text: a name with brackets in it is not markup
    Console(width=None if sys.stdout.isatty() else 240).print(table)
