"""``init``, ``invite``, ``join``, ``leave``: a home's place in a mesh."""

from __future__ import annotations

import dataclasses
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from atmosphere.cli.home import Failure, Home, pass_home
from atmosphere.cli.lock import wait_until_free
from atmosphere.cli.options import duration, json_option, print_json
from atmosphere.config import Config, save
from atmosphere.env import SystemEnv

if TYPE_CHECKING:
    from atmosphere.identity import Identity

NAME_BYTES = 64
"""Of a node's name in UTF-8, as memberships carry it."""
MESH_NAME_BYTES = 32
"""The same of a mesh: it is in every invite, and an invite is a QR code."""
END_S = 15.0
"""What a node that leaves may take: the grace period of its work, the goodbye, closing files."""


def label(limit: int, text: str) -> str:
    """A name for people: printable, at most *limit* bytes."""
    text = text.strip()
    if not text or not text.isprintable() or len(text.encode()) > limit:
        raise click.BadParameter(f"a name has 1 to {limit} bytes, all printable")
    return text


def node_name(text: str) -> str:
    return label(NAME_BYTES, text)


def mesh_name(text: str) -> str:
    return label(MESH_NAME_BYTES, text)


name_option = click.option("--name", type=node_name, metavar="NAME",
                           help="What people call this node  [default: the host's name]")


@click.command()
@name_option
@click.option("--mesh", type=mesh_name, metavar="NAME", help="What people call the mesh  [default: the node's name]")
@pass_home
def init(home: Home, name: str | None, mesh: str | None) -> None:
    """Make a new mesh: owner key, node key, membership.

    Not needed before `run`, which does the same on an empty home. Refuses to overwrite.
    """
    with home.locked():
        identity = new_mesh(home, name, mesh)
    click.echo(f"Mesh {identity.mesh_name}  {identity.mesh_id}\nNode {identity.name}  {identity.peer_id}\n"
               f"The keys are in {home.path}. owner.key owns the mesh: copy it to a safe place.")


@click.command()
@click.option("--uses", type=click.IntRange(1, 10_000), default=1, show_default=True, help="How many nodes it lets in.")
@click.option("--expires", type=duration, default="1h", show_default=True, metavar="TIME",
              help="When it ends: 30m, 1h, 7d.")
@click.option("--svg", type=click.Path(dir_okay=False, writable=True, path_type=Path), metavar="FILE",
              help="Write the QR code to FILE as well.")
@json_option
@pass_home
def invite(home: Home, uses: int, expires: float, svg: Path | None, as_json: bool) -> None:
    """Print an invite: text, and a QR code in the terminal.

    Whoever has it may join until it is used up or expired. It is not needed again to reconnect.
    """
    from atmosphere.identity import invite_qr, parse_invite

    control = home.running()
    made = control.post("/v1/admin/invite", {"uses": uses, "expires_s": expires}) if control else _invite_from_files(
        home, uses, expires)
    parsed = parse_invite(made["invite"])
    if svg:
        try:
            svg.write_text(invite_qr.svg(parsed), encoding="utf-8")
        except OSError as error:
            raise Failure(f"cannot write {svg}: {error.strerror}", "name another file with --svg") from error
    if as_json:
        print_json(made)
        return
    if sys.stdout.isatty():
        click.echo(invite_qr.terminal(parsed))
    click.echo(made["invite"])
    click.echo(f"For {uses} node{'s' if uses > 1 else ''}, until {_clock(made['expires_at'])}. "
               "There: atmosphere-p2p join INVITE", err=True)
    if not control:
        click.echo("The node is not running: start it with `atmosphere-p2p run` before the invite is used.", err=True)


@click.command()
@click.argument("invite", metavar="INVITE|@FILE")
@name_option
@pass_home
def join(home: Home, invite: str, name: str | None) -> None:
    """Make this node a member of the mesh that INVITE is for.

    INVITE is the text of an invite, or @FILE for a file that holds it.
    """
    from atmosphere.identity import IdentityError, Keyring, parse_invite

    with home.locked():
        if Keyring(home.path).has_mesh:
            raise Failure(f"{home.path} belongs to a mesh already",
                          "`atmosphere-p2p leave` forgets that one, or choose another --home")
        config = home.config()
        name = name or config.name or _host_name()
        try:
            parsed = parse_invite(_text(invite))
        except IdentityError as error:
            raise Failure(str(error)) from error
        from atmosphere.cli.enrol import enrol

        identity = enrol(home.path, parsed, name)
        save(home.path, dataclasses.replace(
            config, name=name, bootstrap=tuple(dict.fromkeys((*config.bootstrap, *parsed.addresses)))))
    click.echo(f"Joined mesh {identity.mesh_name}  {identity.mesh_id}\nas node   {name}  {identity.peer_id}\n"
               "Start it with `atmosphere-p2p run`.")


