"""Keys of the local HTTP interface: who may use this node from a program, and for which calls.

The text ``atm_ID_SECRET`` is shown once, when a key is made; the database has a SHA-256 of the secret only (160 random
bits: nothing to guess, so no slow hash). Scopes are those of memberships, of the family ``call``. A command may change
the database while the node runs: the node notices within a second (:meth:`ApiKeys.refresh`); a change through the
node itself counts from the next request on.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass

from atmosphere import audit
from atmosphere.audit import AuditKind
from atmosphere.env import Env
from atmosphere.identity.errors import IdentityError
from atmosphere.identity.scopes import ALL, CALL, check, covers
from atmosphere.store import Store

PREFIX = "atm_"
"""What a key of this node begins with; other bearer texts are somebody else's."""
ID_BYTES, SECRET_BYTES = 5, 20
"""Both fill whole base32 characters, so each key has one spelling."""
MAX_KEYS = 256
"""Keys in force at once."""
MAX_REVOKED = 256
"""Revoked keys that are still listed; older ones are forgotten."""
MAX_NAME = 64
REFRESH_S = 1.0

_TEXT = re.compile(r"atm_([a-z2-7]{8})_([a-z2-7]{32})")
_NO_HASH = bytes(32)


class ApiKeyError(ValueError):
    """A key that cannot be made or revoked; the message says why and what would work."""


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key as it may be shown: without its secret."""

    id: str
    name: str
    scopes: tuple[str, ...]
    created_at: float
    revoked_at: float | None = None

    def may_call(self, card_type: str, tool: str) -> bool:
        """Whether the scopes cover *tool* of capabilities of *card_type* (texts that other nodes chose).

        Like ``covers(scopes, "call:TYPE/TOOL")``, also where that would be longer than a scope may be.
        """
        path = (CALL, *card_type.split("/"), tool)
        return any(path[: len(above)] == above for above in map(_path, self.scopes))

    @property
    def may_call_all(self) -> bool:
        return covers(self.scopes, CALL)


@dataclass(frozen=True, slots=True)
class _State:
    """The keys in force, as read at one version of the database."""

    keys: dict[str, tuple[bytes, ApiKey]]
    version: int


class ApiKeys:
    """The API keys of one node (table ``api_keys``). Changes are on disk, with their audit entry, when they return."""

    def __init__(self, store: Store, env: Env) -> None:
        self._store = store
        self._env = env
        self._state: _State
        self._load()
        self._looked_at = env.monotonic()

    def __repr__(self) -> str:
        return f"<ApiKeys {len(self._state.keys)} in force>"

    @property
    def any(self) -> bool:
        """Whether at least one key is in force."""
        return bool(self._state.keys)

    def create(self, name: str, scopes: Iterable[str] = (f"{CALL}:*",)) -> str:
        """Make a key and return its text, which nothing can show again. Raises ApiKeyError."""
        name = name.strip()
        if not 1 <= len(name) <= MAX_NAME or not name.isprintable():
            raise ApiKeyError(f"a key's name has 1 to {MAX_NAME} printable characters, for instance 'laptop'")
        try:
            allowed = check(scopes)
        except IdentityError as error:
            raise ApiKeyError(str(error)) from error
        for scope in allowed:
            if scope != ALL and scope.partition(":")[0] != CALL:
                raise ApiKeyError(f"a key cannot have the scope {scope!r}: it is for calls only, "
                                  "for instance call:* or call:llm/chat")
        key_id, secret = self._text(ID_BYTES), self._text(SECRET_BYTES)
        now = self._env.now()

        def change(connection: sqlite3.Connection) -> None:
            (count,) = connection.execute("SELECT count(*) FROM api_keys WHERE revoked_at IS NULL").fetchone()
            if count >= MAX_KEYS:
                raise ApiKeyError(f"there are {MAX_KEYS} keys already; revoke some first "
                                  "with `atmosphere-p2p keys revoke ID`")
            connection.execute("INSERT INTO api_keys VALUES (?, ?, ?, ?, ?, NULL)",
                               (key_id, name, _hash(secret), " ".join(allowed), now))
            audit.note(connection, now, AuditKind.KEY_ADDED, f"key:{key_id} {name}", " ".join(allowed))

        self._store.write_now(change)
        self._load()
        return f"{PREFIX}{key_id}_{secret}"

    def list(self) -> tuple[ApiKey, ...]:
        """All keys, the oldest first, revoked ones too."""
        rows = self._store.read_now(lambda connection: connection.execute(
            "SELECT id, name, scopes, created_at, revoked_at FROM api_keys ORDER BY created_at, rowid").fetchall())
        return tuple(_key(*row) for row in rows)

    def revoke(self, key_id: str) -> ApiKey:
        """End the key *key_id*; returns it. Raises ApiKeyError when there is none in force."""
        now = self._env.now()

        def change(connection: sqlite3.Connection) -> ApiKey:
            row = None if not key_id.isascii() else connection.execute(
                "UPDATE api_keys SET revoked_at = ? WHERE id = ? AND revoked_at IS NULL "
                "RETURNING id, name, scopes, created_at, revoked_at", (now, key_id)).fetchone()
            if row is None:
                raise ApiKeyError(f"no key {key_id[:64]!r} is in force; `atmosphere-p2p keys list` shows the ids")
            key = _key(*row)
            connection.execute(
                "DELETE FROM api_keys WHERE id IN (SELECT id FROM api_keys WHERE revoked_at IS NOT NULL "
                "ORDER BY revoked_at DESC LIMIT -1 OFFSET ?)", (MAX_REVOKED,))
            audit.note(connection, now, AuditKind.KEY_REVOKED, f"key:{key.id} {key.name}", "revoked")
            return key

        key = self._store.write_now(change)
        self._load()
        return key

    def check(self, text: str) -> ApiKey | None:
        """The key in force that *text* is, or None. Memory only, and its time says nothing about the secret."""
        match = _TEXT.fullmatch(text)
        if match is None:
            return None
        expected, key = self._state.keys.get(match[1], (_NO_HASH, None))
        return key if hmac.compare_digest(_hash(match[2]), expected) else None

    def in_force(self, key_id: str) -> ApiKey | None:
        """The key *key_id* for as long as it is in force: for work that goes on after the request that showed it."""
        _, key = self._state.keys.get(key_id, (_NO_HASH, None))
        return key

    async def refresh(self) -> None:
        """Take in what another process has changed. Looks once a second at most; free in between."""
        now = self._env.monotonic()
        if now - self._looked_at < REFRESH_S:
            return
        self._looked_at = now  # before the wait: one request looks, the others go on with what is known
        version = await self._store.read(_version)
        if version != self._state.version:
            await self._env.run_blocking(self._load)

    def _load(self) -> None:
        def replace(connection: sqlite3.Connection) -> None:
            self._state = _read(connection)  # under the store's lock: no older state can follow a newer one

        self._store.read_now(replace)

    def _text(self, size: int) -> str:
        return base64.b32encode(self._env.token_bytes(size)).decode().lower()


def _path(scope: str) -> tuple[str, ...]:
    return tuple(word for word in re.split("[:/]", scope) if word != ALL)


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


def _version(connection: sqlite3.Connection) -> int:
    """A number that changes whenever another connection, of this process or another, has written."""
    return int(connection.execute("PRAGMA data_version").fetchone()[0])


def _read(connection: sqlite3.Connection) -> _State:
    version = _version(connection)  # first: a change after it is noticed the next time
    rows = connection.execute("SELECT hash, id, name, scopes, created_at FROM api_keys WHERE revoked_at IS NULL")
    return _State({row[1]: (row[0], _key(*row[1:])) for row in rows}, version)


def _key(key_id: str, name: str, scopes: str, created_at: float, revoked_at: float | None = None) -> ApiKey:
    return ApiKey(key_id, name, tuple(scopes.split()), created_at, revoked_at)
