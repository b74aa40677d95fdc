"""What the mesh has said about who may act: revocations, redemptions of invites, appointed issuers.

Grow-only and self-proving: every record carries the authority it rests on, so it is judged offline, merged in any
order, and the same set means the same verdicts on every node. Records are on disk before this node answers for them
(its own) and before it passes them on (others').
"""

from __future__ import annotations

import hashlib
import logging
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum

from atmosphere.env import Env
from atmosphere.identity import (
    Credential,
    IdentityError,
    IssuerDirectory,
    Reason,
    RedemptionSet,
    Revocation,
    RevocationSet,
    Target,
)
from atmosphere.store import Store
from protocols.sync.messages import TRUST_KINDS, Key, Kind, Record
from transports.peer_id import PeerId

logger = logging.getLogger(__name__)


REPLACED = 1000
"""Records kept on disk that better ones have replaced, before they are cleared away."""


class Heard(Enum):
    """What became of a record."""

    NEW = "new"
    KNOWN = "known"
    EARLY = "early"  # from the future by this machine's clock, which may be the wrong one: nobody is to blame
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class Struck:
    """Whose memberships a new record may have ended."""

    serial: bytes = b""
    peers: frozenset[PeerId] = frozenset()
    anybody: bool = False


class Trust:
    """The trust records of one mesh, in memory and in the node's database."""

    def __init__(
        self, mesh: bytes, store: Store, env: Env, on_change: Callable[[Record, Struck], None], kept_s: float
    ) -> None:
        """*on_change*: called synchronously for every new record, once verdicts have changed, with whom to look at.
        *kept_s*: the longest
        lifetime of memberships here, seconds: how long a redemption matters after its invite."""
        self.revocations = RevocationSet(mesh)
        self.redemptions = RedemptionSet(mesh, self.revocations, kept_s=kept_s)
        self.issuers = IssuerDirectory(mesh, self.revocations)
        self._store = store
        self._env = env
        self._on_change = on_change
        self._current: dict[Key, bytes] | None = None
        self._digest: bytes | None = None
        self._heard: set[Key] = set()  # all that was taken in, with what was replaced since: asked for every record
        self._load()

    def __repr__(self) -> str:
        return f"<Trust {self.revocations!r} {self.redemptions!r} {self.issuers!r}>"

    def _load(self) -> None:
        rows = self._store.read_now(lambda c: c.execute("SELECT kind, body FROM trust ORDER BY added_at").fetchall())
        for kind, body in rows:
            if kind not in TRUST_KINDS:
                continue  # of a later release
            try:
                self._merge(Record(Kind(kind), body))
            except IdentityError as error:  # e.g. of another mesh, in a home that was copied together
                logger.warning("a trust record in the database is not taken: %s", error)

    # -- verdicts -------------------------------------------------------------------------------------------------

    def check(self, credential: Credential) -> None:
        """Raise IdentityError (revoked) if *credential* may not be used any more."""
        if self.revocations.is_revoked(credential):
            raise IdentityError(Reason.REVOKED, "revoked; only a new key with a new invite can join again")
        if self.redemptions.lost(credential.peer):
            raise IdentityError(
                Reason.REVOKED, "its invite was used by another key first, in a part of the mesh that could not be seen"
            )

    # -- what there is --------------------------------------------------------------------------------------------

    @property
    def _records(self) -> dict[Key, bytes]:
        """What counts now, by key: a record that another one has replaced is not passed on."""
        if self._current is None:
            self._digest = None
            bodies = [
                *((Kind.REVOCATION, entry.record) for entry in self.revocations),
                *((Kind.REDEMPTION, entry.record) for entry in self.redemptions),
                *((Kind.ISSUER, chain) for chain in self.issuers),
            ]
            self._current = {Key(kind, hashlib.sha256(body).digest()): body for kind, body in bodies}
        return self._current

    @property
    def digest(self) -> bytes:
        """SHA-256 over the sorted digests of all records: equal sets, equal digests."""
        if self._current is None or self._digest is None:
            self._digest = hashlib.sha256(b"".join(sorted(key.key for key in self._records))).digest()
        return self._digest

    def keys(self) -> list[Key]:
        """All records by kind and digest."""
        return list(self._records)

    def __contains__(self, key: Key) -> bool:
        return key in self._records

    def records(self, keys: list[Key]) -> Iterator[Record]:
        """Those of *keys* that are here."""
        for key in keys:
            body = self._records.get(key)
            if body is not None:
                yield Record(key.kind, body)

    # -- what is heard --------------------------------------------------------------------------------------------

    def hear(self, record: Record) -> Heard:
        """Verify *record* and take it in: on disk when this returns. Never raises for what a peer sent."""
        if key_of(record) in self._heard:
            return Heard.KNOWN
        try:
            struck = self._merge(record)
        except IdentityError as error:
            logger.debug("a %s record was refused: %s", record.kind.name.lower(), error)
            return Heard.EARLY if error.reason is Reason.NOT_YET_VALID else Heard.BAD
        if struck is None:
            return Heard.KNOWN
        self._keep(record)
        self._on_change(record, struck)
        return Heard.NEW

    def _merge(self, record: Record) -> Struck | None:
        """Take *record* in; None if it says nothing new."""
        now = self._env.now()
        struck: Struck | None = None
        if record.kind is Kind.REVOCATION:
            revocation = self.revocations.add(record.body, now)
            struck = None if revocation is None else _struck(revocation)
        elif record.kind is Kind.REDEMPTION:
            redemption = self.redemptions.add(record.body, now)
            if redemption is not None:
                struck = Struck(peers=self.redemptions.uses_of(redemption.invite_id))
        elif record.kind is Kind.ISSUER:
            struck = Struck() if self.issuers.add(record.body, now) is not None else None
        else:
            raise IdentityError(Reason.MALFORMED, f"a {record.kind.name.lower()} is not a trust record")
        if struck is not None:
            self._heard.add(key_of(record))
            self._current = None
        return struck

    def _keep(self, record: Record) -> None:
        row = (int(record.kind), record.digest, record.body, self._env.now())

        def write(connection: sqlite3.Connection) -> None:
            connection.execute("INSERT OR IGNORE INTO trust VALUES (?, ?, ?, ?)", row)

        self._store.write_now(write)  # rare and tiny: a moment's wait is better than an answer that is not on disk

    def forget_ended(self) -> None:
        """Drop what is over: statements about memberships, invites and certificates that have ended anyway."""
        now = self._env.now()
        ended = [part.forget_ended(now) for part in (self.revocations, self.redemptions, self.issuers)]
        if any(ended) or len(self._heard) > 2 * len(self._records) + REPLACED:
            self._current = None
            self._heard = set(self._records)
            kept = [(int(key.kind), key.key) for key in self._records]
            self._store.write_now(lambda connection: _keep_only(connection, kept))


def _struck(revocation: Revocation) -> Struck:
    if revocation.kind is Target.MEMBERSHIP:
        return Struck(serial=revocation.target)
    if revocation.kind is Target.PEER:
        return Struck(peers=frozenset({PeerId.from_public_key(revocation.target)}))
    return Struck(anybody=True)  # all below an issuer, and whoever owes it to the issuer that another one was too late


def _keep_only(connection: sqlite3.Connection, kept: list[tuple[int, bytes]]) -> None:
    known = set(connection.execute("SELECT kind, digest FROM trust").fetchall())
    connection.executemany("DELETE FROM trust WHERE kind = ? AND digest = ?", sorted(known - set(kept)))


def key_of(record: Record) -> Key:
    """How a trust record is asked for."""
    return Key(record.kind, record.digest)
