"""The audit log: what is recorded is found again, nobody can flood the rare entries out, nothing is lost silently."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from atmosphere import audit
from atmosphere.audit import AuditKind, AuditLog
from atmosphere.env import FixedEnv
from atmosphere.store import Store


@pytest.fixture
def env() -> FixedEnv:
    return FixedEnv()


@pytest.fixture
def store(env: FixedEnv) -> Iterator[Store]:
    store = Store.memory(env)
    yield store
    store.close()


async def test_newest_first_with_filters(store: Store, env: FixedEnv) -> None:
    """By time, by kind, by number; what was recorded a moment ago is there."""
    log = AuditLog(store, env)
    began = env.now()
    log.record(AuditKind.JOIN, "peer-a", "invite 1", "ok")
    env.advance(10)
    log.served("peer-a", "llm/chat", "chat", "ok", 0.0123)
    log.record(AuditKind.REVOKED, "peer-b", "membership", "ok", "lost")
    newest, served, joined = await log.query()
    assert [newest.kind, served.kind, joined.kind] == ["revoked", "served", "join"]
    assert (served.peer, served.subject, served.outcome, served.detail) == ("peer-a", "llm/chat/chat", "ok", "12 ms")
    assert joined.at == pytest.approx(began, abs=1)
    assert await log.query(since=began + 5) == (newest, served)
    assert await log.query(kind=AuditKind.JOIN) == (joined,)
    assert await log.query(limit=1) == (newest,)
    assert await log.query(limit=-1) == ()
    assert log.query_now() == (newest, served, joined)


async def test_written_once_a_second_and_at_the_end(store: Store, env: FixedEnv,
                                                    autojump_clock: trio.testing.MockClock) -> None:
    """No write per entry, and a node that stops keeps its last words."""
    log = AuditLog(store, env)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(log.run)
        log.record(AuditKind.JOIN, "a")
        await trio.sleep(0.9)
        log.record(AuditKind.JOIN, "b")
        assert log.query_now() == ()
        await trio.sleep(0.2)
        assert [entry.peer for entry in log.query_now()] == ["b", "a"]
        await trio.sleep(100)
        log.record(AuditKind.JOIN, "c")
        nursery.cancel_scope.cancel()
    assert [entry.peer for entry in log.query_now()] == ["c", "b", "a"]


async def test_equal_refusals_are_counted_in_one_row(store: Store, env: FixedEnv) -> None:
    """One who tries a thousand times a second writes one row a second; another's refusal has its own."""
    log = AuditLog(store, env)
    for _ in range(1000):
        log.record(AuditKind.REFUSED_CALL, "mallory", "llm/chat/chat", "forbidden", "scopes")
    log.record(AuditKind.REFUSED_CALL, "eve", "llm/chat/chat", "forbidden")
    assert [(entry.peer, entry.detail) for entry in await log.query()] == [
        ("eve", ""), ("mallory", "scopes (and 999 more)")]
    log.record(AuditKind.REFUSED_CALL, "mallory", "llm/chat/chat", "forbidden")
    assert [entry.detail for entry in await log.query()] == ["", "", "scopes (and 999 more)"]


async def test_a_full_queue_counts_what_it_drops(store: Store, env: FixedEnv) -> None:
    """A flood from ever new keys is dropped and counted, and a revocation still finds a place."""
    log = AuditLog(store, env)
    for number in range(audit.MAX_QUEUE + 500):
        log.record(AuditKind.JOIN_REFUSED, f"peer-{number}", "", "forged")
    log.record(AuditKind.REVOKED, "mallory")
    assert log.statistics().waiting == audit.MAX_QUEUE + 1
    for number in range(2 * audit.RARE_RESERVE):
        log.record(AuditKind.EXPELLED, f"peer-{number}")
    assert log.statistics().waiting == audit.MAX_QUEUE + audit.RARE_RESERVE
    assert len(await log.query(kind=AuditKind.REVOKED)) == 1
    (dropped,) = await log.query(kind=AuditKind.DROPPED)
    assert dropped.detail == f"{500 + audit.RARE_RESERVE + 1} entries"
    assert log.statistics() == audit.AuditStatistics(0, 500 + audit.RARE_RESERVE + 1, 0)


