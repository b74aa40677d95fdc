"""Plans over HTTP: give one, look how far it is, cancel, forget.

An API key sees its own plans and no others, and its scopes apply to every unit at the moment the unit runs. Without a
key one sees the plans that were given without one; on the control socket all, whoever gave them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import trio
from quart import Blueprint, Response, request

from atmosphere.http.errors import HttpError, failure, invalid
from atmosphere.http.port import HttpNode
from atmosphere.http.requests import Body, only
from atmosphere.http.routes import answer, read_object
from atmosphere.identity.api_keys import ApiKey
from atmosphere.work.plans import document
from atmosphere.work.plans.journal import Entry
from atmosphere.work.plans.references import PlanError
from atmosphere.work.plans.run import PlanState, Record
from atmosphere.work.plans.runner import PlanView
from protocols.call.errors import CallError

KEY = "atmosphere.key"
"""Where the application puts the API key of a request, in the ASGI scope."""
MAX_WAIT_MS = 20_000
"""How long a request may wait for news; then it asks again."""


@dataclass(frozen=True, slots=True)
class _Asker:
    """Whose plans a request is about."""

    owner: str
    """What it gives belongs to."""
    sees: str | None
    """Whose it sees; None: all."""


def create(node: HttpNode, *, sees_all: bool) -> Blueprint:
    """The blueprint for *node*. *sees_all*: on the control socket."""
    blueprint = Blueprint("plans", __name__, url_prefix="/v1/plans")

    def asker() -> _Asker:
        key = cast("ApiKey | None", request.scope.get(KEY))
        owner = "" if key is None else key.id
        return _Asker(owner, None if sees_all and key is None else owner)

    @blueprint.errorhandler(CallError)
    async def failed(error: CallError) -> Response:
        told = failure(error)
        response = Response(told.body, status=told.status, content_type="application/json")
        for name, value in told.headers:
            response.headers[name.decode()] = value.decode()
        return response

    @blueprint.post("")
    async def submit() -> Response:
        body = await read_object()
        try:
            plan = await node.env.run_blocking(lambda: document.parse(body))
        except PlanError as error:
            raise invalid(str(error), "units") from error
        plan_id = await node.plans.submit(plan, asker().owner)
        return answer({"id": plan_id, "state": PlanState.RUNNING, "units": len(plan.units)}, 202)

    @blueprint.get("")
    async def entries() -> Response:
        only(dict(request.args))
        return answer({"plans": [_entry(entry) for entry in await node.plans.entries(asker().sees)]})

    @blueprint.get("/<plan>")
    async def show(plan: str) -> Response:
        asked = dict(request.args)
        only(asked, "wait_ms", "version", "records")
        wait_ms, version = _number(asked, "wait_ms", MAX_WAIT_MS), _number(asked, "version", 10**9)
        who = asker()
        view = await node.plans.view(plan, who.sees)
        if view.entry.state is PlanState.RUNNING and wait_ms:
            with trio.move_on_after(wait_ms / 1000):
                await node.plans.news(plan, version)
            view = await node.plans.view(plan, who.sees)
        if asked.get("records") == "no":
            return answer(_brief(view))
        results = await _results(node, view)
        return await node.env.run_blocking(lambda: answer(_whole(view, results)))  # megabytes of JSON, it may be

    @blueprint.get("/<plan>/units/<unit>")
    async def show_unit(plan: str, unit: str) -> Response:
        view = await node.plans.view(plan, asker().sees)
        record = next((record for record in view.records if record.unit == unit), None)
        if record is None:
            raise HttpError(404, f"the plan has no unit {unit[:80]!r}; GET /v1/plans/{plan} lists them",
                            "unit_not_found", "unit")
        found = await node.plans.results(plan, [unit])
        return await node.env.run_blocking(
            lambda: answer(_record(record, view.entry) | {"result": _json(found.get(unit))}))

    @blueprint.delete("/<plan>")
    async def end(plan: str) -> Response:
        asked = dict(request.args)
        only(asked, "forget")
        who = asker()
        if asked.get("forget") == "yes":
            await node.plans.forget(plan, who.sees)
            return answer({"id": plan, "forgotten": True})
        await node.plans.cancel(plan, who.sees)
        return answer(_entry((await node.plans.view(plan, who.sees)).entry))

    return blueprint


def _brief(view: PlanView) -> Body:
    return _entry(view.entry) | {"version": view.version, "counts": view.counts}


def _whole(view: PlanView, results: Mapping[str, bytes] | None) -> Body:
    """With a record of every unit and, of a plan that is over, the results that it is for: of a step with ``for_each``
    a list, with null for what failed."""
    shown = _brief(view) | {"records": [_record(record, view.entry) for record in view.records]}
    if view.plan is not None and results is not None:
        shown["results"] = {}
        for step in view.plan.results:
            members = view.plan.members(step)
            values = [_json(results.get(member)) for member in members]
            shown["results"][step] = values[0] if members == (step,) else values
    return shown


async def _results(node: HttpNode, view: PlanView) -> Mapping[str, bytes] | None:
    """What the plan is for; None while it runs."""
    if view.plan is None or view.entry.state is PlanState.RUNNING:
        return None
    units = [member for step in view.plan.results for member in view.plan.members(step)]
    return await node.plans.results(view.entry.id, units)


def _entry(entry: Entry) -> Body:
    return {"id": entry.id, "name": entry.name, "state": entry.state, "reason": entry.reason, "units": entry.units,
            "created_at": entry.created_at, "ended_at": entry.ended_at}


def _record(record: Record, entry: Entry) -> Body:
    """One line of the timeline: milliseconds from when the plan was given."""
    began = max(0.0, record.began_at - entry.created_at) * 1000 if record.began_at else None
    error = {"code": record.code, "message": record.message} if record.message else None
    return {"id": record.unit, "state": record.state, "node": record.node,
            "began_ms": None if began is None else round(began, 1),
            "ms": None if began is None else round(record.seconds * 1000, 1),
            "attempts": record.attempts, "error": error}


def _json(result: bytes | None) -> Any:
    """A result as JSON; one that is none as text."""
    if result is None:
        return None
    try:
        return json.loads(result)
    except (ValueError, RecursionError):
        return result.decode(errors="replace")


def _number(asked: dict[str, str], name: str, most: int) -> int:
    text = asked.get(name, "0")
    if not text.isdecimal() or len(text) > 10 or int(text) > most:
        raise invalid(f"'{name}' must be a whole number up to {most}", name)
    return int(text)
