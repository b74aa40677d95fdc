"""A plan: steps that become units of work, and which of them needs the results of which.

A :class:`Plan` that exists is valid: names are known and unique, nothing waits for itself, and all is within the bounds
below. Pure values; ``document`` has their JSON form, ``run`` says what may run when.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from atmosphere.routing.intent import Intent
from atmosphere.work.plans.references import From, Index, Item, Json, PlanError, Tree, Value, operators

MAX_UNITS = 10_000
"""Units of one plan: each costs a row on disk and about a kilobyte of memory while the plan runs."""
MAX_EDGES = 100_000
"""Pairs of units of which one waits for the other. A thousand units that each collect a thousand would be a million."""
MAX_DEPTH = 1_000
"""Units in a row that wait for each other."""
MAX_IN_FLIGHT = 256
"""Units of one plan that run at once: as many as a node's queue for one capability takes."""
IN_FLIGHT = 64
DEADLINE_S = 600.0
"""For a unit that names none: a model may think for minutes, and nothing waits for ever."""
MAX_DEADLINE_S = 24 * 3600.0
MAX_NAME = 200
ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
INDEX = "[$index]"
_ONE = re.compile(r"([A-Za-z0-9_-]{1,64})\[(\d{1,5})\]")


@dataclass(frozen=True, slots=True)
class Step:
    """What a plan's author writes: one unit, or with *for_each* one unit for each of its elements."""

    id: str
    intent: Intent
    """Its tool, and who may do it."""
    args: Tree = field(default_factory=dict)
    """JSON object with operators in it (``references``)."""
    after: tuple[str, ...] = ()
    """What must have succeeded before, besides what the arguments refer to."""
    for_each: tuple[Json, ...] | None = None
    deadline_s: float | None = None


@dataclass(frozen=True, slots=True)
class PlannedUnit:
    """One unit of a plan, placed in its graph."""

    id: str
    """``search``, or ``embed[3]`` for the fourth element of ``for_each``."""
    step: Step
    index: int | None
    needs: frozenset[str]
    """Units that must have succeeded before this one starts."""
    awaits: frozenset[str]
    """Units that must have ended, well or not."""

    @property
    def item(self) -> Json:
        """The element of ``for_each``; None without one."""
        return None if self.index is None or self.step.for_each is None else self.step.for_each[self.index]


@dataclass(frozen=True)
class Plan:
    """A directed graph of units without a circle. Raises PlanError when it is none, or over a bound."""

    steps: tuple[Step, ...]
    name: str = ""
    values: Mapping[str, Json] = field(default_factory=dict)
    """Named values that arguments may refer to."""
    results: tuple[str, ...] = ()
    """Steps whose results are the plan's; empty: those that nothing refers to."""
    in_flight: int = IN_FLIGHT
    deadline_s: float | None = None
    """For the whole, from when it was given."""
    units: Mapping[str, PlannedUnit] = field(init=False, repr=False, compare=False)
    """By id; each after those it needs."""

    def __post_init__(self) -> None:
        _check_names(self)
        units = _expand(self)
        order = _in_order(units)
        object.__setattr__(self, "units", {unit: units[unit] for unit in order})
        if not self.results:
            used = {name for unit in units.values() for name in (*unit.needs, *unit.awaits)}
            sinks = {unit.step.id for unit in units.values() if unit.id not in used}
            object.__setattr__(self, "results", tuple(step.id for step in self.steps if step.id in sinks))

    def __repr__(self) -> str:
        return f"<Plan {self.name!r} of {len(self.units)} units>"

    def members(self, source: str) -> tuple[str, ...]:
        """The ids of the units that a step or unit id stands for."""
        if source in self.units:
            return (source,)
        step = next(step for step in self.steps if step.id == source)
        return tuple(f"{source}[{index}]" for index in range(len(step.for_each or ())))


def _check_names(plan: Plan) -> None:
    if not plan.steps:
        raise PlanError("a plan needs at least one unit in 'units'")
    if len(plan.name) > MAX_NAME or not plan.name.isprintable():
        raise PlanError(f"the plan's name has up to {MAX_NAME} printable characters")
    if not 1 <= plan.in_flight <= MAX_IN_FLIGHT:
        raise PlanError(f"'in_flight' is a whole number from 1 to {MAX_IN_FLIGHT}")
    _check_deadline(plan.deadline_s, "the plan")
    seen: set[str] = set()
    for step in plan.steps:
        if not ID.fullmatch(step.id):
            raise PlanError(f"unit {step.id[:80]!r}: an id has 1 to 64 letters, digits, - and _")
        if step.id in seen:
            raise PlanError(f"unit {step.id!r}: two units have this id; rename one")
        seen.add(step.id)
        if not step.intent.tool:
            raise PlanError(f"unit {step.id!r}: 'tool' is missing: say what to call, like \"embed\" or \"chat\"")
        if not isinstance(step.args, dict):
            raise PlanError(f"unit {step.id!r}: 'args' must be an object with the tool's arguments")
        if step.args.get("stream") not in (None, False):
            raise PlanError(f"unit {step.id!r}: a unit gives one result and cannot stream; leave 'stream' out")
        if step.for_each is not None and not step.for_each:
            raise PlanError(f"unit {step.id!r}: 'for_each' is empty; give it at least one element")
        _check_deadline(step.deadline_s, f"unit {step.id!r}")
    for result in plan.results:
        if result not in seen:
            raise PlanError(f"'results' names {result[:80]!r}, which is no unit of the plan; {_known(seen)}")


