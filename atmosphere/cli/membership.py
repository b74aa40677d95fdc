"""``init``, ``leave``: a home's place in a mesh."""

from __future__ import annotations

import dataclasses
import socket
from typing import TYPE_CHECKING, Any

import click

from atmosphere.cli.home import Failure, Home, pass_home
from atmosphere.cli.lock import wait_until_free
from atmosphere.cli.options import label, yes_option
from atmosphere.config import Config, save
from atmosphere.env import SystemEnv

if TYPE_CHECKING:
    from atmosphere.identity import Identity

NAME_BYTES = 64
"""Of a node's name in UTF-8, as memberships carry it."""
MESH_NAME_BYTES = 32
"""The same of a mesh: it is in every invite, and an invite is a QR code."""
OF_THE_MESH = ("trust", "invites", "join_requests")
"""Tables about the members of a mesh; they mean nothing in the next one. What belongs to the node stays."""
END_S = 15.0
"""What a node that leaves may take: the grace period of its work, the goodbye, closing files."""


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
               f"The keys are in {home.path}. owner.key owns the mesh: "
               "`atmosphere-p2p owner export FILE` makes a copy for a safe place.")


@click.command()
@yes_option
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
        _forget_what_was_heard(home)
        save(home.path, dataclasses.replace(home.config(), bootstrap=()))
    click.echo(f"Left mesh {identity.mesh_name}; its keys are gone.")


# -- the files ----------------------------------------------------------------------------------------------------


def _forget_what_was_heard(home: Home) -> None:
    if home.has_store:
        with home.store() as store:
            store.write_now(lambda connection: [connection.execute(f"DELETE FROM {table}") for table in OF_THE_MESH])


def has_mesh(home: Home) -> bool:
    """Whether this home belongs to a mesh."""
    from atmosphere.identity import Keyring

    return Keyring(home.path).has_mesh


def new_mesh(home: Home, name: str | None = None, mesh: str | None = None) -> Identity:
    """Create keys and a mesh in *home* and keep the node's name. Raises :class:`Failure` where there is one."""
    from atmosphere.identity import HomeError, IdentityError, Keyring

    env = SystemEnv()
    config = home.config()
    name = name or config.name or host_name()
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
    from atmosphere.cli.trust import heard, is_struck

    identity, config, now = load_identity(home), home.config(), SystemEnv().now()
    membership = identity.membership
    return {
        "mesh": {"id": identity.mesh_id, "name": identity.mesh_name},
        "me": {
            "peer_id": str(identity.peer_id),
            "name": config.name or identity.name,
            "addresses": list(known_addresses(config, identity)),
            "membership": {
                "not_after": membership.not_after,
                "expires_in_s": round(membership.not_after - now),
                "renew_at": round(membership.renew_at),
                "renewal": "ok" if now < membership.renew_at else "due",
                "revoked": is_struck(heard(home, identity.mesh), membership),
                "scopes": list(membership.scopes),
                "issuer": str(membership.issuers[-1]) if membership.issuers else None,
                "serial": membership.serial.hex(),
            },
        },
    }


def known_addresses(config: Config, identity: Identity) -> tuple[str, ...]:
    """Where the node will listen, as far as the settings say: a port that is chosen at each start is not known."""
    from transports.addresses import parse
    from transports.interfaces import expand

    listen = config.listen or (f"/ip4/0.0.0.0/tcp/{config.port}",)
    known = [parse(text) for text in listen]
    return tuple(str(dataclasses.replace(address, peer=identity.peer_id))
                 for one in known if one.port for address in expand(one))


def host_name() -> str:
    """What people call this machine, as far as a node's name may be long."""
    return _cut(socket.gethostname() or "node", NAME_BYTES)


def _cut(text: str, limit: int) -> str:
    return text.encode()[:limit].decode(errors="ignore").strip()
