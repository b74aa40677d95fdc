"""``keys``: API keys of the HTTP interface, which programs on other machines need."""

from __future__ import annotations

import dataclasses
from typing import Any

import click

from atmosphere.cli.home import Failure, Home, pass_home
from atmosphere.cli.options import clock, json_option, print_json, print_table, scopes
from atmosphere.env import SystemEnv

ROUTE = "/v1/admin/keys"
CALLS = ("call:*",)
"""What a key is for unless told otherwise: every call."""


@click.group()
def keys() -> None:
    """API keys: who may use this node over HTTP.

    On this machine no key is needed. Any other address of `run --http` needs one, and then every request does.
    """


@keys.command()
@click.argument("name")
@click.option("--scopes", type=scopes, default=CALLS[0], show_default=True, metavar="SCOPE,...",
              help="What it may call: call:llm/*, call:knowledge/answer, ...")
@json_option
@pass_home
def add(home: Home, name: str, scopes: tuple[str, ...], as_json: bool) -> None:
    """Make a key for NAME and print it. It is not shown again."""
    with home.node_or_lock() as control:
        wanted: dict[str, Any] = {"name": name, "scopes": list(scopes)}
        key = control.post(ROUTE, wanted)["key"] if control else _add(home, name, scopes)
    if as_json:
        print_json({"key": key, "id": key.split("_")[1], **wanted})
        return
    click.echo(key)
    click.echo(f"For {name}; may {', '.join(scopes)}. Clients send it as `Authorization: Bearer`, OpenAI SDKs as "
               "api_key. It is not shown again.", err=True)


@keys.command("list")
@json_option
@pass_home
def list_keys(home: Home, as_json: bool) -> None:
    """List the keys, without their secrets."""
    control = home.running()
    known = control.get(ROUTE)["keys"] if control else _list(home)
    if as_json:
        print_json({"keys": known})
    elif not known:
        click.echo("No API key: HTTP is for this machine only. `atmosphere-p2p keys add NAME` makes one.")
    else:
        print_table(("id", "name", "scopes", "made", "state"), [_row(key) for key in known])


def _row(key: dict[str, Any]) -> tuple[str, ...]:
    ended = key["revoked_at"]
    return (key["id"], key["name"], ", ".join(key["scopes"]), clock(key["created_at"]),
            "in force" if ended is None else f"revoked {clock(ended)}")


@keys.command()
@click.argument("id")
@pass_home
def revoke(home: Home, id: str) -> None:
    """End the key ID: the next request with it is refused."""
    with home.node_or_lock() as control:
        if control:
            control.delete(ROUTE, {"id": id})
        else:
            _revoke(home, id)
    click.echo(f"revoked {id}")


# -- the files ----------------------------------------------------------------------------------------------------


def _add(home: Home, name: str, scopes: tuple[str, ...]) -> str:
    from atmosphere.identity.api_keys import ApiKeyError, ApiKeys

    with home.store() as store:
        try:
            return ApiKeys(store, SystemEnv()).create(name, scopes)
        except ApiKeyError as error:
            raise Failure(str(error)) from error


def _list(home: Home) -> list[dict[str, Any]]:
    if not home.has_store:
        return []
    from atmosphere.identity.api_keys import ApiKeys

    with home.store() as store:
        return [dataclasses.asdict(key) for key in ApiKeys(store, SystemEnv()).list()]


def _revoke(home: Home, key_id: str) -> None:
    from atmosphere.identity.api_keys import ApiKeyError, ApiKeys

    with home.store() as store:
        try:
            ApiKeys(store, SystemEnv()).revoke(key_id)
        except ApiKeyError as error:
            raise Failure(str(error)) from error
