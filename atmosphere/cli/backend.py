"""``backend``: model servers that the owner named; the usual local ports are probed besides."""

from __future__ import annotations

import dataclasses
from typing import Any
from urllib.parse import urlsplit

import click

from atmosphere.cli.home import Failure, Home, pass_home
from atmosphere.cli.options import json_option, print_json, print_table
from atmosphere.config import BackendConfig, Config, save

KINDS = ("openai", "ollama")


def backend_url(text: str) -> str:
    """An http or https base URL, without a trailing slash."""
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise click.BadParameter(f"{text!r} is not a base URL like http://127.0.0.1:8080/v1")
    if parts.username or parts.password:
        raise click.BadParameter("a key in the URL would be written to disk; name its environment variable "
                                 "with --key-env")
    return text.rstrip("/")


@click.group()
def backend() -> None:
    """Model servers that this node offers to the mesh."""


@backend.command()
@click.argument("url", type=backend_url, metavar="URL")
@click.option("--kind", type=click.Choice(KINDS), default="openai", show_default=True)
@click.option("--key-env", metavar="NAME", help="The environment variable that holds the API key (never stored).")
@click.option("--continuation", is_flag=True,
              help="It goes on with an answer whose beginning it is given (vLLM, llama.cpp, Ollama).")
@click.option("--price", type=click.FloatRange(0, 1e6), default=0.0, metavar="UNITS",
              help="What a call costs, in a unit of your own (dollars, say): the mesh prefers what is cheaper.")
@click.option("--label", "labels", multiple=True, metavar="LABEL", help="A fact about it, for constraints: cloud, eu.")
@pass_home
def add(home: Home, url: str, kind: str, key_env: str | None, continuation: bool, price: float,
        labels: tuple[str, ...]) -> None:
    """Add the server at URL (kept in config.yaml)."""
    new = BackendConfig(url, kind, key_env, continuation, round(price * 1e6), labels)
    changed = _with(home.config(), new)
    with home.node_or_lock() as control:
        if control:
            control.post("/v1/admin/backends", dataclasses.asdict(new))
        save(home.path, changed)
    click.echo(f"added {url} ({kind})")


def _with(config: Config, new: BackendConfig) -> Config:
    if any(known.url == new.url for known in config.backends):
        raise Failure(f"{new.url} is a backend of this node already",
                      f"to change it, `atmosphere-p2p backend remove {new.url}` first")
    return dataclasses.replace(config, backends=(*config.backends, new))


@backend.command("list")
@json_option
@pass_home
def list_backends(home: Home, as_json: bool) -> None:
    """List the backends: named ones and found ones."""
    control = home.running()
    views = control.get("/v1/admin/backends")["backends"] if control else _from_config(home.config())
    if as_json:
        print_json({"backends": views})
    elif not views:
        click.echo("No backend named in config.yaml; a running node looks at the usual local ports as well.")
    else:
        print_table(("url", "kind", "source", "state", "models"), [_row(view) for view in views])


def _from_config(config: Config) -> list[dict[str, Any]]:
    """In the form of the running node's answer; whether a server is up, nobody has looked."""
    return [{"url": item.url, "kind": item.kind, "configured": True, "up": None, "models": [],
             "reason": "the node is not running"} for item in config.backends]


def _row(view: dict[str, Any]) -> tuple[str, ...]:
    return (view["url"], view["kind"], "config.yaml" if view["configured"] else "found",
            "up" if view["up"] else view["reason"] or "not looked at yet", ", ".join(view["models"]))


@backend.command()
@click.argument("url", type=backend_url, metavar="URL")
@pass_home
def remove(home: Home, url: str) -> None:
    """Remove the server at URL."""
    changed = _without(home.config(), url)
    with home.node_or_lock() as control:
        if control:
            control.delete("/v1/admin/backends", {"url": url})
        save(home.path, changed)
    click.echo(f"removed {url}")


def _without(config: Config, url: str) -> Config:
    kept = tuple(known for known in config.backends if known.url != url)
    if len(kept) == len(config.backends):
        raise Failure(f"{url} is not in config.yaml", "see `atmosphere-p2p backend list`")
    return dataclasses.replace(config, backends=kept)
