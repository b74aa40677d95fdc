"""``run`` and ``stop``: a node's life."""

from __future__ import annotations

import dataclasses
import os

import click

from atmosphere.cli.home import SOCKET, Failure, Home, pass_home
from atmosphere.cli.lock import wait_until_free
from atmosphere.cli.logs import LEVELS
from atmosphere.config import DEFAULT_HTTP, Config, save

SOCKET_PATH_BYTES = 107
"""Longest path of a Unix socket on Linux (sockaddr_un)."""
AFTER_GRACE_S = 5.0
"""What a node may take to end after the grace period of its work: the goodbye, closing files."""


def multiaddr(text: str) -> str:
    """An address like /ip4/0.0.0.0/tcp/4001."""
    from transports.addresses import parse
    from transports.errors import AddressError

    try:
        return str(parse(text))
    except AddressError as error:
        raise click.BadParameter(str(error)) from None


def peer_multiaddr(text: str) -> str:
    """An address that says whose it is: /ip4/192.168.1.5/tcp/4001/p2p/PEER."""
    from transports.addresses import split_peer
    from transports.errors import AddressError

    try:
        split_peer(text)
    except AddressError as error:
        raise click.BadParameter(str(error)) from None
    return multiaddr(text)


def host_port(text: str) -> str:
    """HOST:PORT."""
    from atmosphere.cli.ports import split_host_port

    try:
        split_host_port(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
    return text


@click.command()
@click.option("--listen", type=multiaddr, multiple=True, metavar="MULTIADDR",
              help="Listen here, for this run; may be repeated  [default: TCP and WebSocket on all interfaces, port in "
                   "config.yaml]")
@click.option("--bootstrap", type=peer_multiaddr, multiple=True, metavar="MULTIADDR",
              help="Connect to this node as well, for this run; may be repeated. Ends in /p2p/PEER.")
@click.option("--http", type=host_port, metavar="HOST:PORT",
              help=f"The OpenAI API  [default: {DEFAULT_HTTP}]. For other machines it needs an API key: `keys add`.")
@click.option("--no-mdns", is_flag=True, help="Do not look for nodes of this mesh on the LAN, nor be found there.")
@click.option("--no-probe", is_flag=True, help="Do not look for model servers on the usual local ports.")
@click.option("--log-level", type=click.Choice(LEVELS), default="warning", show_default=True)
@pass_home
def run(home: Home, listen: tuple[str, ...], bootstrap: tuple[str, ...], http: str | None, no_mdns: bool,
        no_probe: bool, log_level: str) -> None:
    """Run this node until it is stopped.

    On an empty home it creates a mesh first. Ctrl-C or SIGTERM: running work finishes, the mesh is told. A second
    Ctrl-C ends at once.
    """
    from atmosphere.cli.logs import configure

    configure(log_level)
    with home.locked():
        if len(os.fsencode(home.path / SOCKET)) > SOCKET_PATH_BYTES:
            raise Failure(f"the path {home.path / SOCKET} is too long for a socket", "choose a shorter --home")
        from atmosphere.cli.membership import has_mesh, new_mesh
        from atmosphere.identity.home import MEMBERSHIP, MESH

        if not has_mesh(home):
            if (home.path / MEMBERSHIP).exists():
                raise Failure(f"{home.path} has a membership, but {MESH}, which says of which mesh, is missing",
                              "restore it, or `atmosphere-p2p join` again; `init` would make another mesh")
            created = new_mesh(home)
            click.echo(f"New mesh {created.mesh_name}, owned by this node; its keys are in {home.path}")
        config = _keep_port(home) if not listen else home.config()
        config = dataclasses.replace(
            config,
            listen=listen or config.listen,
            bootstrap=tuple(dict.fromkeys((*config.bootstrap, *bootstrap))),
            http=http or config.http,
            mdns=config.mdns and not no_mdns,
            probe=config.probe and not no_probe,
        )
        from atmosphere.cli.daemon import run_node

        run_node(home.path, config)


def _keep_port(home: Home) -> Config:
    """The settings, with the libp2p port in them: chosen at the first start and written down."""
    from atmosphere.cli.ports import choose_port

    config = home.config()
    if config.listen or config.port:
        return config
    try:
        config = dataclasses.replace(config, port=choose_port())
    except OSError as error:
        raise Failure(f"no port to listen on: {error}", "name one with --listen /ip4/0.0.0.0/tcp/PORT") from error
    save(home.path, config)
    return config


@click.command()
@pass_home
def stop(home: Home) -> None:
    """Stop the running node: running work finishes first."""
    control = home.running()
    if control is None:
        click.echo("the node is not running")
        return
    control.post("/v1/admin/stop")
    if not wait_until_free(home.path, home.config().grace_s + AFTER_GRACE_S):
        raise Failure("the node was told to stop and still finishes its work",
                      "see `atmosphere-p2p status`, or press Ctrl-C twice where it runs")
    click.echo("stopped")
