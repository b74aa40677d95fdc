"""``revoke``: a node, an issuer or one membership is out, for the whole mesh."""

from __future__ import annotations

import click

from atmosphere.cli.home import Home, pass_home
from atmosphere.cli.options import label, yes_option
from atmosphere.cli.peers import find, named

REASON_BYTES = 64
"""Of the reason in UTF-8, as the statement carries it to every node."""
SERIAL_DIGITS = 32


def reason(text: str) -> str:
    return label(REASON_BYTES, text)


def serial(text: str) -> str:
    """A membership's serial, as `auth show` prints it."""
    try:
        digits = bytes.fromhex(text).hex()
    except ValueError:
        digits = ""
    if len(digits) != SERIAL_DIGITS:
        raise click.BadParameter(f"a serial has {SERIAL_DIGITS} hexadecimal digits; `auth show` prints them")
    return digits


@click.command()
@click.argument("peer", metavar="[PEER_ID]", required=False)
@click.option("--issuer", is_flag=True, help="Revoke it as an issuer, with every membership it has "
              "given. A membership that another issuer gave to it stays.")
@click.option("--membership", type=serial, metavar="SERIAL", help="Revoke this one membership instead of a node.")
@click.option("--reason", type=reason, metavar="TEXT", help="Told to every node.")
@yes_option
@pass_home
def revoke(home: Home, peer: str | None, issuer: bool, membership: str | None, reason: str | None, yes: bool) -> None:
    """Revoke a node, an issuer or a membership, for good.

    No member talks to it again, and its running calls are cut off. PEER_ID is a peer id, the end of one, or a node's
    name. To come back a machine needs a new key and a new invite.
    """
    if (peer is None) == (membership is None) or (membership and issuer):
        raise click.UsageError("name one thing to revoke: PEER_ID, PEER_ID with --issuer, or --membership SERIAL")
    control = home.node()
    status = control.get("/v1/admin/status")
    if membership:
        target, words = {"membership": membership}, f"membership {membership}"
    else:
        assert peer is not None
        who = find(peer, named(status["nodes"]), "status")
        target = {"issuer" if issuer else "peer": who.peer_id}
        words = f"issuer {who} and every membership it has given" if issuer else f"node {who}"
        if who.peer_id == status["me"]["peer_id"]:
            click.echo("That is this node itself.", err=True)
        if not issuer and any(view["peer_id"] == who.peer_id for view in control.get("/v1/admin/issuers")["issuers"]):
            click.echo("It is an issuer: whoever has its key can go on letting nodes in until --issuer strikes that as "
                       "well, with every membership it has given.", err=True)
    if not yes:
        click.confirm(f"Revoke {words} in mesh {status['mesh']['name']}, for good?", abort=True)
    control.post("/v1/admin/revoke", target | ({"reason": reason} if reason else {}))
    click.echo(f"revoked {words}")
