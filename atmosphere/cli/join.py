"""``join``: become a member by an invite; and, where invites ask for approval, let others in or not."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import click

from atmosphere.cli.home import Failure, Home, pass_home
from atmosphere.cli.membership import host_name, name_option
from atmosphere.cli.options import clock, json_option, print_json, print_table
from atmosphere.cli.peers import Named, find, named
from atmosphere.cli.run import peer_multiaddr
from atmosphere.config import save

ROUTE = "/v1/admin/join-requests"


class InviteOrCommand(click.Group):
    """A group whose first word is a command of it, or else the argument of :attr:`default`."""

    default: click.Command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] in self.commands:
            return super().resolve_command(ctx, args)
        return "INVITE|@FILE", self.default, args

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        return ["[OPTIONS] INVITE|@FILE", "or", "COMMAND"]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        self.default.format_options(ctx, formatter)
        self.format_commands(ctx, formatter)


class ByInvite(click.Command):
    """Its argument is named where the usage has the command's name."""

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        return ["[OPTIONS]"]


@click.group(cls=InviteOrCommand, context_settings={"ignore_unknown_options": True})  # they are the default's
def join() -> None:
    """Make this node a member of the mesh that INVITE is for.

    INVITE is the text of an invite, or @FILE for a file that holds it. If the invite asks for approval this waits for
    it; after Ctrl-C the same command continues.

    The commands below are for the other side: who waits to be let in here?
    """


@click.command(cls=ByInvite)
@click.argument("invite", metavar="INVITE|@FILE")
@name_option
@click.option("--via", type=peer_multiaddr, multiple=True, metavar="MULTIADDR",
              help="Ask this issuer of the mesh as well, if the inviter is off; may be repeated. Ends in /p2p/PEER.")
@pass_home
def by_invite(home: Home, invite: str, name: str | None, via: tuple[str, ...]) -> None:
    from atmosphere.identity import IdentityError, Keyring, parse_invite

    with home.locked():
        if Keyring(home.path).has_mesh:
            raise Failure(f"{home.path} belongs to a mesh already",
                          "`atmosphere-p2p leave` forgets that one, or choose another --home")
        config = home.config()
        name = name or config.name or host_name()
        try:
            parsed = parse_invite(_text(invite))
        except IdentityError as error:
            raise Failure(str(error), "for the nodes that wait to be let in: `atmosphere-p2p join requests`"
                          if len(invite) < 10 else "") from error
        from atmosphere.cli.enrol import enrol

        identity = enrol(home.path, parsed, name, via=via)
        save(home.path, dataclasses.replace(
            config, name=name, bootstrap=tuple(dict.fromkeys((*config.bootstrap, *parsed.addresses, *via)))))
    click.echo(f"Joined mesh {identity.mesh_name}  {identity.mesh_id}\nas node   {name}  {identity.peer_id}\n"
               "Start it with `atmosphere-p2p run`.")


join.default = by_invite


@join.command()
@json_option
@pass_home
def requests(home: Home, as_json: bool) -> None:
    """List the nodes that wait to be let in."""
    waiting = home.node().get(ROUTE)["requests"]
    if as_json:
        print_json({"requests": waiting})
    elif not waiting:
        click.echo("Nobody waits to be let in.")
    else:
        print_table(("node", "peer", "asked", "invite"), [_row(request) for request in waiting])
        click.echo("\nNames are what they call themselves: compare the peer id with what their `join` shows.")


def _row(request: dict[str, Any]) -> tuple[str, ...]:
    return request["name"], request["peer_id"], clock(request["asked_at"]), request["invite"][:12]


@join.command()
@click.argument("peer")
@pass_home
def approve(home: Home, peer: str) -> None:
    """Let PEER in.

    PEER is a peer id, the end of one, or a name in `join requests`.
    """
    click.echo(f"{_decide(home, peer, approve=True)} may join: its `join` has the answer within seconds")


@join.command()
@click.argument("peer")
@pass_home
def refuse(home: Home, peer: str) -> None:
    """Do not let PEER in.

    It is told so, and its invite is of no more use to it.
    """
    click.echo(f"{_decide(home, peer, approve=False)} is refused")


def _decide(home: Home, peer: str, *, approve: bool) -> Named:
    control = home.node()
    who = find(peer, named(control.get(ROUTE)["requests"]), "join requests")
    control.post(ROUTE, {"peer": who.peer_id, "approve": approve})
    return who


def _text(invite: str) -> str:
    if not invite.startswith("@"):
        return invite
    try:
        return Path(invite[1:]).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Failure(f"cannot read the invite from {invite[1:]}: {error}", "give its text instead") from error
