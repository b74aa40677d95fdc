"""Plans on disk: what was given, what has ended, and what was sent that must not be sent twice.

One transaction per call, on disk (fsync) when it returns. Everything runs off the event loop.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

from atmosphere.store import Store
from atmosphere.work.plans.plan import PlannedUnit
from atmosphere.work.plans.run import PlanState, Record, State

KEPT_PLANS = 100
"""Plans of one owner that are over and still listed; the oldest are forgotten."""
KEPT_BYTES = 256 * 1024 * 1024
"""Documents and results of all plans that are over; the oldest are forgotten."""

_BEGUN = "begun"
_RECORD = "unit, state, result, code, message, node, attempts, began_at, seconds"
_WITHOUT_RESULT = _RECORD.replace("result", "x''")


@dataclass(frozen=True, slots=True)
class Entry:
    """A plan as a line in a list."""

    id: str
    owner: str
    """The id of the API key that gave it; empty: the node's owner."""
    name: str
    units: int
    state: PlanState
    reason: str
    """Why it ended as a whole; empty where its units tell."""
    created_at: float
    ended_at: float | None


@dataclass(frozen=True, slots=True)
class Unfinished:
    """A plan that was running when the node stopped."""

    entry: Entry
    document: bytes
    records: tuple[Record, ...]
    begun: frozenset[str]
    """Units that must not run twice and were sent."""


class Journal:
    """The plans in the node's store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def __repr__(self) -> str:
        return f"<Journal in {self._store!r}>"

    async def add(self, entry: Entry, document: bytes) -> None:
        """Keep a new plan; plans that are long over make room."""

        def change(connection: sqlite3.Connection) -> None:
            connection.execute("INSERT INTO plans VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                               (entry.id, entry.owner, entry.name, document, entry.units, entry.state, entry.reason,
                                entry.created_at, entry.ended_at))
            _make_room(connection, entry.owner)

        await self._store.write(change)

    async def note(self, plan: str, begun: Sequence[tuple[PlannedUnit, float]], records: Sequence[Record]) -> None:
        """Write down that units were sent (with when, Unix seconds) and how others ended."""

        def change(connection: sqlite3.Connection) -> None:
            connection.executemany(
                f"INSERT OR REPLACE INTO plan_units (plan, {_RECORD}) VALUES (?, ?, ?, x'', '', '', '', 0, ?, 0)",
                [(plan, unit.id, _BEGUN, at) for unit, at in begun])
            connection.executemany(
                f"INSERT OR REPLACE INTO plan_units (plan, {_RECORD}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [(plan, r.unit, r.state, r.result, r.code, r.message, r.node, r.attempts, r.began_at, r.seconds)
                 for r in records])

        if begun or records:
            await self._store.write(change)

    async def end(self, plan: str, state: PlanState, reason: str, at: float) -> None:
        """Write down that a plan is over."""
        await self._store.write(lambda connection: connection.execute(
            "UPDATE plans SET state = ?, reason = ?, ended_at = ? WHERE id = ?", (state, reason, at, plan)))

    async def unfinished(self) -> list[Unfinished]:
        """Every plan that is not over, the oldest first."""

        def query(connection: sqlite3.Connection) -> list[Unfinished]:
            found = []
            for *row, document in connection.execute(
                    f"SELECT {_ENTRY}, document FROM plans WHERE state = ? ORDER BY created_at", (PlanState.RUNNING,)
            ).fetchall():
                entry = _entry(row)
                units = connection.execute(f"SELECT {_RECORD} FROM plan_units WHERE plan = ?", (entry.id,)).fetchall()
                found.append(Unfinished(entry, document, tuple(_record(unit) for unit in units if unit[1] != _BEGUN),
                                        frozenset(unit[0] for unit in units if unit[1] == _BEGUN)))
            return found

        return await self._store.read(query)

    async def entries(self, owner: str | None) -> list[Entry]:
        """All plans of *owner* (None: of all), the newest first."""

        def query(connection: sqlite3.Connection) -> list[Entry]:
            where, values = ("", ()) if owner is None else ("WHERE owner = ?", (owner,))
            return [_entry(row) for row in connection.execute(
                f"SELECT {_ENTRY} FROM plans {where} ORDER BY created_at DESC, rowid DESC", values)]

        return await self._store.read(query)

    async def read(self, plan: str) -> tuple[Entry, bytes, list[Record]] | None:
        """A plan that is over: its document, and the records of its units, without results."""

        def query(connection: sqlite3.Connection) -> tuple[Entry, bytes, list[Record]] | None:
            row = connection.execute(f"SELECT {_ENTRY}, document FROM plans WHERE id = ?", (plan,)).fetchone()
            if row is None:
                return None
            units = connection.execute(
                f"SELECT {_WITHOUT_RESULT} FROM plan_units WHERE plan = ? AND state != ?",
                (plan, _BEGUN)).fetchall()
            return _entry(row[:-1]), row[-1], [_record(unit) for unit in units]

        return await self._store.read(query)

    async def results(self, plan: str, units: Sequence[str]) -> dict[str, bytes]:
        """The results of those of *units* that succeeded."""

        def query(connection: sqlite3.Connection) -> dict[str, bytes]:
            found = {}
            for unit in units:
                row = connection.execute("SELECT result FROM plan_units WHERE plan = ? AND unit = ? AND state = ?",
                                         (plan, unit, State.OK)).fetchone()
                if row is not None:
                    found[unit] = row[0]
            return found

        return await self._store.read(query)

    async def forget(self, plan: str) -> None:
        """Remove a plan and all results."""
        await self._store.write(lambda connection: connection.execute("DELETE FROM plans WHERE id = ?", (plan,)))


_ENTRY = "id, owner, name, units, state, reason, created_at, ended_at"


def _entry(row: Sequence[object]) -> Entry:
    plan, owner, name, units, state, reason, created_at, ended_at = row
    return Entry(plan, owner, name, units, PlanState(state), reason, created_at, ended_at)  # type: ignore[arg-type]


def _record(row: Sequence[object]) -> Record:
    unit, state, *rest = row
    return Record(unit, State(state), *rest)  # type: ignore[arg-type]


def _make_room(connection: sqlite3.Connection, owner: str) -> None:
    connection.execute(
        "DELETE FROM plans WHERE id IN (SELECT id FROM plans WHERE owner = ? AND state != ? "
        "ORDER BY created_at DESC LIMIT -1 OFFSET ?)", (owner, PlanState.RUNNING, KEPT_PLANS))
    sizes = connection.execute(
        "SELECT id, length(document) + (SELECT coalesce(sum(length(result)), 0) FROM plan_units WHERE plan = id) "
        "FROM plans WHERE state != ? ORDER BY created_at DESC", (PlanState.RUNNING,)).fetchall()
    total = 0
    for plan, size in sizes:
        total += size
        if total > KEPT_BYTES:
            connection.execute("DELETE FROM plans WHERE id = ?", (plan,))
