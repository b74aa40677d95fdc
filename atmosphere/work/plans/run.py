"""What of a plan may run now, and what became of the rest: a state machine without time, tasks or disk.

The shell takes units that are ready with :meth:`Run.take`, runs them and reports each with :meth:`Run.finish`. Every
unit is taken at most once; a unit is ready only when all that it needs has succeeded. The records of an earlier run put
it where that one stopped (:meth:`Run.restore`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from atmosphere.work.plans.plan import Plan, PlannedUnit

MAX_RESULT_BYTES = 4 * 1024 * 1024
"""One unit's result: more is a file, and does not belong into a plan."""
MAX_RESULTS_BYTES = 32 * 1024 * 1024
"""All results of one plan: they are held in memory while the plan runs and kept on disk."""


class State(StrEnum):
    """Of a unit."""

    WAITING = "waiting"
    RUNNING = "running"
    OK = "ok"
    FAILED = "failed"
    UNKNOWN = "unknown"      # a tool that must not run twice was sent, and what became of it is not known
    SKIPPED = "skipped"      # something that it needs did not succeed
    CANCELLED = "cancelled"


OVER = frozenset({State.OK, State.FAILED, State.UNKNOWN, State.SKIPPED, State.CANCELLED})


class PlanState(StrEnum):
    """Of a plan."""

    RUNNING = "running"
    OK = "ok"                # every unit succeeded
    FAILED = "failed"        # all that could run has run; not every unit succeeded
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class Record:
    """How one unit ended."""

    unit: str
    state: State
    result: bytes = b""
    """JSON."""
    code: str = ""
    message: str = ""
    """Why it did not succeed: cause and next step."""
    node: str = ""
    """Name of the node that did it."""
    attempts: int = 0
    """Nodes that were tried in vain before."""
    began_at: float = 0.0
    """Unix seconds; 0: it never began."""
    seconds: float = 0.0


class Run:
    """One run of *plan*."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.states: dict[str, State] = dict.fromkeys(plan.units, State.WAITING)
        self.result_bytes = 0
        """Of all results so far."""
        self._left = {unit.id: len(unit.needs) + len(unit.awaits) for unit in plan.units.values()}
        self._followers: dict[str, list[PlannedUnit]] = {unit: [] for unit in plan.units}
        for unit in plan.units.values():
            for before in (*unit.needs, *unit.awaits):
                self._followers[before].append(unit)
        self._readers = {unit: len(followers) for unit, followers in self._followers.items()}
        self._outputs: dict[str, bytes] = {}
        self._ready = deque(unit for unit, count in self._left.items() if count == 0)
        self._running = 0
        self._over = 0

    def __repr__(self) -> str:
        return f"<Run of {self.plan.name!r}: {self._over} of {len(self.states)} over, {self._running} running>"

    @property
    def over(self) -> bool:
        """Whether every unit has ended."""
        return self._over == len(self.states)

    @property
    def state(self) -> PlanState:
        """What the whole has come to."""
        if not self.over:
            return PlanState.RUNNING
        found = set(self.states.values())
        if State.CANCELLED in found:
            return PlanState.CANCELLED
        return PlanState.OK if found == {State.OK} else PlanState.FAILED

    @property
    def running(self) -> list[str]:
        """The units that were taken and have not ended."""
        return [unit for unit, state in self.states.items() if state is State.RUNNING]

    def restore(self, records: Iterable[Record]) -> list[Record]:
        """Take in what an earlier run had written down, before anything is taken from this one.

        Returns records that follow from them and were not among them (units that can never start).
        """
        given = {record.unit: record for record in records}
        told: list[Record] = []
        for unit in self.plan.units:  # in order: what a unit needs comes first
            if unit in given:
                told += self._end(given[unit])
        return [record for record in told if record.unit not in given]

    def take(self) -> list[PlannedUnit]:
        """Units to start now: ready, and as many as may be in flight."""
        taken = []
        while self._ready and self._running < self.plan.in_flight:
            unit = self._ready.popleft()
            if self.states[unit] is State.WAITING:
                self.states[unit] = State.RUNNING
                self._running += 1
                taken.append(self.plan.units[unit])
        return taken

    def finish(self, record: Record) -> list[Record]:
        """A unit that was taken has ended.

        Returns the records to write down: this one (a result over a bound becomes a failure) and those of units that
        now can never start.
        """
        if self.states[record.unit] is not State.RUNNING:
            raise ValueError(f"unit {record.unit!r} is {self.states[record.unit]}, not running")
        return self._end(_bounded(record, self.result_bytes))

    def cancel(self, sent_once: frozenset[str] = frozenset(), reason: str = "the plan was cancelled") -> list[Record]:
        """End everything that has not ended. *sent_once*: running units that must not run twice and may have run."""
        records = []
        for unit, state in self.states.items():
            if state not in OVER:
                lost = state is State.RUNNING and unit in sent_once
                message = f"unit {unit!r}: {reason}" + (" while it ran; look whether it was done" if lost else "")
                records.append(Record(unit, State.UNKNOWN if lost else State.CANCELLED, code="cancelled",
                                      message=message))
        for record in records:
            self._settle(record)
        return records

    def outputs_of(self, unit: str) -> bytes | None:
        """The result of a unit that succeeded, for as long as another one waits for it."""
        return self._outputs.get(unit)

    def _end(self, record: Record) -> list[Record]:
        """Settle *record* and all that follows from it."""
        told: list[Record] = []
        queue = deque([record])
        while queue:
            ended = queue.popleft()
            if self.states[ended.unit] in OVER:
                continue
            self._settle(ended)
            told.append(ended)
            for follower in self._followers[ended.unit]:
                self._left[follower.id] -= 1
                if self.states[follower.id] is not State.WAITING:
                    continue
                if ended.state is not State.OK and ended.unit in follower.needs:
                    queue.append(Record(follower.id, State.SKIPPED, code="skipped", message=(
                        f"unit {follower.id!r}: not started, because {ended.unit!r} is {ended.state}")))
                elif self._left[follower.id] == 0:
                    self._ready.append(follower.id)
        return told

    def _settle(self, record: Record) -> None:
        unit = record.unit
        if self.states[unit] is State.RUNNING:
            self._running -= 1
        self.states[unit] = record.state
        self._over += 1
        self.result_bytes += len(record.result)
        if record.state is State.OK and self._readers[unit]:
            self._outputs[unit] = record.result
        planned = self.plan.units[unit]
        for before in (*planned.needs, *planned.awaits):
            self._readers[before] -= 1
            if self._readers[before] == 0:
                self._outputs.pop(before, None)


def _bounded(record: Record, before: int) -> Record:
    size = len(record.result)
    if size <= MAX_RESULT_BYTES and before + size <= MAX_RESULTS_BYTES:
        return record
    if size > MAX_RESULT_BYTES:
        why = f"its result has {size} bytes; {MAX_RESULT_BYTES} is the maximum: ask the tool for less"
    else:
        why = (f"with its result of {size} bytes the plan would hold more than {MAX_RESULTS_BYTES}; "
               "make several plans of it, or ask the tools for less")
    return Record(record.unit, State.FAILED, code="too_large", message=f"unit {record.unit!r}: {why}",
                  node=record.node, attempts=record.attempts, began_at=record.began_at, seconds=record.seconds)
