"""``ask``, ``route`` and ``call``: work for the mesh, by hand."""

from __future__ import annotations

from typing import Any

import click

from atmosphere.cli.control import Control, Refused, Route, events
from atmosphere.cli.home import Failure, Home, pass_home
from atmosphere.cli.options import json_object, json_option, print_json, print_table
from atmosphere.cli.plain import plain
from atmosphere.config import PREFERENCES
from atmosphere.env import SystemEnv

model_option = click.option("--model", metavar="MODEL", help="This model and no other  [default: choose]")
type_option = click.option("--type", "kind", metavar="TYPE", help="Capability type: llm/chat, knowledge/answer, llm/*")


def _wishes(prefer: str | None = None, **constraints: str | None) -> dict[str, Any]:
    """The field ``atmosphere`` with what was chosen; nothing where nothing was."""
    chosen = {name: value for name, value in constraints.items() if value is not None}
    wishes: dict[str, Any] = {"constraints": chosen} if chosen else {}
    if prefer is not None:
        wishes["prefer"] = prefer
    return {"atmosphere": wishes} if wishes else {}


LAST_REQUEST = "last-request"
"""In the home folder: the id of what was asked last, for `ask --good`."""


@click.command()
@click.argument("intent", required=False)
@model_option
@type_option
@click.option("--prefer", type=click.Choice(PREFERENCES), help="What counts more among those who can do it.")
@click.option("--good", "verdict", flag_value="good", help="The last answer was good: who gave it is preferred.")
@click.option("--bad", "verdict", flag_value="bad", help="The last answer was bad.")
@click.option("--instead", metavar="CARD", help="With --bad: the id of the card that would have been right.")
@click.option("--request", metavar="ID", help="With --good or --bad: not the last answer but that of this request id.")
@pass_home
def ask(home: Home, intent: str | None, model: str | None, kind: str | None, prefer: str | None, verdict: str | None,
        instead: str | None, request: str | None) -> None:
    """Ask the mesh INTENT: route it, run it, show where it went.

    Afterwards `ask --good` or `ask --bad` says what the answer was like; the router learns where such intents go.
    """
    if instead is not None and verdict != "bad":
        raise click.UsageError("--instead goes with --bad")
    if verdict is not None:
        if intent is not None or model or kind or prefer:
            raise click.UsageError(f"--{verdict} is said after an answer; give it alone, or with --request ID")
        _judge(home, request, verdict == "good", instead)
        return
    if intent is None:
        raise click.UsageError("Missing argument 'INTENT'.")
    if request is not None:
        raise click.UsageError("--request goes with --good or --bad")
    control = home.node()
    began = SystemEnv().monotonic()
    body = {
        "model": model or "auto",
        "messages": [{"role": "user", "content": intent}],
        "stream": True,
        **_wishes(prefer, type=kind),
    }
    with control.stream("POST", "/v1/chat/completions", body) as response:
        try:
            for event in events(response):
                for choice in event.get("choices", ()):
                    click.echo(plain(choice.get("delta", {}).get("content") or ""), nl=False)
        finally:
            click.echo()
        route = Route.of(response)
    if route.request_id:
        (home.path / LAST_REQUEST).write_text(route.request_id + "\n")
    elapsed_ms = (SystemEnv().monotonic() - began) * 1000
    click.echo(f"-- {_went(control, route)}, {elapsed_ms:.0f} ms ({route.overhead_ms} ms of them overhead)", err=True)


def _judge(home: Home, request: str | None, good: bool, instead: str | None) -> None:
    """Tell the node what the answer to *request* was like; without one, to what was asked last.

    *instead*: the card that would have been right.
    """
    if request is None:
        try:
            request = (home.path / LAST_REQUEST).read_text().strip()
        except OSError:
            raise Failure("nothing was asked yet from this home", "name a request with --request ID") from None
    said = home.node().post("/v1/mesh/feedback", {
        "request_id": request, "good": good, **({} if instead is None else {"instead": instead}),
    })
    what = f"{said['model'] or said['capability']} on {said['name']}"
    if said["counted"]:
        click.echo(plain(f"noted: {what} was {said['feedback']}; opinion of it now {said['opinion']:+.2f}"))
    else:
        click.echo(plain(f"{what}: {said['feedback']} had been said before"))
    if said["taught"]:
        click.echo("learnt: where requests like this one go")


def _went(control: Control, route: Route) -> str:
    """Where the work went: node, way, capability."""
    names = {node["peer_id"]: node["name"] for node in control.get("/v1/admin/status")["nodes"]}
    return plain(f"{names.get(route.peer_id, 'node')} (…{route.peer_id[-8:]}, {route.path}): {route.capability}")


@click.command()
@click.argument("intent")
@model_option
@type_option
@click.option("--all", "everything", is_flag=True, help="All candidates, and what stopped each of the others.")
@json_option
@pass_home
def route(home: Home, intent: str, model: str | None, kind: str | None, everything: bool, as_json: bool) -> None:
    """Say where INTENT would go and why, without running it."""
    body: dict[str, Any] = {"intent": intent, **_wishes(type=kind)}
    if everything:
        body["all"] = True
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
    refused = [(item["filter"], item["name"], item["type"], item["model"] or item["capability"][:12])
               for item in decision.get("refused", ())]
    if refused:
        print_table(("stopped by", "node", "type", "model or card"), refused)
    if decision.get("more"):
        click.echo(f"{decision['more']} more could do it as well; --all lists them")
    if decision.get("doubt"):
        click.echo(plain(decision["doubt"]))
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
        **_wishes(node=_peer(control, node)),
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
