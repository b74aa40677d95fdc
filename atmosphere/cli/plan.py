"""``plan``: graphs of work for the mesh, run by this node and kept until they are done."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from atmosphere.cli.control import Control, Refused
from atmosphere.cli.home import Failure, Home, pass_home
from atmosphere.cli.options import clock, json_option, plan_name, print_json, print_table
from atmosphere.cli.plain import plain, plain_json

WAIT_MS = 10_000
"""One question for news; the node answers earlier when there are some."""
BAR = 40
"""Characters of the timeline."""
PLAN_MAX_BYTES = 16 * 1024 * 1024
"""More is not read; the node takes 4 MiB and says so."""


@click.group()
def plan() -> None:
    """Plans: many units of work, some of which use the results of others.

    A plan goes on when this command ends, and after a restart of the node.
    """


@plan.command()
@click.argument("file", type=click.Path(allow_dash=True, path_type=Path))
@click.option("--no-wait", is_flag=True, help="Print the plan's id and return at once.")
@json_option
@pass_home
def run(home: Home, file: Path, no_wait: bool, as_json: bool) -> None:
    """Run the plan in FILE (JSON; - for standard input) and show its timeline and results."""
    document = _read(file)
    control = home.node()
    try:
        plan_id = str(control.post("/v1/plans", document)["id"])
    except Refused as error:
        raise Failure(error.message) from error
    if no_wait:
        print_json({"id": plan_id}) if as_json else click.echo(plan_id)
        return
    click.echo(f"plan {plan_id} of {_count(document)} began; it goes on without this command", err=True)
    try:
        view = _watch(control, plan_id)
    except KeyboardInterrupt:
        raise Failure(f"plan {plan_id} goes on",
                      f"`atmosphere-p2p plan show {plan_id}` shows how far it is, `plan cancel` ends it") from None
    _show(view, as_json)


@plan.command()
@click.argument("plan_id", type=plan_name, metavar="ID")
@click.option("--unit", type=plan_name, metavar="UNIT", help="Print the record and the result of this unit as JSON.")
@json_option
@pass_home
def show(home: Home, plan_id: str, unit: str | None, as_json: bool) -> None:
    """Show how far a plan is, its timeline and, once it is over, its results."""
    control = home.node()
    path = f"/v1/plans/{plan_id}"
    if unit is not None:
        print_json(control.get(f"{path}/units/{unit}"))
        return
    view = control.get(path)
    if as_json:
        print_json(view)
    else:
        _print(view)


@plan.command("list")
@json_option
@pass_home
def list_plans(home: Home, as_json: bool) -> None:
    """List the plans of this node, the newest first."""
    plans = home.node().get("/v1/plans")["plans"]
    if as_json:
        print_json({"plans": plans})
    elif not plans:
        click.echo("No plans yet: `atmosphere-p2p plan run FILE`.")
    else:
        print_table(("id", "began", "state", "units", "name"),
                    [(item["id"], clock(item["created_at"]), item["state"], str(item["units"]), item["name"])
                     for item in plans])


@plan.command()
@click.argument("plan_id", type=plan_name, metavar="ID")
@pass_home
def cancel(home: Home, plan_id: str) -> None:
    """End a plan and its running units, wherever they run. What is done stays to be looked at."""
    ended = home.node().delete(f"/v1/plans/{plan_id}", None)
    click.echo(f"plan {ended['id']} is {ended['state']}")


@plan.command()
@click.argument("plan_id", type=plan_name, metavar="ID")
@pass_home
def delete(home: Home, plan_id: str) -> None:
    """Remove a plan with its results; one that runs is cancelled first."""
    home.node().delete(f"/v1/plans/{plan_id}?forget=yes", None)
    click.echo(f"plan {plain(plan_id)} is removed")


def _read(file: Path) -> Any:
    try:
        with click.open_file(str(file), encoding="utf-8") as source:
            text = source.read(PLAN_MAX_BYTES + 1)
    except (OSError, UnicodeDecodeError) as error:
        raise Failure(f"{file} cannot be read: {error}") from error
    if len(text) > PLAN_MAX_BYTES:
        raise Failure(f"{file} is larger than {PLAN_MAX_BYTES} characters", "make several plans of it")
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Failure(f"{file} is not JSON: {error}", "docs/plans.md shows what a plan looks like") from error


def _count(document: Any) -> str:
    units = document.get("units") if isinstance(document, dict) else None
    return f"{len(units)} steps" if isinstance(units, list) else "unknown size"


def _watch(control: Control, plan_id: str) -> dict[str, Any]:
    """The plan once it is over; on a terminal with a line that says how far it is."""
    version, live = 0, sys.stderr.isatty()
    while True:
        view: dict[str, Any] = control.get(f"/v1/plans/{plan_id}?records=no&wait_ms={WAIT_MS}&version={version}")
        if live:
            counts = ", ".join(f"{count} {state}" for state, count in view["counts"].items())
            click.echo(f"\r\x1b[K{counts} of {view['units']}", nl=False, err=True)
        if view["state"] != "running":
            if live:
                click.echo("\r\x1b[K", nl=False, err=True)
            whole: dict[str, Any] = control.get(f"/v1/plans/{plan_id}")
            return whole
        version = view["version"]


def _show(view: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(view)
    else:
        _print(view)
    if view["state"] != "ok":
        raise Failure(view["reason"] or f"plan {view['id']}: not every unit succeeded",
                      "put right what the units say and run it again")


def _print(view: dict[str, Any]) -> None:
    records = view["records"]
    ends = [record["began_ms"] + record["ms"] for record in records if record["began_ms"] is not None]
    whole = max(ends, default=0.0) or 1.0
    print_table(("unit", "state", "node", "from ms", "for ms", ""), [_row(record, whole) for record in records])
    counts = ", ".join(f"{count} {state}" for state, count in view["counts"].items())
    worked = sum(record["ms"] or 0 for record in records)
    click.echo(f"plan {view['id']} is {view['state']}: {counts}; {whole:.0f} ms, units together {worked:.0f} ms")
    for record in records:
        if record["error"] and record["state"] != "skipped":
            click.echo(f"  {plain(record['error']['message'])}", err=True)
    for step, result in (view.get("results") or {}).items():
        text = _answer(result)
        shown = plain(text) if text is not None else plain_json(json.dumps(result, indent=2, ensure_ascii=False))
        click.echo(f"\n{step}:\n{shown}")


def _row(record: dict[str, Any], whole: float) -> tuple[str, ...]:
    began, took = record["began_ms"], record["ms"]
    if began is None:
        return (record["id"], record["state"], record["node"], "", "", "")
    start = min(BAR - 1, int(began / whole * BAR))
    bar = " " * start + "█" * max(1, min(BAR - start, round(took / whole * BAR)))
    return (record["id"], record["state"], record["node"], f"{began:.0f}", f"{took:.0f}", bar)


def _answer(result: Any) -> str | None:
    """The text of a chat completion; None for any other result."""
    try:
        content = result["choices"][0]["message"]["content"]
    except (KeyError, IndexError, TypeError):
        return None
    return content if isinstance(content, str) else None
