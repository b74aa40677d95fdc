"""One SQLite file per node: everything that must survive a restart.

Rooms run their own SQL through :meth:`Store.read` and :meth:`Store.write`; the schema of all of them is here, as a
list of migrations that only ever grows. ``Store.memory(env)`` is the twin for tests and simulations.
"""

from __future__ import annotations

import errno
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from atmosphere.env import Env

T = TypeVar("T")

MEMORY = ":memory:"

MIGRATIONS: tuple[str, ...] = (
    # 1: the first release
    """
    CREATE TABLE counters (            -- boot epoch and other numbers that must never go back
        name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT;
    CREATE TABLE trust (               -- revocations, redemptions, issuer chains: verified, then written, then acted on
        kind INTEGER NOT NULL, digest BLOB NOT NULL, body BLOB NOT NULL, added_at REAL NOT NULL,
        PRIMARY KEY (kind, digest)) STRICT;
    CREATE TABLE invites (             -- what each invite has enrolled here
        invite BLOB NOT NULL, peer BLOB NOT NULL, redeemed_at REAL NOT NULL,
        PRIMARY KEY (invite, peer)) STRICT;
    CREATE TABLE join_requests (       -- invites that ask for approval: who wants in, and what the owner said
        invite BLOB NOT NULL, peer BLOB NOT NULL, name TEXT NOT NULL, asked_at REAL NOT NULL,
        state TEXT NOT NULL,           -- pending, approved, refused
        PRIMARY KEY (invite, peer)) STRICT;
    CREATE TABLE api_keys (            -- of the local HTTP interface; only a hash of each secret
        id TEXT PRIMARY KEY, name TEXT NOT NULL, hash BLOB NOT NULL, scopes TEXT NOT NULL,
        created_at REAL NOT NULL, revoked_at REAL) STRICT;
    CREATE TABLE audit (
        id INTEGER PRIMARY KEY, at REAL NOT NULL, kind TEXT NOT NULL, peer TEXT NOT NULL, subject TEXT NOT NULL,
        outcome TEXT NOT NULL, detail TEXT NOT NULL) STRICT;
    CREATE INDEX audit_at ON audit(at);
    CREATE TABLE documents (           -- files of the knowledge folders
        path TEXT PRIMARY KEY, folder TEXT NOT NULL, digest BLOB NOT NULL, indexed_at REAL NOT NULL) STRICT;
    CREATE TABLE passages (
        id INTEGER PRIMARY KEY, path TEXT NOT NULL REFERENCES documents(path) ON DELETE CASCADE,
        position INTEGER NOT NULL, locator TEXT NOT NULL, text TEXT NOT NULL,
        space TEXT NOT NULL, vector BLOB NOT NULL) STRICT;
    CREATE INDEX passages_of ON passages(path);
    """,
    # 2: plans
    """
    CREATE TABLE plans (               -- given and not yet forgotten; owner: the API key that gave it, or nobody
        id TEXT PRIMARY KEY, owner TEXT NOT NULL, name TEXT NOT NULL, document BLOB NOT NULL, units INTEGER NOT NULL,
        state TEXT NOT NULL, reason TEXT NOT NULL, created_at REAL NOT NULL, ended_at REAL) STRICT;
    CREATE INDEX plans_by_time ON plans(created_at);
    CREATE TABLE plan_units (          -- units that have ended, and those sent that must not be sent twice (begun)
        plan TEXT NOT NULL REFERENCES plans(id) ON DELETE CASCADE, unit TEXT NOT NULL, state TEXT NOT NULL,
        result BLOB NOT NULL, code TEXT NOT NULL, message TEXT NOT NULL, node TEXT NOT NULL,
        attempts INTEGER NOT NULL, began_at REAL NOT NULL, seconds REAL NOT NULL,
        PRIMARY KEY (plan, unit)) STRICT;
    """,
    # 3: what was learnt of other nodes' capabilities
    """
    CREATE TABLE learnt (
        peer BLOB NOT NULL, card BLOB NOT NULL,
        opinion REAL NOT NULL,         -- what people said of its answers, -1 to 1
        seconds REAL NOT NULL,         -- until the first answer; 0: not known
        at REAL NOT NULL,              -- both as of then, Unix seconds
        PRIMARY KEY (peer, card)) STRICT;
    CREATE INDEX learnt_at ON learnt(at);
    CREATE TABLE calibration (         -- how far the router's probabilities were off, by vector space
        space TEXT PRIMARY KEY, right REAL NOT NULL, somebody REAL NOT NULL) STRICT;
    """,
    # 4: intents that people found a card right for, or wrong
    """
    CREATE TABLE lessons (
        space TEXT NOT NULL, card BLOB NOT NULL,
        vector BLOB NOT NULL,          -- of the intent, in int8; its text is not kept
        peer BLOB NOT NULL,            -- whose answer it was about
        good INTEGER NOT NULL, at REAL NOT NULL,
        PRIMARY KEY (space, card, vector)) STRICT;
    """,
    # 5: vectors of cards, so that a restart embeds nothing again
    """
    CREATE TABLE vectors (
        space TEXT NOT NULL, digest BLOB NOT NULL, -- of the texts that were embedded
        at REAL NOT NULL,              -- when it was last of use, Unix seconds
        body BLOB NOT NULL, PRIMARY KEY (space, digest)) STRICT, WITHOUT ROWID;
    """,
)


