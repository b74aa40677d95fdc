"""``ask``, ``route`` and ``call``: work for the mesh, by hand."""

from __future__ import annotations

from typing import Any

import click

from atmosphere.cli.control import Control, Refused, Route, events
from atmosphere.cli.home import Failure, Home, pass_home
from atmosphere.cli.options import json_object, json_option, print_json, print_table
from atmosphere.cli.plain import plain
from atmosphere.env import SystemEnv

model_option = click.option("--model", metavar="MODEL", help="This model and no other  [default: choose]")
type_option = click.option("--type", "kind", metavar="TYPE", help="Capability type: llm/chat, knowledge/answer, llm/*")


def _constraints(**values: str | None) -> dict[str, Any]:
    chosen = {name: value for name, value in values.items() if value is not None}
    return {"atmosphere": {"constraints": chosen}} if chosen else {}


@click.command()
@click.argument("intent")
@model_option
@type_option
@pass_home
def ask(home: Home, intent: str, model: str | None, kind: str | None) -> None:
    """Ask the mesh INTENT: route it, run it, show where it went."""
    control = home.node()
    began = SystemEnv().monotonic()
    body = {
        "model": model or "auto",
        "messages": [{"role": "user", "content": intent}],
        "stream": True,
        **_constraints(type=kind),
    }
    with control.stream("POST", "/v1/chat/completions", body) as response:
        try:
            for event in events(response):
                for choice in event.get("choices", ()):
                    click.echo(plain(choice.get("delta", {}).get("content") or ""), nl=False)
        finally:
            click.echo()
        route = Route.of(response)
    elapsed_ms = (SystemEnv().monotonic() - began) * 1000
    click.echo(f"-- {_went(control, route)}, {elapsed_ms:.0f} ms ({route.overhead_ms} ms of them overhead)", err=True)


def _went(control: Control, route: Route) -> str:
    """Where the work went: node, way, capability."""
    names = {node["peer_id"]: node["name"] for node in control.get("/v1/admin/status")["nodes"]}
    return plain(f"{names.get(route.peer_id, 'node')} (…{route.peer_id[-8:]}, {route.path}): {route.capability}")


@click.command()
@click.argument("intent")
@model_option
@type_option
@json_option
@pass_home
def route(home: Home, intent: str, model: str | None, kind: str | None, as_json: bool) -> None:
    """Say where INTENT would go and why, without running it."""
    body: dict[str, Any] = {"intent": intent, **_constraints(type=kind)}
    if model:
        body["model"] = model
    decision = home.node().post("/v1/mesh/route", body)
    if as_json:
        print_json(decision)
    else:
        _print_decision(decision)
    if decision["chosen"] is None:
        raise Failure(decision.get("missing") or "no node of the mesh can do this",
                      "see `atmosphere-p2p status` for what the mesh can do")


def _print_decision(decision: dict[str, Any]) -> None:
    rows = [
        (
            f"{number}",
            f"{item['score']:.3f}",
            item["name"],
            item["type"],
            item.get("model") or item["capability"][:12],
            "  ".join(f"{name} {value:.3g}" for name, value in item["factors"].items()),
        )
        for number, item in enumerate(decision["candidates"], 1)
    ]
    if rows:
        print_table(("", "score", "node", "type", "model or card", "factors"), rows)
    for name, count in decision["filtered"].items():
        if count:
            click.echo(f"filtered by {name}: {count}")
    click.echo(f"decided in {decision['ms']:.2f} ms")


@click.command()
@click.argument("capability", metavar="TYPE|CARD")
@click.argument("tool")
@click.option("--args", "arguments", type=json_object, default="{}", metavar="JSON", help="The tool's arguments.")
@click.option("--node", metavar="PEER", help="On this node and no other: its peer id, or its name if that is unique.")
@pass_home
def call(home: Home, capability: str, tool: str, arguments: dict[str, Any], node: str | None) -> None:
    """Call any TOOL of the mesh by hand: by capability type (`system/health`) or card id.

    Prints the result as JSON.
    """
    control = home.node()
    body = {
        ("type" if "/" in capability else "capability"): capability,
        "tool": tool,
        "args": arguments,
        **_constraints(node=_peer(control, node)),
    }
    try:
        result, _ = control.send("/v1/tools/call", body)
    except Refused as error:
        raise Failure(error.message) from error
    print_json(result)


def _peer(control: Control, text: str | None) -> str | None:
    """The peer id that *text* means: itself, the end of one, or a node's name."""
    if text is None:
        return None
    nodes = control.get("/v1/admin/status")["nodes"]
    found = [node["peer_id"] for node in nodes if text in (node["peer_id"], node["name"], node["peer_id"][-8:])]
    if len(found) != 1:
        raise Failure(f"{'several nodes are' if found else 'no node is'} called {text!r}",
                      "take the peer id from `atmosphere-p2p status --json`")
    return str(found[0])
