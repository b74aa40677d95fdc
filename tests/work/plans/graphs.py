"""Random plans, and a fake of the dispatcher that remembers what it was given."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from typing import Any

import trio
from hypothesis import strategies as st

from atmosphere.capabilities.card import Effects
from atmosphere.routing.intent import Intent
from atmosphere.work.plans import document
from atmosphere.work.plans.plan import Plan
from atmosphere.work.units import Outcome, Unit, UnitResult
from protocols.call import CallError, Code


def plan_of(*units: dict[str, Any], **more: Any) -> Plan:
    return document.parse({"units": list(units), **more})


def unit(name: str, args: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    return {"id": name, "tool": "work", "type": "test/work", "args": {"me": name, **(args or {})}, **more}


@st.composite
def graphs(draw: st.DrawFn) -> Plan:
    """Plans of up to 12 steps, with edges by arguments, by ``after`` and by place, and some with ``for_each``."""
    count = draw(st.integers(1, 12))
    sizes: list[int | None] = [draw(st.none() | st.integers(1, 3)) for _ in range(count)]
    units = []
    for number in range(count):
        before = draw(st.lists(st.integers(0, number - 1), unique=True, max_size=4)) if number else []
        args: dict[str, Any] = {}
        after = []
        for other in before:
            source = f"u{other}"
            kind = draw(st.sampled_from(["from", "after", "partial", "same"]))
            if kind == "same" and sizes[other] is not None and sizes[other] == sizes[number]:
                args[source] = {"$from": f"{source}[$index]"}
            elif kind == "after":
                after.append(source)
            else:
                args[source] = {"$from": [source], "partial": kind == "partial"}
        size = sizes[number]
        more: dict[str, Any] = {} if size is None else {"for_each": list(range(size))}
        if size is not None:
            args["item"] = {"$item": True}
        units.append(unit(f"u{number}", args, after=after, **more))
    return plan_of(*draw(st.permutations(units)), in_flight=draw(st.integers(1, 5)))


class Dispatcher:
    """``run_unit`` for tests: answers ``{"did": ...}`` after *seconds*, or what *behave* says for a unit."""

    def __init__(self, seconds: float = 1.0, behave: Callable[[dict[str, Any]], Any] = lambda args: None) -> None:
        self.seconds = seconds
        self.behave = behave
        self.begun: Counter[str] = Counter()
        self.ended: list[str] = []
        self.units: list[Unit] = []
        self.args: dict[str, Any] = {}
        self.running = self.peak = 0

    async def run_unit(self, given: Unit) -> UnitResult:
        args = json.loads(given.args)
        name = args["me"] if "item" not in args else f"{args['me']}[{args['item']}]"
        self.begun[name] += 1
        self.units.append(given)
        self.args[name] = args
        self.running += 1
        self.peak = max(self.peak, self.running)
        try:
            await trio.sleep(self.seconds)
        finally:
            self.running -= 1
        self.ended.append(name)
        said = self.behave(args)
        if isinstance(said, CallError):
            unknown = said.code is Code.UNKNOWN_OUTCOME
            return UnitResult(0, Outcome.UNKNOWN if unknown else Outcome.FAILED, error=said, node="there")
        result = said if isinstance(said, bytes) else json.dumps({"did": name}).encode()
        return UnitResult(0, Outcome.OK, result, node="there")


class Allowed:
    """Permission for all, with the effects that the test says."""

    def __init__(self, effects: Effects = Effects.NONE) -> None:
        self.effects = effects
        self.refusal: CallError | None = None
        self.notes: list[tuple[str, Any]] = []

    async def judge(self, owner: str, intent: Intent) -> tuple[Intent, Effects]:
        await trio.lowlevel.checkpoint()
        if self.refusal is not None:
            raise self.refusal
        return intent, self.effects

    def note(self, owner: str, intent: Intent, result: UnitResult | CallError) -> None:
        self.notes.append((owner, result))