def _check_deadline(seconds: float | None, where: str) -> None:
    if seconds is not None and not 0 < seconds <= MAX_DEADLINE_S:
        raise PlanError(f"{where}: 'deadline_ms' is a number above 0 and up to {MAX_DEADLINE_S * 1000:.0f} (a day)")


def _expand(plan: Plan) -> dict[str, PlannedUnit]:
    steps = {step.id: step for step in plan.steps}
    total = sum(1 if step.for_each is None else len(step.for_each) for step in plan.steps)
    if total > MAX_UNITS:
        raise PlanError(f"the plan has {total} units; {MAX_UNITS} is the maximum: make several plans of it, or give "
                        "each unit more to do (embed takes a list of texts)")
    units: dict[str, PlannedUnit] = {}
    edges = 0
    for step in plan.steps:
        wanted = list(_wanted(plan, step))
        for index in (None,) if step.for_each is None else range(len(step.for_each)):
            unit_id = step.id if index is None else f"{step.id}[{index}]"
            needs: set[str] = set()
            awaits: set[str] = set()
            for source, partial in wanted:
                (awaits if partial else needs).update(_members(steps, source, index, unit_id))
            edges += len(needs) + len(awaits)
            if edges > MAX_EDGES:
                raise PlanError(f"unit {unit_id!r}: with it, units wait for each other in more than {MAX_EDGES} pairs; "
                                f"refer to one unit with {step.id}{INDEX}, or let one unit collect for the others")
            units[unit_id] = PlannedUnit(unit_id, step, index, frozenset(needs), frozenset(awaits - needs))
    return units


def _wanted(plan: Plan, step: Step) -> list[tuple[str, bool]]:
    """What the units of *step* wait for: (source, whether a failed one will do)."""
    wanted = [(source, False) for source in step.after]
    for operator in operators(step.args):
        if isinstance(operator, From):
            wanted += [(source, operator.partial) for source in operator.sources]
        elif isinstance(operator, Item | Index) and step.for_each is None:
            raise PlanError(f"unit {step.id!r}: '$item' and '$index' stand for an element of 'for_each', "
                            "which this unit does not have; add it")
        elif isinstance(operator, Value) and operator.name not in plan.values:
            raise PlanError(f"unit {step.id!r}: '$value' names {operator.name[:80]!r}; the plan's values are: "
                            f"{', '.join(sorted(plan.values)[:20]) or 'none'}")
    return list(dict.fromkeys(wanted))


def _members(steps: Mapping[str, Step], source: str, index: int | None, unit_id: str) -> Sequence[str]:
    """The units that *source* names, seen from the unit *unit_id* at *index*."""
    if source.endswith(INDEX):
        if index is None:
            raise PlanError(f"unit {unit_id!r}: {source!r} is the unit at the same place, but this unit has no "
                            "'for_each'; add it, or name one like [0]")
        source = f"{source.removesuffix(INDEX)}[{index}]"
    one = _ONE.fullmatch(source)
    name = one[1] if one else source
    step = steps.get(name)
    if step is None:
        raise PlanError(f"unit {unit_id!r}: waits for {source[:80]!r}, which is no unit of the plan; {_known(steps)}")
    size = None if step.for_each is None else len(step.for_each)
    if one is None:
        return (source,) if size is None else [f"{source}[{number}]" for number in range(size)]
    if size is None or int(one[2]) >= size or str(int(one[2])) != one[2]:
        there = "is one unit" if size is None else f"has {size} units, [0] to [{size - 1}]"
        raise PlanError(f"unit {unit_id!r}: there is no {source!r}: {name!r} {there}")
    return (source,)


def _in_order(units: Mapping[str, PlannedUnit]) -> list[str]:
    """The ids, each after those it waits for; a circle is named."""
    waiting = {unit.id: len(unit.needs) + len(unit.awaits) for unit in units.values()}
    followers: dict[str, list[str]] = {unit: [] for unit in units}
    for unit in units.values():
        for needed in (*unit.needs, *unit.awaits):
            followers[needed].append(unit.id)
    order = [name for name, count in waiting.items() if count == 0]
    depth = dict.fromkeys(order, 1)
    for before in order:  # grows while it is walked
        for follower in followers[before]:
            waiting[follower] -= 1
            depth[follower] = max(depth.get(follower, 1), depth[before] + 1)
            if waiting[follower] == 0:
                order.append(follower)
    if len(order) < len(units):
        raise PlanError(_circle({name for name, count in waiting.items() if count}, units))
    deepest = max(order, key=depth.__getitem__)
    if depth[deepest] > MAX_DEPTH:
        raise PlanError(f"unit {deepest!r}: stands at the end of {depth[deepest]} units that wait for each other; "
                        f"{MAX_DEPTH} is the maximum: make several plans of it")
    return order


def _circle(stuck: set[str], units: Mapping[str, PlannedUnit]) -> str:
    """Words for one circle: going back from any stuck unit stays among the stuck ones, and so comes round."""
    path: list[str] = []
    unit = min(stuck)
    while unit not in path:
        path.append(unit)
        unit = min((units[unit].needs | units[unit].awaits) & stuck)
    circle = [*path[path.index(unit):], unit]
    shown = " waits for ".join(circle if len(circle) <= 8 else [*circle[:7], "...", unit])
    return f"unit {unit!r}: waits for itself: {shown}; take one of these references out"


def _known(names: Mapping[str, Step] | set[str]) -> str:
    listed = sorted(names)
    return f"its units are {', '.join(listed[:20])}{' ...' if len(listed) > 20 else ''}"
