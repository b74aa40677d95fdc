"""The audit log: who came in, who was refused and why, who was served what. It never holds what was said.

Writing an entry costs the caller nothing and can never stall the node: entries wait in a bounded queue and are written
together once a second. So a crash can lose the last second; what the node *decides* by lives elsewhere, on disk before
it is acted on.

Bounds: 100,000 rows. What others can cause at will (calls, refusals) has its own share of them and of the queue, so no
flood of it pushes out who joined and who was revoked. Equal refusals within one second become one row that counts
them. What did not fit the queue is counted too, in a row of its own.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum

import trio

from atmosphere.env import Env
from atmosphere.store import Store

logger = logging.getLogger(__name__)

WRITE_EVERY_S = 1.0
LAST_WRITE_S = 2.0
"""How long the last write may take when the node stops."""
COMMON_ROWS, RARE_ROWS = 80_000, 20_000
"""Newest rows that are kept of what others can cause at will, and of everything else."""
TRIM_EVERY = 1_000
"""Rows between two trims; looking for the oldest costs some milliseconds."""
MAX_QUEUE = 4_096
RARE_RESERVE = 1_024
"""Places in the queue beyond MAX_QUEUE that only rare entries may take."""
MAX_TEXT = 256
"""Characters of one field."""
MAX_QUERY = 1_000


class AuditKind(StrEnum):
    """What happened."""

    JOIN = "join"                  # an invite enrolled a key here
    JOIN_REFUSED = "join_refused"  # outcome: the reason code
    APPROVAL = "approval"          # the owner approved or refused a join request
    ISSUER = "issuer"              # an issuer was appointed
    RENEWAL = "renewal"            # a membership was renewed, this node's or, by it, another's
    REVOKED = "revoked"            # a revocation was made or learned
    EXPELLED = "expelled"          # a peer's connections were closed
    SERVED = "served"              # a call for somebody else; subject: type/tool, outcome: ok or the error code
    REFUSED_CALL = "refused_call"  # outcome: the error code
    KEY_ADDED = "key_added"
    KEY_REVOKED = "key_revoked"
    DROPPED = "dropped"            # entries that did not fit the queue; detail: how many


COMMON = frozenset({AuditKind.SERVED, AuditKind.REFUSED_CALL, AuditKind.JOIN_REFUSED, AuditKind.DROPPED})
"""What others can cause at will."""
_REFUSALS = frozenset({AuditKind.REFUSED_CALL, AuditKind.JOIN_REFUSED})
_IN_COMMON = ", ".join(f"'{kind}'" for kind in sorted(COMMON))


@dataclass(frozen=True, slots=True)
class Entry:
    """One row. All texts are printable and at most MAX_TEXT characters, whoever wrote them."""

    at: float
    """Unix seconds."""
    kind: str
    peer: str
    """Who: a peer id, or ``key:ID`` for a user of the HTTP interface."""
    subject: str
    """What it was about: ``llm/chat/chat``, an invite, a peer, a key."""
    outcome: str
    detail: str


@dataclass(frozen=True, slots=True)
class AuditStatistics:
    waiting: int
    dropped: int
    failed_writes: int


class AuditLog:
    """The audit log of one node (table ``audit``). Used by the tasks of one Trio run, or by one command-line tool."""

    def __init__(self, store: Store, env: Env) -> None:
        self._store = store
        self._env = env
        self._queue: list[Entry] = []
        self._repeats: dict[tuple[str, str, str, str], int] = {}
        self._unwritten_drops = 0
        self._until_trim = 0
        self._filled = trio.Event()
        self._writing = trio.Lock()
        self._dropped = 0
        self._failed_writes = 0

    def __repr__(self) -> str:
        return f"<AuditLog {len(self._queue)} waiting, {self._dropped} dropped>"

    def statistics(self) -> AuditStatistics:
        return AuditStatistics(len(self._queue), self._dropped, self._failed_writes)

    def record(self, kind: AuditKind, peer: str = "", subject: str = "", outcome: str = "", detail: str = "") -> None:
        """Note what happened, now. Never blocks, never raises; counted and dropped where the queue is full."""
        entry = _entry(self._env.now(), kind, peer, subject, outcome, detail)
        if kind in _REFUSALS:
            same = _same(entry)
            if same in self._repeats:
                self._repeats[same] += 1
                return
        if len(self._queue) >= MAX_QUEUE + (0 if kind in COMMON else RARE_RESERVE):
            self._dropped += 1
            self._unwritten_drops += 1
            return
        if kind in _REFUSALS:
            self._repeats[same] = 0
        self._queue.append(entry)
        self._filled.set()

    def served(self, peer: str, card_type: str, tool: str, outcome: str, elapsed_s: float) -> None:
        """Note a call that ran for *peer*. *outcome*: ``ok`` or the error code."""
        self.record(AuditKind.SERVED, peer, f"{card_type}/{tool}", outcome, f"{elapsed_s * 1000:.0f} ms")

    async def run(self) -> None:
        """Write what was recorded, once a second; what is left when this is cancelled is written then."""
        try:
            while True:
                await self._filled.wait()
                await trio.sleep(WRITE_EVERY_S)
                await self.flush()
        finally:
            with trio.move_on_after(LAST_WRITE_S, shield=True):
                await self.flush()

    async def flush(self) -> None:
        """Write what was recorded, now. When the disk refuses, the entries stay for the next time."""
        async with self._writing:
            batch = self._take()
            if not batch:
                return
            try:
                await self._store.write(lambda connection: self._insert(connection, batch))
            except sqlite3.Error as error:  # a full disk must not end the node
                self._failed_writes += 1
                logger.error("audit log: %d entries cannot be written now: %s", len(batch), error)
                self._put_back(batch)
            except BaseException:  # cancelled before the write began
                self._put_back(batch)
                raise

    async def query(self, since: float = 0.0, kind: AuditKind | None = None, limit: int = 100) -> tuple[Entry, ...]:
        """The newest entries first, none older than *since* (Unix seconds), *limit* at most (up to MAX_QUERY)."""
        await self.flush()
        return await self._store.read(lambda connection: _select(connection, since, kind, limit))

    def query_now(self, since: float = 0.0, kind: AuditKind | None = None, limit: int = 100) -> tuple[Entry, ...]:
        """Like :meth:`query`, on the calling thread: for command-line tools. Sees what is written."""
        return self._store.read_now(lambda connection: _select(connection, since, kind, limit))

    def _take(self) -> list[Entry]:
        """The entries that wait, refusals with their counts; the queue is empty afterwards."""
        batch = [_counted(entry, self._repeats.get(_same(entry), 0)) for entry in self._queue]
        if self._unwritten_drops:
            batch.append(_entry(self._env.now(), AuditKind.DROPPED, detail=f"{self._unwritten_drops} entries"))
        self._queue, self._repeats, self._unwritten_drops = [], {}, 0
        self._filled = trio.Event()
        return batch

    def _put_back(self, batch: list[Entry]) -> None:
        """Keep the newest of *batch* and of what came in since."""
        entries = batch + self._queue
        self._queue = entries[-MAX_QUEUE:]
        lost = len(entries) - len(self._queue)
        self._dropped += lost
        self._unwritten_drops += lost
        self._filled.set()

    def _insert(self, connection: sqlite3.Connection, batch: list[Entry]) -> None:
        _write(connection, batch)
        self._until_trim -= len(batch)
        if self._until_trim <= 0:
            trim(connection)
            self._until_trim = TRIM_EVERY


def note(connection: sqlite3.Connection, at: float, kind: AuditKind, subject: str, outcome: str) -> None:
    """Write one rare entry within the caller's transaction: the act and its trace are on disk together or not."""
    _write(connection, [_entry(at, kind, subject=subject, outcome=outcome)])


