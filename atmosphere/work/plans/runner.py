"""Runs plans: starts what is ready, writes down what ended, goes on after a restart of the node.

Every change reaches the disk in transactions of whatever has come together since the last one, so the disk never holds
a unit back, with one exception: a unit whose tool must not run twice is sent only when the disk says that it is about
to be. After a restart such a unit counts as ``unknown``; every other one that had not ended runs again, with the same
idempotency key.
"""

from __future__ import annotations

import hashlib
import logging
import sqlite3
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

import trio

from atmosphere.capabilities.card import Effects
from atmosphere.env import Env
from atmosphere.routing.intent import Intent
from atmosphere.store import Store
from atmosphere.work.plans import document
from atmosphere.work.plans.inputs import arguments
from atmosphere.work.plans.journal import Entry, Journal, Unfinished
from atmosphere.work.plans.plan import DEADLINE_S, Plan, PlannedUnit
from atmosphere.work.plans.references import PlanError
from atmosphere.work.plans.run import PlanState, Record, Run, State
from atmosphere.work.units import Outcome, Unit, UnitResult
from protocols.call import CallError, Code

logger = logging.getLogger(__name__)

MAX_RUNNING = 8
"""Plans at once: each may hold ``MAX_RESULTS_BYTES``."""
MAX_RUNNING_OF_ONE = 4
"""Plans of one API key at once: one key cannot take all places."""
ASIDE_BYTES = 64 * 1024
"""Results from which arguments are made off the event loop."""
SETTLING_S = 30.0
"""After the start of the node the mesh comes together; a unit that nobody can do is tried again for so long."""
AGAIN_S = 0.5
JUDGED_S = 1.0
"""How long what a step may do and what it does is taken as known."""
ID_BYTES = 8
KEY_BYTES = 16

_NOBODY_YET = frozenset({Code.NOT_FOUND, Code.UNAVAILABLE})
"""Nothing was started, and it may be possible once more nodes are known."""


class Permission(Protocol):
    """What the units of somebody's plan may run; see ``permission.PlanPermission``."""

    async def judge(self, owner: str, intent: Intent) -> tuple[Intent, Effects]: ...
    def note(self, owner: str, intent: Intent, result: UnitResult | CallError) -> None: ...


@dataclass(frozen=True, slots=True)
class PlanView:
    """A plan, and how far it is."""

    entry: Entry
    version: int
    """Grows with every change while the plan runs."""
    records: tuple[Record, ...]
    """Of every unit, in an order in which they could run; without results."""
    plan: Plan | None
    """None: its document cannot be read any more."""

    @property
    def counts(self) -> dict[str, int]:
        """Units by state."""
        counted = Counter(record.state for record in self.records)
        return {str(state): counted[state] for state in State if counted[state]}


@dataclass(slots=True, eq=False)
class _Begin:
    """Asks for a mark on disk that a unit is about to be sent."""

    unit: PlannedUnit
    at: float
    marked: trio.Event = field(default_factory=trio.Event)


@dataclass(slots=True, eq=False)
class _Active:
    """A plan that runs."""

    entry: Entry
    plan: Plan
    run: Run
    records: dict[str, Record] = field(default_factory=dict)
    sent_once: set[str] = field(default_factory=set)
    judged: dict[str, tuple[float, Intent, Effects]] = field(default_factory=dict)
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    reason: str = ""
    """Why it is being ended before its time; empty: it is not."""
    version: int = 0
    changed: trio.Event = field(default_factory=trio.Event)
    over: trio.Event = field(default_factory=trio.Event)

    def tell(self) -> None:
        """Wake whoever waits for news."""
        self.version += 1
        self.changed.set()
        self.changed = trio.Event()

    def keep(self, records: Iterable[Record]) -> None:
        self.records.update((record.unit, replace(record, result=b"")) for record in records)


