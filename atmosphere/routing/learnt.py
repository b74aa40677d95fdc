"""Keeps what was learnt across restarts: what people said of other nodes' answers, the lessons that were drawn from it,
how fast these answers were, and how far the router's probabilities were off.

What a node that was put out of the mesh had earned is deleted with it, in memory and on disk.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Mapping, Sequence

import trio

from atmosphere.env import Env
from atmosphere.routing.lessons import CAPACITY as LESSONS
from atmosphere.routing.lessons import Key, Lesson
from atmosphere.routing.matching import CardVectors, Vector
from atmosphere.routing.outcomes import CAPACITY, Outcomes
from atmosphere.store import Store
from transports.peer_id import PeerId

logger = logging.getLogger(__name__)

SAVE_EVERY_S = 60.0
"""What a crash may cost is a minute of timings; what people said is written at once."""
KEPT_S = 90 * 86400.0
"""By then an opinion has faded to a hundredth, and a lesson to an eighth."""

Row = tuple[bytes, bytes, float, float, float]
"""peer id, card, opinion, seconds, Unix seconds of both."""


class Learnt:
    """Between a router and the store. :meth:`run` owns its one task."""

    def __init__(self, outcomes: Outcomes, vectors: CardVectors, store: Store, env: Env) -> None:
        self._outcomes = outcomes
        self._vectors = vectors
        self._store = store
        self._env = env
        self._gone: set[PeerId] = set()
        self._news = trio.Event()
        self._urgent = trio.Event()
        outcomes.on_unsaved = lambda: self._news.set()

    def __repr__(self) -> str:
        return f"<Learnt of {self._outcomes!r}>"

    def load(self) -> None:
        """Read what an earlier run left; at start, on the calling thread."""
        now = self._env.now()
        for raw, card, opinion, seconds, at in self._store.read_now(_read):
            self._outcomes.restore(PeerId(raw), card, opinion, seconds, now - at)
        self._vectors.calibration.restore(*self._store.read_now(self._read_shifts))
        for raw, card, body, good, at in self._store.read_now(self._read_lessons):
            self._vectors.lessons.restore(PeerId(raw), card, body, bool(good), now - at)
        self._vectors.lessons.unsaved.clear()

    def forget(self, peer: PeerId) -> None:
        """*peer* is put out of the mesh: nothing of it is kept, and its rows go with the next :meth:`save`."""
        self._outcomes.forget(peer)
        self._vectors.lessons.forget(peer)
        self._gone.add(peer)
        self._news.set()
        self._urgent.set()

    async def judge(self, peer: PeerId, card_id: bytes, good: bool) -> float:
        """Somebody says that an answer was good, or bad: in force and on disk when this returns; the opinion now."""
        opinion = self._outcomes.judge(peer, card_id, good)
        await self.save()
        return opinion

    async def teach(self, peer: PeerId, card_id: bytes, vector: Vector, good: bool) -> None:
        """The card is right, or wrong, for the intent with that unit vector, as an answer of *peer* showed: in force
        and on disk when this returns."""
        self._vectors.lessons.teach(peer, card_id, vector, good)
        await self.save()

    async def run(self) -> None:
        """Save what is new, within a minute and at the end, until cancelled."""
        try:
            while True:
                await self._news.wait()
                self._news = trio.Event()
                with trio.move_on_after(SAVE_EVERY_S):
                    await self._urgent.wait()
                self._urgent = trio.Event()
                await self.save()
        finally:
            with trio.CancelScope(shield=True):
                await self.save()

    async def save(self) -> None:
        """Write what is new. What cannot be written (a full disk) is tried again with the next save."""
        outcomes, lessons, gone = self._outcomes, self._vectors.lessons, self._gone
        pairs, outcomes.unsaved, self._gone = outcomes.unsaved, set(), set()
        taught, lessons.unsaved = lessons.unsaved, {}
        if not pairs and not gone and not taught:
            return
        now, space = self._env.now(), self._vectors.space
        began = now - self._env.monotonic()  # Unix seconds of the clock's 0
        rows = [(p.raw, card, outcomes.opinion(p, card), outcomes.seconds(p, card), now) for p, card in pairs]
        shifts = (space, *self._vectors.calibration.shifts)

        def write(connection: sqlite3.Connection) -> None:
            _write(connection, rows, [peer.raw for peer in gone], now)
            _write_lessons(connection, space, taught, [peer.raw for peer in gone], began, now)
            connection.execute("INSERT OR REPLACE INTO calibration VALUES (?, ?, ?)", shifts)

        try:
            await self._store.write(write)
        except (sqlite3.Error, OSError) as error:
            logger.warning("what was learnt of other nodes could not be saved: %s; trying again later", error)
            outcomes.unsaved |= pairs
            lessons.unsaved = taught | lessons.unsaved
            self._gone |= gone

    def _read_shifts(self, connection: sqlite3.Connection) -> tuple[float, float]:
        found = connection.execute("SELECT right, somebody FROM calibration WHERE space = ?", (self._vectors.space,))
        return found.fetchone() or (0.0, 0.0)

    def _read_lessons(self, connection: sqlite3.Connection) -> list[tuple[bytes, bytes, bytes, int, float]]:
        found = connection.execute(
            "SELECT peer, card, vector, good, at FROM lessons WHERE space = ? AND at >= ? ORDER BY at DESC LIMIT ?",
            (self._vectors.space, self._env.now() - KEPT_S, LESSONS),
        ).fetchall()
        return found[::-1]


def _read(connection: sqlite3.Connection) -> list[Row]:
    found = connection.execute(
        "SELECT peer, card, opinion, seconds, at FROM learnt ORDER BY at DESC LIMIT ?", (CAPACITY,)
    ).fetchall()
    return found[::-1]  # the newest last: what is over the outcomes' capacity are the oldest


def _write(connection: sqlite3.Connection, rows: Sequence[Row], gone: Sequence[bytes], now: float) -> None:
    connection.executemany("INSERT OR REPLACE INTO learnt VALUES (?, ?, ?, ?, ?)", rows)
    connection.executemany("DELETE FROM learnt WHERE peer = ?", [(peer,) for peer in gone])
    connection.execute("DELETE FROM learnt WHERE at < ?", (now - KEPT_S,))
    connection.execute(
        "DELETE FROM learnt WHERE at < (SELECT at FROM learnt ORDER BY at DESC LIMIT 1 OFFSET ?)", (CAPACITY,)
    )


def _write_lessons(
    connection: sqlite3.Connection,
    space: str,
    taught: Mapping[Key, Lesson | None],
    gone: Sequence[bytes],
    began: float,
    now: float,
) -> None:
    """*taught*: as in ``Lessons.unsaved``. *began*: Unix seconds of the 0 of the clock that lessons are dated by."""
    for (card, body), lesson in taught.items():
        if lesson is None:
            connection.execute("DELETE FROM lessons WHERE space = ? AND card = ? AND vector = ?", (space, card, body))
        else:
            row = (space, card, body, lesson.peer.raw, lesson.good, began + lesson.at)
            connection.execute("INSERT OR REPLACE INTO lessons VALUES (?, ?, ?, ?, ?, ?)", row)
    connection.executemany("DELETE FROM lessons WHERE peer = ?", [(peer,) for peer in gone])
    connection.execute("DELETE FROM lessons WHERE at < ?", (now - KEPT_S,))