def trim(connection: sqlite3.Connection) -> None:
    """Delete the oldest rows, so that with TRIM_EVERY more the log is within its bounds."""
    for member, rows in (("IN", COMMON_ROWS), ("NOT IN", RARE_ROWS)):
        which = f"kind {member} ({_IN_COMMON})"
        connection.execute(
            f"DELETE FROM audit WHERE {which} AND id <= "
            f"(SELECT id FROM audit WHERE {which} ORDER BY id DESC LIMIT 1 OFFSET ?)",
            (rows - TRIM_EVERY,),
        )


def _write(connection: sqlite3.Connection, entries: Iterable[Entry]) -> None:
    connection.executemany(
        "INSERT INTO audit (at, kind, peer, subject, outcome, detail) VALUES (?, ?, ?, ?, ?, ?)",
        [(entry.at, entry.kind, entry.peer, entry.subject, entry.outcome, entry.detail) for entry in entries],
    )


def _select(connection: sqlite3.Connection, since: float, kind: AuditKind | None, limit: int) -> tuple[Entry, ...]:
    rows = connection.execute(
        "SELECT at, kind, peer, subject, outcome, detail FROM audit WHERE at >= ? AND (? IS NULL OR kind = ?) "
        "ORDER BY at DESC, id DESC LIMIT ?",
        (since, kind, kind, max(0, min(limit, MAX_QUERY))),
    )
    return tuple(Entry(*row) for row in rows)


def _entry(at: float, kind: AuditKind, peer: str = "", subject: str = "", outcome: str = "", detail: str = "") -> Entry:
    return Entry(at, str(kind), _clean(peer), _clean(subject), _clean(outcome), _clean(detail))


def _clean(text: str) -> str:
    """*text* without what could forge a line or a colour on the terminal that shows it."""
    text = text[:MAX_TEXT]
    return text if text.isprintable() else "".join(char if char.isprintable() else "?" for char in text)


def _same(entry: Entry) -> tuple[str, str, str, str]:
    return entry.kind, entry.peer, entry.subject, entry.outcome


def _counted(entry: Entry, more: int) -> Entry:
    return replace(entry, detail=f"{entry.detail} (and {more} more)".strip()) if more else entry
