"""``status``: one screen of truth."""

from __future__ import annotations

from typing import Any

import click

from atmosphere.cli.home import Home, pass_home
from atmosphere.cli.options import json_option, print_json, print_table


@click.command()
@json_option
@pass_home
def status(home: Home, as_json: bool) -> None:
    """Show the mesh, this node, and every node it knows.

    Without a running node it shows what the files say.
    """
    control = home.running()
    data = control.get("/v1/admin/status") if control else _from_files(home)
    if as_json:
        print_json(data)
    else:
        _print(home, data, running=control is not None)


def _from_files(home: Home) -> dict[str, Any]:
    from atmosphere.cli.membership import describe

    return {**describe(home), "nodes": []}


def _print(home: Home, data: dict[str, Any], *, running: bool) -> None:
    mesh, me = data["mesh"], data["me"]
    click.echo(f"Mesh     {mesh['name']}  {mesh['id']}")
    click.echo(f"Node     {me['name']}  {me['peer_id']}")
    for number, address in enumerate(me["addresses"]):
        click.echo(f"{'' if number else 'Address':9}{address}")
    membership = me["membership"]
    click.echo(f"Member   until {_date(membership['not_after'])}, scopes {', '.join(membership['scopes']) or 'none'}")
    if not running:
        click.echo(f"\nThe node is not running; this is what the files in {home.path} say. "
                   "Start it with `atmosphere-p2p run`.")
        return
    click.echo()
    if data["nodes"]:
        print_table(("node", "peer", "state", "path", "rtt", "load", "seen", "capabilities"),
                    [_row(node) for node in data["nodes"]])
    others = sum(node["path"] != "local" for node in data["nodes"])
    if not others:
        click.echo("\nNo other node yet: `atmosphere-p2p invite` prints what `atmosphere-p2p join` takes elsewhere.")


def _row(node: dict[str, Any]) -> tuple[str, ...]:
    rtt = node["rtt_ms"]
    seen = node["last_seen_s"]
    return (
        node["name"],
        "…" + node["peer_id"][-8:],
        node["state"],
        node["path"],
        "" if rtt is None else f"{rtt:.1f} ms",
        f"{node['load']:.0%}",
        "" if seen is None else "now" if seen < 2 else f"{seen:.0f} s ago",
        ", ".join(dict.fromkeys(item["model"] or item["type"] for item in node["capabilities"])),
    )


def _date(value: float) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(value, UTC).astimezone().strftime("%Y-%m-%d %H:%M")
