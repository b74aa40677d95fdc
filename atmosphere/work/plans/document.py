"""The JSON form of a plan: what people write into a file, and what is kept on disk.

    {"name": "...", "values": {...}, "units": [{"id": "search", "tool": "search", "type": "knowledge/answer",
     "args": {"query": "..."}}, ...], "results": ["..."], "in_flight": 64, "deadline_ms": 60000}

:func:`parse` and :func:`dump` are each other's inverse; every mistake is a PlanError that names the unit and the fix.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

from atmosphere.routing.intent import Constraints, Intent
from atmosphere.work.plans import references
from atmosphere.work.plans.plan import IN_FLIGHT, Plan, Step
from atmosphere.work.plans.references import Json, PlanError, Value, follow
from transports.peer_id import PeerId

MAX_DOCUMENT_BYTES = 4 * 1024 * 1024
"""A plan as JSON. Larger material belongs into files of the knowledge, or into several plans."""

_CONSTRAINTS = ("node", "card", "labels", "local_only", "max_latency_ms", "space", "min_context_tokens")


def read(data: bytes) -> Plan:
    """The plan in the JSON text *data*. Raises PlanError."""
    if len(data) > MAX_DOCUMENT_BYTES:
        raise PlanError(f"the plan is {len(data)} bytes of JSON; {MAX_DOCUMENT_BYTES} is the maximum: make several "
                        "plans of it, or put the material into the knowledge of a node")
    try:
        value = json.loads(data)
    except ValueError as error:
        raise PlanError(f"the plan is not JSON: {error}") from None
    except RecursionError:
        raise PlanError("the plan is nested too deeply; send flatter JSON") from None
    return parse(value)


def write(plan: Plan) -> bytes:
    """*plan* as JSON text."""
    return json.dumps(dump(plan), ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")


def parse(value: Json) -> Plan:
    """The plan that a JSON value describes. Raises PlanError."""
    fields = _Fields("the plan", value)
    fields.only("name", "values", "units", "results", "in_flight", "deadline_ms")
    values = fields.object("values")
    return Plan(
        steps=tuple(_step(item, number, values) for number, item in enumerate(fields.list("units") or ())),
        name=fields.text("name") or "",
        values=values,
        results=fields.texts("results"),
        in_flight=fields.whole("in_flight", IN_FLIGHT),
        deadline_s=fields.seconds("deadline_ms"),
    )


def dump(plan: Plan) -> Json:
    """The JSON value that :func:`parse` makes *plan* of."""
    return _without_empty({
        "name": plan.name,
        "values": dict(plan.values),
        "units": [_dump_step(step) for step in plan.steps],
        "results": list(plan.results),
        "in_flight": plan.in_flight,
        "deadline_ms": _milliseconds(plan.deadline_s),
    })


def _step(value: Json, number: int, values: Mapping[str, Json]) -> Step:
    step_id = value.get("id") if isinstance(value, dict) else None
    if not isinstance(step_id, str) or not step_id:
        raise PlanError(f"units[{number}] has no 'id'; give it a short name like \"search\"")
    where = f"unit {step_id[:80]!r}"
    fields = _Fields(where, value)
    fields.only("id", "tool", "type", "model", "intent", "inputs", "features", "constraints", "args", "after",
                "for_each", "deadline_ms")
    return Step(
        id=step_id,
        intent=Intent(
            tool=fields.text("tool"),
            text=fields.text("intent") or "",
            model=fields.text("model"),
            inputs=frozenset(fields.texts("inputs")),
            features=frozenset(fields.texts("features")),
            constraints=_constraints(fields, f"{where}: constraints"),
        ),
        args=references.parse(fields.object("args"), where),
        after=fields.texts("after"),
        for_each=_for_each(fields, values),
        deadline_s=fields.seconds("deadline_ms"),
    )


def _for_each(fields: _Fields, values: Mapping[str, Json]) -> tuple[Json, ...] | None:
    value = fields.value("for_each")
    if isinstance(value, dict):
        named = references.parse(value, fields.where)
        if not isinstance(named, Value) or named.name not in values:
            raise PlanError(f"{fields.where}: 'for_each' is a list, or {{\"$value\": NAME}} of one of the plan's "
                            "values; what other units give is not known when the plan is made")
        value = follow(values[named.name], named.path, f"the value {named.name!r}")
    if value is not None and not isinstance(value, list):
        raise PlanError(f"{fields.where}: 'for_each' must be a list; the unit is made once for each of its elements")
    return None if value is None else tuple(value)


def _constraints(unit: _Fields, where: str) -> Constraints:
    fields = _Fields(where, unit.object("constraints"))
    fields.only(*_CONSTRAINTS)
    node = fields.text("node")
    try:
        peer = None if node is None else PeerId.parse(node)
    except ValueError as error:
        raise PlanError(f"{where}: node: {error}; `atmosphere-p2p status --json` has the peer ids") from None
    return Constraints(
        type=unit.text("type"),
        node=peer,
        card=fields.text("card"),
        labels=frozenset(fields.texts("labels")),
        local_only=fields.flag("local_only"),
        max_latency_ms=fields.positive("max_latency_ms"),
        space=fields.text("space"),
        min_context_tokens=fields.whole("min_context_tokens", 0),
    )


def _dump_step(step: Step) -> Json:
    intent, limits = step.intent, step.intent.constraints
    return _without_empty({
        "id": step.id,
        "tool": intent.tool,
        "type": limits.type,
        "model": intent.model,
        "intent": intent.text,
        "inputs": sorted(intent.inputs),
        "features": sorted(intent.features),
        "constraints": _without_empty({
            "node": None if limits.node is None else str(limits.node),
            "card": limits.card,
            "labels": sorted(limits.labels),
            "local_only": limits.local_only,
            "max_latency_ms": limits.max_latency_ms,
            "space": limits.space,
            "min_context_tokens": limits.min_context_tokens,
        }),
        "for_each": None if step.for_each is None else list(step.for_each),
        "args": references.dump(step.args),
        "after": list(step.after),
        "deadline_ms": _milliseconds(step.deadline_s),
    })


def _without_empty(fields: dict[str, Json]) -> dict[str, Json]:
    return {name: value for name, value in fields.items() if value not in (None, "", [], {}, False, 0)}


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else seconds * 1000


class _Fields:
    """Typed access to a JSON object; an error names the object, the field and what it must be."""

    def __init__(self, where: str, value: Json) -> None:
        if not isinstance(value, dict):
            raise PlanError(f"{where} must be a JSON object, not {_kind(value)}")
        self.where = where
        self._fields: dict[str, Json] = value

    def only(self, *names: str) -> None:
        unknown = sorted(set(self._fields) - set(names))
        if unknown:
            raise PlanError(f"{self.where}: unknown field {', '.join(unknown)[:200]}; known are {', '.join(names)}")

    def value(self, name: str) -> Json:
        return self._fields.get(name)

    def text(self, name: str) -> str | None:
        value = self._fields.get(name)
        if value is None or isinstance(value, str):
            return value or None
        raise self._wrong(name, "a text", value)

    def list(self, name: str) -> list[Any] | None:
        value = self._fields.get(name)
        if value is None or isinstance(value, list):
            return value
        raise self._wrong(name, "a list", value)

    def texts(self, name: str) -> tuple[str, ...]:
        value = self.list(name) or []
        if not all(isinstance(item, str) for item in value):
            raise self._wrong(name, "a list of texts", value)
        return tuple(value)

    def object(self, name: str) -> dict[str, Json]:
        value = self._fields.get(name)
        if value is None or isinstance(value, dict):
            return value or {}
        raise self._wrong(name, "an object", value)

    def flag(self, name: str) -> bool:
        value = self._fields.get(name)
        if value is None or isinstance(value, bool):
            return bool(value)
        raise self._wrong(name, "true or false", value)

    def whole(self, name: str, default: int) -> int:
        value = self._fields.get(name)
        if value is None:
            return default
        if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
            return value
        raise self._wrong(name, "a whole number", value)

    def positive(self, name: str) -> float | None:
        value = self._fields.get(name)
        if value is None:
            return None
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= sys.float_info.max:
            return float(value)
        raise self._wrong(name, "a number above 0", value)

    def seconds(self, name: str) -> float | None:
        milliseconds = self.positive(name)
        return None if milliseconds is None else milliseconds / 1000

    def _wrong(self, name: str, expected: str, value: Json) -> PlanError:
        return PlanError(f"{self.where}: '{name}' must be {expected}, not {_kind(value)}")


def _kind(value: Json) -> str:
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, int | float):
        return f"the number {value!r:.40}"
    return "a text" if isinstance(value, str) else "a list" if isinstance(value, list) else "an object"
