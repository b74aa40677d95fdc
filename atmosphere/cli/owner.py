"""``owner``: the owner key on its way to a safe place and back."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from atmosphere.cli.home import Failure, Home, pass_home
from atmosphere.cli.membership import load_identity
from atmosphere.cli.options import clock, yes_option
from atmosphere.cli.peers import find
from atmosphere.cli.revoke import reason
from atmosphere.cli.trust import keep_revocation
from atmosphere.env import SystemEnv

VARIABLE = "ATMOSPHERE_PASSPHRASE"


def ask_passphrase(*, twice: bool) -> str:
    """From the environment, for scripts; else from the person, unseen."""
    given = os.environ.get(VARIABLE)
    if given is not None:
        return given
    try:
        return str(click.prompt("Passphrase", hide_input=True, confirmation_prompt=twice))
    except click.Abort:
        if sys.stdin.isatty():
            raise
        raise Failure("the passphrase cannot be asked for without a terminal", f"put it in ${VARIABLE}") from None


def _passphrase(home: Home) -> str | None:
    """What opens the owner key in this home, where it is kept sealed."""
    from atmosphere.identity.home import OWNER_KEY
    from atmosphere.identity.owner_key import is_sealed

    path = home.path / OWNER_KEY
    return ask_passphrase(twice=False) if path.exists() and is_sealed(path.read_bytes()) else None


@click.group()
def owner() -> None:
    """The owner key: whoever has it owns the mesh.

    Daily work does not need it: issuers let nodes in and renew memberships without it. A passphrase protects the
    copy; it is asked for, or taken from ATMOSPHERE_PASSPHRASE. Without it the copy is of no use to anybody.
    """


@owner.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--remove", is_flag=True, help="Then remove it from here: a stolen machine is no stolen mesh.")
@pass_home
def export(home: Home, file: Path, remove: bool) -> None:
    """Write the owner key to FILE, encrypted."""
    from atmosphere.identity import HomeError, IdentityError, Keyring

    identity, keyring = load_identity(home), Keyring(home.path)
    if not keyring.has_owner_key:
        raise Failure(f"the owner key of {identity.mesh_name} is not in {home.path}",
                      "run this where the mesh was made, or bring the key back with `owner import FILE`")
    try:
        taken = file.exists()
    except OSError as error:
        raise Failure(f"that file cannot be written: {error.strerror}", "name another") from error
    if taken:
        raise Failure(f"{file} exists already", "name another file; this one may be the only copy of a key")
    try:
        keyring.export_owner(file, ask_passphrase(twice=True), SystemEnv().token_bytes, remove=remove)
    except (HomeError, IdentityError) as error:
        raise Failure(str(error)) from error
    click.echo(f"The owner key of {identity.mesh_name} is in {file}. Keep it and the passphrase apart, both safe.")
    click.echo(f"{home.path / 'owner.key'} is removed." if remove else
               f"It also stays in {home.path / 'owner.key'}; --remove takes it away.")


@owner.command("import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--sealed", is_flag=True, help="Keep it encrypted here as well: commands that use it ask each time.")
@pass_home
def import_key(home: Home, file: Path, sealed: bool) -> None:
    """Bring the owner key in FILE into this home.

    On a home without a mesh `init` then makes this node one of that owner's mesh.
    """
    from atmosphere.identity import HomeError, IdentityError, Keyring

    try:
        Keyring(home.path).import_owner(file, ask_passphrase(twice=False), keep_sealed=sealed)
    except (HomeError, IdentityError) as error:
        raise Failure(str(error)) from error
    click.echo(f"The owner key is in {home.path / 'owner.key'}.")


@owner.command()
@pass_home
def renew(home: Home) -> None:
    """Make this node an issuer for another year.

    Its membership then rests on the owner key in this home alone, on no other issuer. Needed once a year on the node
    where the mesh was made; other issuers get theirs by `issuer add`. This node must not run meanwhile.
    """
    from atmosphere.identity import HomeError, IdentityError, Keyring

    keyring, env = Keyring(home.path), SystemEnv()
    load_identity(home)
    with home.locked():
        try:
            identity, now = keyring.renew_issuer(env.now(), env.token_bytes, _passphrase(home)), env.now()
            chain = identity.issue_membership(
                identity.peer_id, identity.name, identity.membership.scopes, now, env.token_bytes,
                lifetime=home.config().membership_s)
            keyring.save_membership(identity.with_membership(chain, now))
        except (HomeError, IdentityError) as error:
            raise Failure(str(error)) from error
    assert identity.issuer is not None
    click.echo(f"This node is an issuer until {clock(identity.issuer.not_after)}.")


@owner.command()
@click.argument("peer", metavar="PEER_ID")
@click.option("--issuer", is_flag=True, help="Revoke it as an issuer, with every membership below it.")
@click.option("--reason", type=reason, metavar="TEXT", help="Told to every node.")
@yes_option
@pass_home
def revoke(home: Home, peer: str, issuer: bool, reason: str | None, yes: bool) -> None:
    """Revoke any node or issuer, by the owner key.

    Also one that `revoke` does not reach because it stands as high as this node: for the day on which the machine where
    the mesh was made is stolen. This node must not run meanwhile; it tells the others when it starts.
    """
    from atmosphere.identity import HomeError, IdentityError, Keyring, Target
    from transports.peer_id import PeerId

    identity, who = load_identity(home), find(peer, [], "auth show").peer_id
    words = f"issuer {who} and every membership below it" if issuer else f"node {who}"
    with home.locked():
        if not yes:
            click.confirm(f"Revoke {words} in mesh {identity.mesh_name}, for good?", abort=True)
        try:
            record = Keyring(home.path).revoke_as_owner(
                Target.ISSUER if issuer else Target.PEER, PeerId.parse(who).public_key, SystemEnv().now(), reason or "",
                passphrase=_passphrase(home))
        except (HomeError, IdentityError) as error:
            raise Failure(str(error)) from error
        keep_revocation(home, identity.mesh, record)
    click.echo(f"revoked {words}; `atmosphere-p2p run` tells the others")
