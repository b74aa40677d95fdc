"""``audit``: who came in, who was refused and why, who was served what."""

from __future__ import annotations

import dataclasses
from typing import Any
from urllib.parse import urlencode

import click

from atmosphere.cli.home import Home, pass_home
from atmosphere.cli.options import clock, duration, json_option, print_json, print_table
from atmosphere.env import SystemEnv

MAX_ENTRIES = 1000


def kind(text: str) -> str:
    """A kind of audit entry."""
    from atmosphere.audit import AuditKind

    try:
        return AuditKind(text).value
    except ValueError:
        known = ", ".join(AuditKind)
        raise click.BadParameter(f"{text!r} is no kind of entry; there are {known}") from None


@click.command()
@click.option("--since", type=duration, metavar="TIME", help="Not older than this: 1h, 7d  [default: all that is kept]")
@click.option("--kind", type=kind, metavar="KIND", help="Only these: join, join_refused, revoked, served, ...")
@click.option("--limit", type=click.IntRange(1, MAX_ENTRIES), default=100, show_default=True,
              help="The newest so many.")
@json_option
@pass_home
def audit(home: Home, since: float | None, kind: str | None, limit: int, as_json: bool) -> None:
    """Show who came in, was refused, revoked or served.

    The newest first. It never holds what was said in a call.
    """
    start = SystemEnv().now() - since if since else 0.0
    control = home.running()
    entries = control.get(f"/v1/admin/audit?{_query(start, kind, limit)}")["entries"] if control else _from_files(
        home, start, kind, limit)
    if as_json:
        print_json({"entries": entries})
    elif not entries:
        click.echo("Nothing was noted" + (" in that time." if since else " yet."))
    else:
        print_table(("time", "kind", "who", "what", "outcome", ""), [_row(entry) for entry in entries])


def _query(since: float, kind: str | None, limit: int) -> str:
    return urlencode({"since": since, "limit": limit} | ({"kind": kind} if kind else {}))


def _row(entry: dict[str, Any]) -> tuple[str, ...]:
    return (clock(entry["at"]), entry["kind"], _short(entry["peer"]), entry["subject"], entry["outcome"],
            entry["detail"])


def _short(who: str) -> str:
    """A peer id as other lists show it; ``key:ID NAME`` as it is."""
    return who if ":" in who or not who else "…" + who[-8:]


def _from_files(home: Home, since: float, kind: str | None, limit: int) -> list[dict[str, Any]]:
    if not home.has_store:
        return []
    from atmosphere.audit import AuditKind, AuditLog

    with home.store() as store:
        log = AuditLog(store, SystemEnv())
        return [dataclasses.asdict(entry) for entry in log.query_now(since, AuditKind(kind) if kind else None, limit)]
