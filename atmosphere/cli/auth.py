"""``auth``: what this node may do and why anybody believes it; from its files alone, nobody is asked."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from atmosphere.cli.home import Failure, Home, pass_home
from atmosphere.cli.membership import load_identity
from atmosphere.cli.options import clock, json_option, print_json
from atmosphere.cli.trust import heard, is_struck
from atmosphere.env import SystemEnv

if TYPE_CHECKING:
    from atmosphere.identity import Check, Credential
    from atmosphere.mesh.trust import Trust


@click.group()
def auth() -> None:
    """Memberships: show this node's, verify any. Offline."""


@auth.command()
@json_option
@pass_home
def show(home: Home, as_json: bool) -> None:
    """Show what this node is in its mesh: membership, scopes, lifetime, who vouches for it."""
    from atmosphere.identity import Keyring

    identity = load_identity(home)
    membership, issuer = identity.membership, identity.issuer
    owner_key = Keyring(home.path).has_owner_key
    revoked = is_struck(heard(home, identity.mesh), membership)
    if as_json:
        print_json({
            "mesh": {"id": identity.mesh_id, "name": identity.mesh_name},
            "peer_id": str(identity.peer_id),
            "membership": {**_describe(membership), "renew_at": membership.renew_at},
            "issuer": _describe(issuer) if issuer else None,
            "owner_key": owner_key,
            "revoked": revoked,
        })
        return
    click.echo(f"Mesh     {identity.mesh_name}  {identity.mesh_id}")
    click.echo(f"Node     {membership.name}  {identity.peer_id}{'  REVOKED' if revoked else ''}")
    _print("Member", membership)
    click.echo(f"{'':9}renewed from {clock(membership.renew_at)} on, by any issuer in reach")
    if issuer:
        _print("Issuer", issuer)
    click.echo(f"Owner    the owner key is {'' if owner_key else 'not '}in this home")


def _describe(credential: Credential) -> dict[str, Any]:
    return {"serial": credential.serial.hex(), "name": credential.name, "scopes": list(credential.scopes),
            "not_before": credential.not_before, "not_after": credential.not_after,
            "issuers": [str(peer) for peer in credential.issuers]}


def _print(title: str, credential: Credential) -> None:
    click.echo(f"{title:9}from {clock(credential.not_before)} until {clock(credential.not_after)}, "
               f"scopes {', '.join(credential.scopes)}")
    click.echo(f"{'':9}serial {credential.serial.hex()}")
    click.echo(f"{'':9}by {' > '.join(('the owner', *map(str, credential.issuers)))}")


@auth.command()
@click.argument("file", type=click.File("rb"), required=False)
@click.option("--mesh", metavar="MESH_ID", help="The mesh it should belong to  [default: this home's]")
@json_option
@pass_home
def verify(home: Home, file: BinaryIO | None, mesh: str | None, as_json: bool) -> None:
    """Verify this node's membership, or the chain in FILE (- for standard input), and say all that was checked.

    Nobody is asked: what the answer rests on is the mesh's public key, this machine's clock, and the revocations that
    this node has heard of. Exit status 1 when a check fails.
    """
    from atmosphere.identity import Check, explain_chain, open_chain
    from atmosphere.identity.chain import MAX_CHAIN_BYTES

    key = _mesh_key(home, mesh)
    now = SystemEnv().now()
    trust = heard(home, key)
    try:
        chain = file.read(MAX_CHAIN_BYTES + 1) if file else load_identity(home).chain  # of another key: does not load
    except OSError as error:
        raise Failure(f"the file cannot be read: {error.strerror}") from error
    checks = explain_chain(chain, key, now, trust.revocations)
    if all(check.ok for check in checks):
        checks.append(_check_invite(open_chain(chain, key), trust))
        if not file:
            checks.append(Check("bearer", True, "the node key in this home is the one that it names"))
    valid = all(check.ok for check in checks)
    if as_json:
        print_json({"valid": valid, "at": now, "revocations": len(trust.revocations),
                    "checks": [dataclasses.asdict(check) for check in checks]})
    else:
        for check in checks:
            click.echo(f"{'ok' if check.ok else 'FAILED':8}{check.what}: {check.detail}")
        click.echo("valid" if valid else "not valid")
        if valid and file:
            click.echo("Whoever shows it must also prove to have its key: a connection does that, a file cannot.")
    if not valid:
        raise SystemExit(1)


def _check_invite(credential: Credential, trust: Trust) -> Check:
    from atmosphere.identity import Check, Reason

    if trust.redemptions.lost(credential.peer):
        return Check("invite", False, "other keys used its invite up, in a part of the mesh that could not be seen: "
                     "join again with a new invite", Reason.USED_UP)
    return Check("invite", True, f"no other key used its invite up, by the {len(trust.redemptions)} uses known here")


def _mesh_key(home: Home, mesh: str | None) -> bytes:
    if mesh is None:
        return load_identity(home).mesh
    from transports.peer_id import PeerId

    try:
        return PeerId.parse(mesh).public_key
    except ValueError as error:
        raise Failure(f"{mesh!r} is not a mesh id: {error}", "`atmosphere-p2p status` prints it") from None