@click.command()
@click.option("--yes", is_flag=True, help="Do not ask.")
@pass_home
def leave(home: Home, yes: bool) -> None:
    """Leave the mesh and forget its keys."""
    from atmosphere.identity import Keyring

    identity = load_identity(home)
    keyring = Keyring(home.path)
    control = home.running()
    if not yes:
        if keyring.has_owner_key:
            click.echo(f"This home holds the owner key of {identity.mesh_name}. Without a copy of "
                       f"{home.path / 'owner.key'} nobody can ever be appointed in that mesh again.")
        if not control:
            click.echo("The node is not running, so the others are not told; they see it go offline.")
        click.confirm(f"Leave mesh {identity.mesh_name} and forget its keys?", abort=True)
    if control:
        control.post("/v1/admin/leave")
        if not wait_until_free(home.path, home.config().grace_s + END_S):
            raise Failure("the node has left and still finishes its work", "its keys are gone when it ends")
    with home.locked():
        keyring.forget()
        save(home.path, dataclasses.replace(home.config(), bootstrap=()))
    click.echo(f"Left mesh {identity.mesh_name}; its keys are gone.")


# -- the files ----------------------------------------------------------------------------------------------------


def has_mesh(home: Home) -> bool:
    """Whether this home belongs to a mesh."""
    from atmosphere.identity import Keyring

    return Keyring(home.path).has_mesh


def new_mesh(home: Home, name: str | None = None, mesh: str | None = None) -> Identity:
    """Create keys and a mesh in *home* and keep the node's name. Raises :class:`Failure` where there is one."""
    from atmosphere.identity import HomeError, IdentityError, Keyring

    env = SystemEnv()
    config = home.config()
    name = name or config.name or _host_name()
    try:
        identity = Keyring(home.path).init(name, mesh or _cut(name, MESH_NAME_BYTES), env.now(), env.token_bytes)
    except (HomeError, IdentityError) as error:
        raise Failure(str(error)) from error
    save(home.path, dataclasses.replace(config, name=name))
    return identity


def load_identity(home: Home) -> Identity:
    """Who this home is. Raises :class:`Failure`, which says how to begin where there is no mesh."""
    from atmosphere.identity import HomeError, IdentityError, Keyring

    keyring = Keyring(home.path)
    if not keyring.has_mesh:
        raise Failure(f"{home.path} belongs to no mesh yet",
                      "`atmosphere-p2p run` makes one; `atmosphere-p2p join INVITE` joins one")
    try:
        return keyring.load()
    except (HomeError, IdentityError) as error:
        raise Failure(str(error)) from error


def describe(home: Home) -> dict[str, Any]:
    """What the files know, in the form of ``status --json``."""
    identity, config = load_identity(home), home.config()
    membership = identity.membership
    return {
        "mesh": {"id": identity.mesh_id, "name": identity.mesh_name},
        "me": {
            "peer_id": str(identity.peer_id),
            "name": config.name or identity.name,
            "addresses": list(_addresses(config, identity)),
            "membership": {
                "not_after": membership.not_after,
                "scopes": list(membership.scopes),
                "issuer": str(membership.issuers[-1]) if membership.issuers else None,
            },
        },
    }


def _addresses(config: Config, identity: Identity) -> tuple[str, ...]:
    """Where the node will listen, as far as the settings say: a port that is chosen at each start is not known."""
    from transports.addresses import parse
    from transports.interfaces import expand

    listen = config.listen or (f"/ip4/0.0.0.0/tcp/{config.port}",)
    known = [parse(text) for text in listen]
    return tuple(str(dataclasses.replace(address, peer=identity.peer_id))
                 for one in known if one.port for address in expand(one))


def _invite_from_files(home: Home, uses: int, expires: float) -> dict[str, Any]:
    from atmosphere.identity import IdentityError

    identity, env = load_identity(home), SystemEnv()
    addresses = _addresses(home.config(), identity)
    if not addresses:
        raise Failure("an invite carries this node's addresses, which it has only when it has run",
                      "start it with `atmosphere-p2p run`, then invite")
    try:
        made = identity.create_invite(addresses, env.now(), env.token_bytes, lifetime=expires, uses=uses)
    except IdentityError as error:
        raise Failure(str(error)) from error
    return {"invite": made.text, "expires_at": made.expires, "uses": made.uses}


def _text(invite: str) -> str:
    if not invite.startswith("@"):
        return invite
    try:
        return Path(invite[1:]).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Failure(f"cannot read the invite from {invite[1:]}: {error}", "give its text instead") from error


def _host_name() -> str:
    return _cut(socket.gethostname() or "node", NAME_BYTES)


def _cut(text: str, limit: int) -> str:
    return text.encode()[:limit].decode(errors="ignore").strip()


def _clock(seconds: float) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(seconds, UTC).astimezone().strftime("%Y-%m-%d %H:%M")