async def test_rows_are_bounded_and_a_flood_keeps_the_rare(store: Store, env: FixedEnv,
                                                           monkeypatch: pytest.MonkeyPatch) -> None:
    """At no moment more rows than promised; the oldest go first; calls never push out who joined."""
    monkeypatch.setattr(audit, "COMMON_ROWS", 80)
    monkeypatch.setattr(audit, "RARE_ROWS", 20)
    monkeypatch.setattr(audit, "TRIM_EVERY", 10)
    log = AuditLog(store, env)
    log.record(AuditKind.JOIN, "first")
    for number in range(60):
        for part in range(7):
            log.served(f"{number}.{part}", "llm/chat", "chat", "ok", 0.0)
        await log.flush()
        assert rows(store) <= 81
    kept = await log.query(limit=1000)
    assert (kept[0].peer, kept[-1].peer) == ("59.6", "first")
    assert 70 <= len(kept) <= 81
    for number in range(60):
        log.record(AuditKind.JOIN, str(number))
        await log.flush()
        assert rows(store) <= 100
    assert [entry.peer for entry in await log.query(kind=AuditKind.JOIN)][:2] == ["59", "58"]
    assert len(await log.query(kind=AuditKind.SERVED)) >= 70


def test_the_promised_bound() -> None:
    assert audit.COMMON_ROWS + audit.RARE_ROWS == 100_000


async def test_texts_of_others_cannot_forge_lines(store: Store, env: FixedEnv) -> None:
    """Whatever a joiner calls itself: one line of plain characters, bounded."""
    log = AuditLog(store, env)
    log.record(AuditKind.JOIN, "peer\x1b[31m", "a\nb\u202e", "ok", "ü" * 10_000)
    (entry,) = await log.query()
    assert (entry.peer, entry.subject) == ("peer?[31m", "a?b?")
    assert entry.detail == "ü" * audit.MAX_TEXT


@pytest.mark.logs_errors
async def test_a_disk_that_refuses_ends_nothing(tmp_path: Path, env: FixedEnv,
                                                caplog: pytest.LogCaptureFixture) -> None:
    """The entries wait, bounded, until writing works again."""
    store = Store(tmp_path / "node.db", env)
    log = AuditLog(store, env)
    store.read_now(lambda connection: connection.execute("PRAGMA query_only = ON"))
    log.record(AuditKind.JOIN, "a")
    await log.flush()
    assert log.statistics() == audit.AuditStatistics(1, 0, 1)
    assert "cannot be written" in caplog.text
    for number in range(audit.MAX_QUEUE + 5):
        log.record(AuditKind.JOIN, str(number))
    await log.flush()
    assert log.statistics() == audit.AuditStatistics(audit.MAX_QUEUE, 6, 2)
    store.read_now(lambda connection: connection.execute("PRAGMA query_only = OFF"))
    assert (await log.query(kind=AuditKind.DROPPED))[0].detail == "6 entries"
    assert log.statistics().waiting == 0
    store.close()


async def test_cancelled_before_the_write_loses_nothing(store: Store, autojump_clock: trio.testing.MockClock) -> None:
    class Slow(FixedEnv):
        async def run_blocking(self, function):  # type: ignore[no-untyped-def]
            await trio.sleep(5)
            return function()

    slow = Store.memory(Slow())
    log = AuditLog(slow, FixedEnv())
    log.record(AuditKind.JOIN, "a")
    with trio.move_on_after(1) as impatient:
        await log.flush()
    assert impatient.cancelled_caught
    assert [entry.peer for entry in await log.query()] == ["a"]
    slow.close()


async def test_a_note_is_part_of_its_transaction(store: Store, env: FixedEnv) -> None:
    """No trace without the act, no act without its trace."""
    def fails(connection: sqlite3.Connection) -> None:
        audit.note(connection, env.now(), AuditKind.KEY_ADDED, "key:a", "ok")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        await store.write(fails)
    log = AuditLog(store, env)
    assert await log.query() == ()
    await store.write(lambda connection: audit.note(connection, env.now(), AuditKind.KEY_ADDED, "key:a", "ok"))
    assert [entry.subject for entry in await log.query()] == ["key:a"]


def rows(store: Store) -> int:
    count: int = store.read_now(lambda connection: connection.execute("SELECT count(*) FROM audit").fetchone()[0])
    return count
