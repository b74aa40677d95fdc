"""``issuer``: who besides the owner may let nodes in and renew memberships."""

from __future__ import annotations

import dataclasses
from typing import Any

import click

from atmosphere.cli.home import Home, pass_home
from atmosphere.cli.membership import load_identity
from atmosphere.cli.options import clock, duration, json_option, print_json, print_table, scopes
from atmosphere.cli.peers import find, named
from atmosphere.cli.trust import heard
from atmosphere.env import SystemEnv

ROUTE = "/v1/admin/issuers"
SCOPES = "call:*,serve,invite"
"""What an issuer may hand on, and that it may invite. ``revoke`` and ``issue`` are given by name only."""


@click.group()
def issuer() -> None:
    """Nodes that let others in and renew memberships.

    They do so also while the owner is away. `invite` needs one, and each renews what its scopes cover.
    """


@issuer.command()
@click.argument("peer")
@click.option("--scopes", type=scopes, default=SCOPES, show_default=True, metavar="SCOPE,...",
              help="What it may hand on; `invite`: it may invite; `revoke`: revoke; `issue`: appoint others.")
@click.option("--expires", type=duration, default="365d", show_default=True, metavar="TIME", help="When it ends.")
@pass_home
def add(home: Home, peer: str, scopes: tuple[str, ...], expires: float) -> None:
    """Make PEER an issuer.

    PEER is a peer id, the end of one, or a node's name.
    """
    control = home.node()
    who = find(peer, named(control.get("/v1/admin/status")["nodes"]), "status")
    control.post(ROUTE, {"peer": who.peer_id, "scopes": list(scopes), "expires_s": expires})
    click.echo(f"{who} is an issuer now; may hand on {', '.join(scopes)}")


@issuer.command("list")
@json_option
@pass_home
def list_issuers(home: Home, as_json: bool) -> None:
    """List the issuers of the mesh that this node knows."""
    control = home.running()
    known = control.get(ROUTE)["issuers"] if control else _from_files(home)
    if as_json:
        print_json({"issuers": known})
    elif not known:
        click.echo("No issuer is known here: only the owner can let nodes in.")
    else:
        print_table(("node", "peer", "until", "appointed by", "scopes"), [_row(view) for view in known])


def _from_files(home: Home) -> list[dict[str, Any]]:
    """As the running node answers; the names of the others are not in the files."""
    from atmosphere.mesh.table import GradientTable
    from atmosphere.mesh.views import issuer_views

    identity = load_identity(home)
    issuers = heard(home, identity.mesh).issuers
    if identity.issuer_chain:
        issuers.add(identity.issuer_chain, SystemEnv().now())  # before its first start a node has heard nothing
    views = issuer_views(GradientTable(identity.peer_id), issuers)
    return [dataclasses.asdict(view) for view in views]


def _row(view: dict[str, Any]) -> tuple[str, ...]:
    return (view["name"], view["peer_id"], clock(view["not_after"]), "…" + view["appointed_by"][-8:]
            if view["appointed_by"] != "owner" else "the owner", ", ".join(view["scopes"]))