class PlanRunner:
    """The plans of one node. :meth:`run` is its task; the rest may be called from any other one."""

    def __init__(
        self,
        run_unit: Callable[[Unit], Awaitable[UnitResult]],
        store: Store,
        env: Env,
        permission: Permission,
    ) -> None:
        """*run_unit*: ``Dispatcher.unit``."""
        self._run_unit = run_unit
        self._journal = Journal(store)
        self._env = env
        self._permission = permission
        self._active: dict[str, _Active] = {}
        self._nursery: trio.Nursery | None = None
        self._started = 0.0

    def __repr__(self) -> str:
        return f"<PlanRunner {len(self._active)} running>"

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Go on with the plans that an earlier run of the node left, then with new ones, until cancelled."""
        self._started = self._env.monotonic()
        async with trio.open_nursery() as nursery:
            for left in await self._journal.unfinished():
                await self._resume(left, nursery)
            self._nursery = nursery
            task_status.started()
            await trio.sleep_forever()

    async def submit(self, plan: Plan, owner: str = "") -> str:
        """Begin *plan* and return its id; it is on disk then. Raises CallError: OVERLOADED, TOO_LARGE."""
        if self._nursery is None:
            raise CallError(Code.UNAVAILABLE, "this node is still starting; try again shortly", retryable=True)
        data = await self._env.run_blocking(lambda: document.write(plan))
        self._check_room(owner)
        if len(data) > document.MAX_DOCUMENT_BYTES:
            raise CallError(Code.TOO_LARGE, f"the plan is {len(data)} bytes of JSON; {document.MAX_DOCUMENT_BYTES} is "
                            "the maximum: make several plans of it")
        entry = Entry(self._env.token_bytes(ID_BYTES).hex(), owner, plan.name, len(plan.units), PlanState.RUNNING, "",
                      self._env.now(), None)
        active = self._active[entry.id] = _Active(entry, plan, Run(plan))  # before the wait: it counts from now on
        try:
            await self._journal.add(entry, data)
        except BaseException:
            del self._active[entry.id]
            raise
        self._nursery.start_soon(self._drive, active)
        return entry.id

    async def entries(self, owner: str | None) -> list[Entry]:
        """The plans of *owner* (None: all), the newest first."""
        return await self._journal.entries(owner)

    async def view(self, plan: str, owner: str | None) -> PlanView:
        """How far *plan* is. Raises CallError: NOT_FOUND, also for another owner's."""
        active = self._active.get(plan)
        if active is not None and owner in (None, active.entry.owner):
            run = active.run
            records = tuple(active.records.get(unit, Record(unit, run.states[unit])) for unit in active.plan.units)
            return PlanView(active.entry, active.version, records, active.plan)
        found = await self._journal.read(plan)
        if found is None or owner not in (None, found[0].owner):
            raise CallError(Code.NOT_FOUND, f"no plan {plan[:64]!r}; `atmosphere-p2p plan list` shows them")
        entry, data, records_read = found
        known = {record.unit: record for record in records_read}
        try:
            parsed = await self._env.run_blocking(lambda: document.read(data))
        except PlanError:
            return PlanView(entry, 0, tuple(records_read), None)
        ordered = tuple(known.get(unit, Record(unit, State.CANCELLED)) for unit in parsed.units)
        return PlanView(entry, 0, ordered, parsed)

    async def results(self, plan: str, units: Iterable[str]) -> dict[str, bytes]:
        """The results (JSON) of those of *units* that succeeded, as far as they are on disk."""
        return await self._journal.results(plan, tuple(units))

    async def news(self, plan: str, version: int) -> None:
        """Return when the running *plan* has changed since *version*, or is over."""
        active = self._active.get(plan)
        if active is not None and active.version <= version:
            await active.changed.wait()

    async def cancel(self, plan: str, owner: str | None) -> None:
        """End *plan*, its running units too, wherever they run; returns when it has ended. One that is over stays."""
        await self.view(plan, owner)
        active = self._active.get(plan)
        if active is not None:
            active.reason = active.reason or "the plan was cancelled"
            active.scope.cancel()
            await active.over.wait()

    async def forget(self, plan: str, owner: str | None) -> None:
        """Cancel *plan* if it runs, then remove it with its results."""
        await self.cancel(plan, owner)
        await self._journal.forget(plan)

    def _check_room(self, owner: str) -> None:
        owned = sum(active.entry.owner == owner for active in self._active.values())
        if len(self._active) >= MAX_RUNNING or (owner and owned >= MAX_RUNNING_OF_ONE):
            raise CallError(Code.OVERLOADED, f"{len(self._active)} plans run on this node, {owned} of them yours; at "
                            f"most {MAX_RUNNING} may, and {MAX_RUNNING_OF_ONE} of one API key: wait for one, or cancel "
                            "one with `atmosphere-p2p plan cancel ID`", retryable=True, retry_after_ms=5000)

    async def _resume(self, left: Unfinished, nursery: trio.Nursery) -> None:
        try:
            plan = document.read(left.document)
        except PlanError as error:
            logger.error("plan %s cannot be gone on with: %s", left.entry.id, error)
            await self._journal.end(left.entry.id, PlanState.FAILED, str(error), self._env.now())
            return
        active = _Active(left.entry, plan, Run(plan))
        lost = [Record(unit, State.UNKNOWN, code=str(Code.UNKNOWN_OUTCOME), message=(
            f"unit {unit!r}: the node stopped while it ran; look whether it was done")) for unit in left.begun]
        known = [record for record in (*left.records, *lost) if record.unit in plan.units]
        new = active.run.restore(known)
        active.keep([*known, *new])
        await self._journal.note(left.entry.id, (), [*lost, *new])
        logger.info("plan %s goes on: %d of %d units are over", left.entry.id, len(active.records), len(plan.units))
        self._active[left.entry.id] = active
        nursery.start_soon(self._drive, active)

    async def _drive(self, active: _Active) -> None:
        """Run one plan to its end. Cancelled (the node stops): nothing is written, a later run goes on."""
        try:
            await self._run_units(active)
            with trio.CancelScope(shield=True):
                early = not active.run.over
                state = await self._called_off(active) if early else active.run.state
                await self._journal.end(active.entry.id, state, active.reason if early else "", self._env.now())
        except Exception as error:
            logger.exception("plan %s broke off", active.entry.id)
            await self._broke_off(active, error)
        finally:
            self._active.pop(active.entry.id, None)
            active.tell()
            active.over.set()

    async def _run_units(self, active: _Active) -> None:
        """Returns when all units are over, the plan was cancelled or its deadline has passed."""
        inbox_in, inbox = trio.open_memory_channel[Record | _Begin](active.plan.in_flight)
        deadline = active.plan.deadline_s
        left = float("inf") if deadline is None else active.entry.created_at + deadline - self._env.now()
        with active.scope, trio.move_on_after(max(0.0, left)):
            async with trio.open_nursery() as nursery:
                self._start_ready(active, nursery, inbox_in)
                while not active.run.over:
                    await self._take_in(active, nursery, inbox_in, inbox)

    async def _called_off(self, active: _Active) -> PlanState:
        """Settle what had not ended when the plan was cancelled or its deadline passed."""
        cancelled = bool(active.reason)
        if not cancelled:
            active.reason = f"the plan's deadline of {(active.plan.deadline_s or 0) * 1000:g} ms has passed"
        records = [
            replace(record, began_at=active.records[record.unit].began_at) if record.unit in active.records else record
            for record in active.run.cancel(frozenset(active.sent_once), active.reason)
        ]
        active.keep(records)
        await self._journal.note(active.entry.id, (), records)
        return PlanState.CANCELLED if cancelled else PlanState.FAILED

    async def _broke_off(self, active: _Active, error: Exception) -> None:
        reason = f"this node failed: {type(error).__name__}; its log says more"
        try:
            await self._journal.end(active.entry.id, PlanState.FAILED, reason, self._env.now())
        except sqlite3.Error:  # the disk may be the reason; then the next start of the node goes on with the plan
            logger.exception("the end of plan %s could not be written", active.entry.id)

    async def _take_in(self, active: _Active, nursery: trio.Nursery, inbox_in: trio.MemorySendChannel[Record | _Begin],
                       inbox: trio.MemoryReceiveChannel[Record | _Begin]) -> None:
        """Take in what has come together, start what became ready, then write it down: one transaction."""
        messages = [await inbox.receive()]
        while True:
            try:
                messages.append(inbox.receive_nowait())
            except trio.WouldBlock:
                break
        begins = [message for message in messages if isinstance(message, _Begin)]
        records = [told for message in messages if isinstance(message, Record) for told in active.run.finish(message)]
        active.keep(records)
        self._start_ready(active, nursery, inbox_in)
        with trio.CancelScope(shield=True):  # what is known stays known, also of a plan that is cancelled now
            await self._journal.note(active.entry.id, [(begin.unit, begin.at) for begin in begins], records)
        for begin in begins:
            active.sent_once.add(begin.unit.id)
            begin.marked.set()
        active.tell()

    def _start_ready(self, active: _Active, nursery: trio.Nursery,
                     inbox: trio.MemorySendChannel[Record | _Begin]) -> None:
        for unit in active.run.take():
            outputs = {before: output for before in (*unit.needs, *unit.awaits)
                       if (output := active.run.outputs_of(before)) is not None}
            active.records[unit.id] = Record(unit.id, State.RUNNING, began_at=self._env.now())
            nursery.start_soon(self._unit, active, unit, outputs, inbox)

    async def _unit(self, active: _Active, unit: PlannedUnit, outputs: dict[str, bytes],
                    inbox: trio.MemorySendChannel[Record | _Begin]) -> None:
        """Run one unit and report how it ended."""
        began_at, began = self._env.now(), self._env.monotonic()
        try:
            args = await self._arguments(active.plan, unit, outputs)
            result = await self._sent(active, unit, args, inbox)
        except PlanError as error:
            result = CallError(Code.INVALID, str(error))
        except CallError as error:
            result = error
        except Exception:
            logger.exception("unit %s of plan %s failed", unit.id, active.entry.id)
            result = CallError(Code.INTERNAL, "a bug in this node; its log has the details")
        await inbox.send(_record(unit, result, began_at, self._env.monotonic() - began))

    async def _arguments(self, plan: Plan, unit: PlannedUnit, outputs: Mapping[str, bytes]) -> bytes:
        if sum(map(len, outputs.values())) > ASIDE_BYTES:
            return await self._env.run_blocking(lambda: arguments(plan, unit, outputs))
        return arguments(plan, unit, outputs)

    async def _sent(self, active: _Active, unit: PlannedUnit, args: bytes,
                    inbox: trio.MemorySendChannel[Record | _Begin]) -> UnitResult | CallError:
        """Send *unit*, once the disk says so where that matters; again while the mesh is still coming together."""
        owner = active.entry.owner
        key = hashlib.sha256(f"{active.entry.id}/{unit.id}".encode()).digest()[:KEY_BYTES]
        deadline_s = unit.step.deadline_s or DEADLINE_S
        while True:
            try:
                intent, effects = await self._judged(active, unit)
            except CallError as error:
                self._permission.note(owner, unit.step.intent, error)
                if not self._may_come(error):
                    return error
            else:
                if effects is Effects.ONCE and unit.id not in active.sent_once:
                    begin = _Begin(unit, self._env.now())
                    await inbox.send(begin)
                    await begin.marked.wait()
                result = await self._run_unit(Unit(intent, args, key, deadline_s))
                self._permission.note(owner, intent, result)
                if result.outcome is not Outcome.FAILED or result.error is None or not self._may_come(result.error):
                    return result
            await trio.sleep(AGAIN_S)

    def _may_come(self, error: CallError) -> bool:
        """Whether nobody could do it, soon after the start of the node."""
        return error.code in _NOBODY_YET and self._env.monotonic() - self._started < SETTLING_S

    async def _judged(self, active: _Active, unit: PlannedUnit) -> tuple[Intent, Effects]:
        now = self._env.monotonic()
        known = active.judged.get(unit.step.id)
        if known is None or now - known[0] > JUDGED_S:
            known = (now, *await self._permission.judge(active.entry.owner, unit.step.intent))
            active.judged[unit.step.id] = known
        return known[1], known[2]


def _record(unit: PlannedUnit, result: UnitResult | CallError, began_at: float, seconds: float) -> Record:
    if isinstance(result, CallError):
        return Record(unit.id, State.FAILED, code=str(result.code), message=f"unit {unit.id!r}: {result.message}",
                      began_at=began_at, seconds=seconds)
    error = result.error
    return Record(
        unit.id,
        State(str(result.outcome)),
        result.result if result.ok else b"",
        "" if error is None else str(error.code),
        "" if error is None else f"unit {unit.id!r}: {error.message}",
        result.node,
        len(result.attempts),
        began_at,
        seconds,
    )


