"""The vectors that this node has computed, kept across restarts: embedding a card again takes 2 ms per text.

They are found by what was embedded and how (the digest of all texts, in one space), never by whose card it was: a
release that says more of a card, or weighs it otherwise, finds nothing and computes it. Only what this node computed
itself is kept, so what is found needs no check. It is as exact as what the matcher holds.
"""

from __future__ import annotations

import hashlib
import json
import logging
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from atmosphere.capabilities.card import Card
from atmosphere.embedding import Space
from atmosphere.env import Env
from atmosphere.routing.matching import MAX_CONTRASTED, SUBJECT_WEIGHT, Vector, card_texts
from atmosphere.routing.phrases import subject
from atmosphere.store import Store

logger = logging.getLogger(__name__)

CAPACITY = 10_000
"""Cards: 40 MB on disk at five examples each. Beyond, the longest unused go."""
USED_AGAIN_S = 86400.0
"""That a card was used is noted once a day."""
AT_ONCE = 500
"""Parameters of one query; SQLite takes at least 999."""
_LEVELS = 127

Digest = bytes


def digest_of(card: Card) -> Digest:
    """What the vectors of *card* depend on, beside the space."""
    said = [SUBJECT_WEIGHT, len(subject(card)), *card_texts(card)]
    return hashlib.sha256(json.dumps(said).encode()).digest()


@dataclass(frozen=True, slots=True)
class Kept:
    """The vectors of one card."""

    centroid: Vector
    """Shape (d,), length 1."""
    parts: Vector
    """Of the first MAX_CONTRASTED texts, as exact as the matcher holds them; shape (n, d)."""

    def encode(self) -> bytes:
        """The centroid in float32, the scale of the parts, and the parts in int8."""
        parts = self.parts[:MAX_CONTRASTED]
        scale = np.float32(max(float(np.abs(parts).max()), 1e-6) / _LEVELS)
        values = np.rint(parts / scale).astype(np.int8)
        return b"".join((np.append(self.centroid, scale).astype("<f4").tobytes(), values.tobytes()))

    @classmethod
    def decode(cls, data: bytes, dimensions: int) -> Kept | None:
        """None: these are no vectors of so many *dimensions*."""
        head = 4 * (dimensions + 1)
        if len(data) <= head or (len(data) - head) % dimensions:
            return None
        floats = np.frombuffer(data[:head], dtype="<f4").astype(np.float32)
        parts = np.frombuffer(data[head:], dtype=np.int8).reshape(-1, dimensions) * floats[-1]
        return cls(floats[:-1], parts) if bool(np.isfinite(floats).all()) else None


class KeptVectors:
    """Those of one space, in the node's store. What the disk refuses is logged and computed again another time."""

    def __init__(self, store: Store, env: Env, space: Space) -> None:
        self._store = store
        self._env = env
        self._space = space.name
        self._dimensions = space.dimensions

    def __repr__(self) -> str:
        return f"<KeptVectors of {self._space} in {self._store!r}>"

    async def find(self, digests: Sequence[Digest]) -> Mapping[Digest, Kept]:
        """Those of *digests* that are kept."""
        found: dict[Digest, Kept] = {}
        used: list[Digest] = []
        before = self._env.now() - USED_AGAIN_S
        try:
            for start in range(0, len(digests), AT_ONCE):
                rows = await self._store.read(partial(self._read, digests[start : start + AT_ONCE]))
                for digest, at, body in rows:
                    kept = Kept.decode(body, self._dimensions)
                    if kept is not None:
                        found[digest] = kept
                        if at < before:
                            used.append(digest)
            if used:
                await self._store.write(lambda connection: self._touch(connection, used))
        except (sqlite3.Error, OSError) as error:
            logger.warning("vectors of an earlier run could not be read: %s; computing them", error)
        return found

    async def save(self, vectors: Mapping[Digest, Kept]) -> None:
        """Keep *vectors*; the longest unused ones beyond CAPACITY go."""
        rows = [(self._space, digest, self._env.now(), kept.encode()) for digest, kept in vectors.items()]
        try:
            await self._store.write(lambda connection: _write(connection, rows))
        except (sqlite3.Error, OSError) as error:
            logger.warning("vectors could not be kept: %s; the next start computes them again", error)

    def _read(self, digests: Sequence[Digest], connection: sqlite3.Connection) -> list[tuple[Digest, float, bytes]]:
        marks = ", ".join("?" * len(digests))
        return connection.execute(
            f"SELECT digest, at, body FROM vectors WHERE space = ? AND digest IN ({marks})",
            (self._space, *digests),
        ).fetchall()

    def _touch(self, connection: sqlite3.Connection, digests: Iterable[Digest]) -> None:
        connection.executemany(
            "UPDATE vectors SET at = ? WHERE space = ? AND digest = ?",
            [(self._env.now(), self._space, digest) for digest in digests],
        )


def _write(connection: sqlite3.Connection, rows: Sequence[tuple[str, Digest, float, bytes]]) -> None:
    connection.executemany("INSERT OR REPLACE INTO vectors VALUES (?, ?, ?, ?)", rows)
    connection.execute(
        "DELETE FROM vectors WHERE (space, digest) IN "
        "(SELECT space, digest FROM vectors ORDER BY at DESC LIMIT -1 OFFSET ?)",
        (CAPACITY,),
    )
