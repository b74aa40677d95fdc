"""The arguments of one unit, once all that it waits for has ended. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping

from atmosphere.work.plans.plan import Plan, PlannedUnit
from atmosphere.work.plans.references import Json, PlanError, Several, resolve

MAX_ARGS_BYTES = 8 * 1024 * 1024
"""Arguments of one unit, with the results of others in them."""


def arguments(plan: Plan, unit: PlannedUnit, outputs: Mapping[str, bytes]) -> bytes:
    """The arguments of *unit* as JSON. *outputs*: the results (JSON) of the units that it waits for and that succeeded.

    Raises PlanError for a path that leads nowhere, and over the bound.
    """
    args = json.dumps(resolve(unit.step.args, _UnitScope(plan, unit, outputs)), separators=(",", ":")).encode()
    if len(args) > MAX_ARGS_BYTES:
        raise PlanError(f"its arguments would have {len(args)} bytes; {MAX_ARGS_BYTES} is the maximum: take less "
                        "from the other units with a 'path'")
    return args


class _UnitScope:
    """What the arguments of one unit refer to."""

    def __init__(self, plan: Plan, unit: PlannedUnit, outputs: Mapping[str, bytes]) -> None:
        self.item = unit.item
        self.index = unit.index
        self.values = plan.values
        self._plan = plan
        self._outputs = outputs

    def output(self, source: str) -> Json:
        source = self._here(source)
        members = self._plan.members(source)
        if members == (source,):
            return self._read(source)
        return Several(self._read(member) for member in members)

    def outputs(self, sources: tuple[str, ...], *, partial: bool) -> list[Json]:
        members = [member for source in sources for member in self._plan.members(self._here(source))]
        return [self._read(member) for member in members if not partial or member in self._outputs]

    def _here(self, source: str) -> str:
        return source.replace("$index", str(self.index))

    def _read(self, unit: str) -> Json:
        try:
            return json.loads(self._outputs[unit])
        except (ValueError, RecursionError):
            raise PlanError(f"the result of {unit!r} is not JSON, so nothing can be taken from it") from None
