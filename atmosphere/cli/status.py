"""``status``: one screen of truth."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

from atmosphere.cli.home import Home, pass_home
from atmosphere.cli.options import clock, json_option, print_json, print_table
from atmosphere.cli.plain import plain


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
        waiting = len(control.get("/v1/admin/join-requests")["requests"]) if control else 0
        _print(home, data, running=control is not None, waiting=waiting)


def _from_files(home: Home) -> dict[str, Any]:
    from atmosphere.cli.membership import describe

    return {**describe(home), "nodes": []}


def _print(home: Home, data: dict[str, Any], *, running: bool, waiting: int) -> None:
    mesh, me = data["mesh"], data["me"]
    click.echo(f"Mesh     {mesh['name']}  {mesh['id']}")
    click.echo(f"Node     {me['name']}  {me['peer_id']}")
    for number, address in enumerate(me["addresses"]):
        click.echo(f"{'' if number else 'Address':9}{address}")
    membership = me["membership"]
    for line in _membership(membership):
        click.echo(plain(line))
    if not running:
        click.echo(f"\nThe node is not running; this is what the files in {home.path} say. "
                   "Start it with `atmosphere-p2p run`.")
        return
    if waiting:
        click.echo(f"Waiting  {waiting} to be let in: `atmosphere-p2p join requests`")
    click.echo()
    if data["nodes"]:
        print_table(("node", "peer", "state", "path", "rtt", "load", "seen", "capabilities"),
                    [_row(node) for node in data["nodes"]])
    others = sum(node["path"] != "local" for node in data["nodes"])
    if not others:
        click.echo("\nNo other node yet: `atmosphere-p2p invite` prints what `atmosphere-p2p join` takes elsewhere.")


def _membership(membership: dict[str, Any]) -> Iterator[str]:
    """Until when this node is a member, and what its owner should know or do about it."""
    if membership["revoked"]:
        yield ("REVOKED  the others refuse this node; to come back it needs a new key and a new invite: "
               "`atmosphere-p2p leave`, then `join INVITE`")
        return
    left, renewal = membership["expires_in_s"], membership["renewal"]
    ends = clock(membership["not_after"])
    yield (f"Member   until {ends}, scopes {', '.join(membership['scopes'])}" if left > 0 else
           f"EXPIRED  the membership ended {ends}: `atmosphere-p2p leave`, then `join INVITE` with a new invite")
    if renewal != "ok":
        yield f"Renewal  {renewal}; {remaining(left)}"


def remaining(seconds: float) -> str:
    """How much time is left, in the unit that matters."""
    if seconds <= 0:
        return "no time left"
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit} left"
    return f"{seconds:.0f} seconds left"


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
