"""``invite``: a text, and a QR code, that lets others in."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from atmosphere.cli.home import Failure, Home, pass_home
from atmosphere.cli.membership import known_addresses, load_identity
from atmosphere.cli.options import clock, duration, json_option, print_json, scopes
from atmosphere.env import SystemEnv

if TYPE_CHECKING:
    from atmosphere.identity import Invite

image = click.Path(dir_okay=False, writable=True, path_type=Path)


@click.command()
@click.option("--uses", type=click.IntRange(1, 10_000), help="How many nodes it lets in.  [default: 1]")
@click.option("--expires", type=duration, default="1h", show_default=True, metavar="TIME",
              help="When it ends: 30m, 1h, 7d.")
@click.option("--scopes", type=scopes, metavar="SCOPE,...",
              help="What it allows: call:llm/*, serve, ...  [default: call:*,serve]")
@click.option("--approval", is_flag=True, help="Ask here before a node is let in: `join requests`, `join approve`.")
@click.option("--offline", is_flag=True, help="Good without any node in reach, for as many as have a copy: nobody "
              "counts. The membership ends with the invite.")
@click.option("--svg", type=image, metavar="FILE", help="Write the QR code to FILE as well.")
@click.option("--png", type=image, metavar="FILE", help="The same as a PNG image.")
@json_option
@pass_home
def invite(home: Home, uses: int | None, expires: float, scopes: tuple[str, ...] | None, approval: bool, offline: bool,
           svg: Path | None, png: Path | None, as_json: bool) -> None:
    """Print an invite: text, and a QR code in the terminal.

    Whoever has it may join until it is used up or expired. It is not needed again to reconnect.
    """
    if offline and (uses or approval):
        raise click.UsageError("an offline invite asks nobody, so nobody can count its uses or approve: "
                               "leave out --uses and --approval")
    wanted: dict[str, Any] = {"uses": uses or 1, "expires_s": expires}
    wanted |= {"approval": True} if approval else {}
    wanted |= {"offline": True} if offline else {}
    wanted |= {"scopes": list(scopes)} if scopes else {}
    control = home.running()
    made = control.post("/v1/admin/invite", wanted) if control else _from_files(home, **wanted)
    from atmosphere.identity import invite_qr, parse_invite

    parsed = parse_invite(made["invite"])
    if svg:
        _write(svg, "--svg", lambda path: path.write_text(invite_qr.svg(parsed), encoding="utf-8"))
    if png:
        _write(png, "--png", lambda path: invite_qr.png(parsed, path))
    if as_json:
        print_json(made)
        return
    if sys.stdout.isatty():
        click.echo(invite_qr.terminal(parsed))
    click.echo(made["invite"])
    click.echo(f"{_audience(parsed)}, until {clock(made['expires_at'])}. There: atmosphere-p2p join INVITE", err=True)
    if not control and not offline:
        click.echo("The node is not running: start it with `atmosphere-p2p run` before the invite is used.", err=True)


def _audience(invite: Invite) -> str:
    if invite.offline:
        return "For every node that gets a copy"
    who = f"For {invite.uses} node{'s' if invite.uses > 1 else ''}"
    return f"{who}, each to be approved here (`atmosphere-p2p join requests`)" if invite.approval else who


def _from_files(home: Home, *, uses: int, expires_s: float, approval: bool = False, offline: bool = False,
                scopes: list[str] | None = None) -> dict[str, Any]:
    from atmosphere.identity import IdentityError
    from atmosphere.identity.scopes import MEMBER

    identity, env = load_identity(home), SystemEnv()
    addresses = known_addresses(home.config(), identity)
    if not addresses:
        raise Failure("an invite carries this node's addresses, which it has only when it has run",
                      "start it with `atmosphere-p2p run`, then invite")
    try:
        if offline:
            made = identity.create_offline_invite(addresses, env.now(), env.token_bytes, lifetime=expires_s,
                                                  scopes=scopes or MEMBER)
        else:
            made = identity.create_invite(addresses, env.now(), env.token_bytes, lifetime=expires_s, uses=uses,
                                          scopes=scopes or MEMBER, approval=approval)
    except IdentityError as error:
        raise Failure(str(error)) from error
    return {"invite": made.text, "expires_at": made.expires, "uses": made.uses}


def _write(path: Path, option: str, write: Callable[[Path], object]) -> None:
    """Write *path*; a new file can be read by its owner only: an invite is a key."""
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600))
        write(path)
    except OSError as error:
        raise Failure(f"cannot write {path}: {error.strerror}", f"name another file with {option}") from error
