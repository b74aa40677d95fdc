"""The store: whole transactions or nothing, versions, counters that never go back."""

from __future__ import annotations

import errno
import sqlite3
from pathlib import Path

import pytest

from atmosphere.env import FixedEnv
from atmosphere.store import MIGRATIONS, Store, StoreError, disk_trouble


def test_a_counter_goes_on_after_a_restart(tmp_path: Path) -> None:
    for expected in (1, 2, 3):
        store = Store(tmp_path / "node.db", FixedEnv())
        assert store.next_counter("boot_epoch") == expected
        store.close()
    assert (tmp_path / "node.db").stat().st_mode & 0o777 == 0o600


def test_a_change_that_raises_leaves_nothing() -> None:
    store = Store.memory(FixedEnv())

    def change(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO counters VALUES ('x', 1)")
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        store.write_now(change)
    assert store.read_now(lambda c: c.execute("SELECT count(*) FROM counters").fetchone()) == (0,)
    store.close()


async def test_reads_and_writes_from_tasks() -> None:
    store = Store.memory(FixedEnv())
    await store.write(lambda c: c.execute("INSERT INTO counters VALUES ('x', 7)"))
    assert await store.read(lambda c: c.execute("SELECT value FROM counters").fetchone()) == (7,)
    store.close()


def test_a_database_of_a_newer_release_is_refused_unharmed(tmp_path: Path) -> None:
    path = tmp_path / "node.db"
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    connection.close()
    with pytest.raises(StoreError, match="newer release"):
        Store(path, FixedEnv())


def test_what_is_no_database_is_named_with_the_way_out(tmp_path: Path) -> None:
    path = tmp_path / "node.db"
    path.write_bytes(b"not a database at all" * 100)
    with pytest.raises(StoreError, match="Move the file away"):
        Store(path, FixedEnv())


def test_a_full_disk_is_told_from_a_damaged_file_and_is_over_when_there_is_room() -> None:
    store = Store.memory(FixedEnv())
    store.write_now(lambda connection: connection.execute("PRAGMA max_page_count = 1"))  # as if no page were left
    with pytest.raises(sqlite3.OperationalError) as caught:
        store.write_now(lambda connection: connection.execute("CREATE TABLE more (x TEXT) STRICT"))
    assert "full" in disk_trouble(caught.value)
    store.write_now(lambda connection: connection.execute("PRAGMA max_page_count = 1000000"))
    store.write_now(lambda connection: connection.execute("CREATE TABLE more (x TEXT) STRICT"))
    store.close()


def test_a_statement_of_ours_that_is_wrong_is_no_trouble_of_the_disk() -> None:
    store = Store.memory(FixedEnv())
    with pytest.raises(sqlite3.OperationalError) as caught:
        store.read_now(lambda connection: connection.execute("SELECT * FROM nowhere"))
    assert disk_trouble(caught.value) == disk_trouble(ValueError("x")) == disk_trouble(OSError(errno.EPIPE, "x")) == ""
    assert disk_trouble(OSError(errno.EROFS, "Read-only file system", "/x")) == "/x: Read-only file system"
    store.close()


def test_a_place_that_cannot_be_written_is_not_called_damaged(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="Make room, or check who owns the folder"):
        Store(tmp_path / "nowhere" / "node.db", FixedEnv())