_REFUSED = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.EISDIR,
                      errno.ENOTDIR})
_SQLITE_REFUSED = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_IOERR,
                             sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM})


def disk_trouble(error: BaseException) -> str:
    """What the disk refused, if that is what *error* says (full, read-only, not ours, a folder for a file); else ""."""
    if isinstance(error, sqlite3.OperationalError):
        return str(error) if getattr(error, "sqlite_errorcode", 0) & 0xFF in _SQLITE_REFUSED else ""
    if isinstance(error, OSError) and error.errno in _REFUSED:
        return f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror)
    return ""


class StoreError(Exception):
    """The node's database cannot be used; the message names the file and the next step."""


class Store:
    """Access to the node's database. Safe to use from many tasks; one statement batch runs at a time."""

    def __init__(self, path: Path | None, env: Env) -> None:
        """Open or create the database at *path* (None: in memory) and bring its schema up to date."""
        self._env = env
        self._lock = threading.Lock()
        self._where = str(path) if path else MEMORY
        try:
            self._connection = sqlite3.connect(self._where, check_same_thread=False, isolation_level=None)
            self._connection.execute("PRAGMA foreign_keys = ON")
            if path:
                self._connection.execute("PRAGMA journal_mode = WAL")
                self._connection.execute("PRAGMA synchronous = FULL")  # fsync before a reply that promises it
                path.chmod(0o600)
            else:
                self._connection.execute("PRAGMA page_size = 1024")  # each table begins with a page: half the memory
            self._migrate()
        except (sqlite3.DatabaseError, OSError) as error:
            refused = disk_trouble(error)
            raise StoreError(
                f"cannot open {self._where}: {refused}. Make room, or check who owns the folder." if refused else
                f"cannot open {self._where}: {error}. Move the file away to start with an empty one."
            ) from error

    @classmethod
    def memory(cls, env: Env) -> Store:
        """A store that lives and dies with the process."""
        return cls(None, env)

    def __repr__(self) -> str:
        return f"<Store {self._where}>"

    @property
    def lasting(self) -> bool:
        """Whether what is written outlives the process."""
        return self._where != MEMORY

    def _migrate(self) -> None:
        (version,) = self._connection.execute("PRAGMA user_version").fetchone()
        if version > len(MIGRATIONS):
            raise StoreError(
                f"{self._where} was written by a newer release (schema {version}, this one knows "
                f"{len(MIGRATIONS)}). Install that release again, or move the file away."
            )
        for number in range(version, len(MIGRATIONS)):
            self._connection.executescript(
                f"BEGIN; {MIGRATIONS[number]} PRAGMA user_version = {number + 1}; COMMIT;"
            )

    def read_now(self, query: Callable[[sqlite3.Connection], T]) -> T:
        """Run *query* on the calling thread: for start-up and for command-line tools."""
        with self._lock:
            return query(self._connection)

    def write_now(self, change: Callable[[sqlite3.Connection], T]) -> T:
        """Run *change* in one transaction on the calling thread. On disk when it returns; undone when it raises."""
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                result = change(self._connection)
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:  # a full disk may have ended it
                    self._connection.execute("ROLLBACK")
                raise
            return result

    async def read(self, query: Callable[[sqlite3.Connection], T]) -> T:
        """Run *query* without stalling the node."""
        return await self._env.run_blocking(lambda: self.read_now(query))

    async def write(self, change: Callable[[sqlite3.Connection], T]) -> T:
        """Run *change* in one transaction without stalling the node. On disk when it returns."""
        return await self._env.run_blocking(lambda: self.write_now(change))

    def next_counter(self, name: str) -> int:
        """Raise the persistent counter *name* by one and return it (first value 1)."""

        def bump(connection: sqlite3.Connection) -> int:
            row = connection.execute(
                "INSERT INTO counters VALUES (?, 1) ON CONFLICT(name) DO UPDATE SET value = value + 1 RETURNING value",
                (name,),
            ).fetchone()
            return int(row[0])

        return self.write_now(bump)

    def close(self) -> None:
        with self._lock:
            self._connection.close()
