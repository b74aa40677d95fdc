"""What was learnt outlives a restart, but not its subject's membership."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import trio
import trio.testing

from atmosphere.env import FixedEnv
from atmosphere.routing.calibration import Evidence
from atmosphere.routing.learnt import KEPT_S, SAVE_EVERY_S, Learnt
from atmosphere.routing.lessons import HALF_LIFE_S, PER_CARD
from atmosphere.routing.matching import CardVectors
from atmosphere.routing.outcomes import OPINION_HALF_LIFE_S, OPINION_STEP, Outcomes
from atmosphere.store import Store
from tests.mesh.people import OTHER, THIRD

CARD, SECOND = bytes(32), bytes(31) + b"\1"
INTENT = np.array([1, 0, 0, 0], dtype=np.float32)


@pytest.fixture
def env() -> FixedEnv:
    return FixedEnv()


@pytest.fixture
def store(env: FixedEnv) -> Iterator[Store]:
    store = Store.memory(env)
    yield store
    store.close()


def started(store: Store, env: FixedEnv) -> tuple[Learnt, Outcomes]:
    """A node that has just been started on *store*."""
    learnt, outcomes, _ = taught_by(store, env)
    return learnt, outcomes


def taught_by(store: Store, env: FixedEnv, space: str = "test") -> tuple[Learnt, Outcomes, CardVectors]:
    outcomes, vectors = Outcomes(env.monotonic), CardVectors(space, monotonic=env.monotonic)
    learnt = Learnt(outcomes, vectors, store, env)
    learnt.load()
    return learnt, outcomes, vectors


def rows(store: Store) -> int:
    return store.read_now(lambda connection: int(connection.execute("SELECT count(*) FROM learnt").fetchone()[0]))


async def test_an_opinion_is_on_disk_when_it_is_acknowledged(store: Store, env: FixedEnv) -> None:
    learnt, _ = started(store, env)
    assert await learnt.judge(OTHER, CARD, good=False) == -OPINION_STEP
    _, later = started(store, env)
    assert later.opinion(OTHER, CARD) == pytest.approx(-OPINION_STEP)
    assert later.opinion(OTHER, SECOND) == later.opinion(THIRD, CARD) == 0.0


async def test_how_sure_to_be_is_learnt_for_good(store: Store, env: FixedEnv) -> None:
    vectors = CardVectors("test")
    vectors.calibration.learn(Evidence(fit=0.9, margin=0.3), right=False)
    await Learnt(Outcomes(env.monotonic), vectors, store, env).judge(OTHER, CARD, good=False)
    later, elsewhere = CardVectors("test"), CardVectors("another space")
    for started_anew in (later, elsewhere):
        Learnt(Outcomes(env.monotonic), started_anew, store, env).load()
    assert later.calibration.shifts == vectors.calibration.shifts != (0.0, 0.0)
    assert elsewhere.calibration.shifts == (0.0, 0.0)


async def test_what_was_learnt_has_aged_meanwhile(store: Store, env: FixedEnv) -> None:
    learnt, outcomes = started(store, env)
    outcomes.record(OTHER, CARD, good=True, seconds=8.0)
    await learnt.judge(OTHER, CARD, good=True)
    env.advance(OPINION_HALF_LIFE_S)
    _, later = started(store, env)
    assert later.opinion(OTHER, CARD) == pytest.approx(OPINION_STEP / 2)
    assert later.seconds(OTHER, CARD) < 0.1
    assert later.reliability(OTHER, CARD) == 1.0


async def test_what_was_seen_since_the_start_counts_more(store: Store, env: FixedEnv) -> None:
    learnt, _ = started(store, env)
    await learnt.judge(OTHER, CARD, good=True)
    outcomes = Outcomes(env.monotonic)
    outcomes.judge(OTHER, CARD, good=False)
    Learnt(outcomes, CardVectors("test"), store, env).load()
    assert outcomes.opinion(OTHER, CARD) == pytest.approx(-OPINION_STEP)


async def test_a_peer_that_is_put_out_takes_everything_with_it(
    store: Store, env: FixedEnv, autojump_clock: trio.testing.MockClock
) -> None:
    learnt, outcomes = started(store, env)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(learnt.run)
        for peer in (OTHER, THIRD):
            await learnt.judge(peer, CARD, good=True)
            await learnt.judge(peer, SECOND, good=True)
        await trio.testing.wait_all_tasks_blocked()
        assert rows(store) == 4
        learnt.forget(OTHER)
        assert outcomes.opinion(OTHER, CARD) == 0.0, "at once"
        await trio.testing.wait_all_tasks_blocked()
        assert rows(store) == 2, "on disk without waiting for the minute"
        nursery.cancel_scope.cancel()
    _, later = started(store, env)
    assert (later.opinion(OTHER, CARD), later.opinion(THIRD, CARD)) == (0.0, pytest.approx(OPINION_STEP))


async def test_timings_are_saved_within_a_minute_and_at_the_end(
    store: Store, env: FixedEnv, autojump_clock: trio.testing.MockClock
) -> None:
    learnt, outcomes = started(store, env)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(learnt.run)
        await trio.testing.wait_all_tasks_blocked()
        outcomes.record(OTHER, CARD, good=True, seconds=2.0)
        await trio.sleep(SAVE_EVERY_S / 2)
        assert rows(store) == 0
        await trio.sleep(SAVE_EVERY_S)
        assert rows(store) == 1
        outcomes.record(OTHER, SECOND, good=True, seconds=2.0)
        nursery.cancel_scope.cancel()
    assert rows(store) == 2


async def test_a_disk_that_is_full_is_tried_again(
    store: Store, env: FixedEnv, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    learnt, outcomes = started(store, env)
    write = store.write

    async def full(change: Any) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(store, "write", full)
    await learnt.judge(OTHER, CARD, good=True)
    assert "disk is full" in caplog.text
    assert outcomes.opinion(OTHER, CARD) == pytest.approx(OPINION_STEP)
    monkeypatch.setattr(store, "write", write)
    await learnt.save()
    assert rows(store) == 1
    await learnt.save()
    assert outcomes.unsaved == set()


async def test_rows_that_say_nothing_any_more_go(store: Store, env: FixedEnv) -> None:
    learnt, _ = started(store, env)
    await learnt.judge(OTHER, CARD, good=True)
    env.advance(KEPT_S + 1)
    await learnt.judge(THIRD, CARD, good=True)
    assert rows(store) == 1


def lessons_kept(store: Store) -> list[tuple[object, ...]]:
    return store.read_now(lambda connection: connection.execute("SELECT * FROM lessons ORDER BY at, card").fetchall())


async def test_a_lesson_is_on_disk_when_it_is_acknowledged_and_has_aged_after_a_restart(
    store: Store, env: FixedEnv
) -> None:
    learnt, _, vectors = taught_by(store, env)
    await learnt.teach(OTHER, CARD, INTENT, good=False)
    (lift,) = vectors.lessons.lifts(INTENT).values()
    _, _, later = taught_by(store, env)
    assert later.lessons.lifts(INTENT) == {CARD: pytest.approx(lift)}
    assert later.lessons.unsaved == {}
    _, _, elsewhere = taught_by(store, env, "another space")
    assert elsewhere.lessons.lifts(INTENT) == {}
    env.advance(HALF_LIFE_S)
    _, _, later = taught_by(store, env)
    assert later.lessons.lifts(INTENT)[CARD] == pytest.approx(lift * 0.75, rel=1e-3)
    env.advance(KEPT_S)
    _, _, later = taught_by(store, env)
    assert len(later.lessons) == 0


async def test_of_the_intent_a_vector_is_kept_and_no_text(store: Store, env: FixedEnv) -> None:
    learnt, _, _ = taught_by(store, env)
    await learnt.teach(OTHER, CARD, INTENT, good=True)
    assert lessons_kept(store) == [
        ("test", CARD, bytes([127, 0, 0, 0]), OTHER.raw, 1, pytest.approx(env.now(), abs=0.1))
    ]


async def test_lessons_of_a_peer_that_is_put_out_go_with_it(store: Store, env: FixedEnv) -> None:
    learnt, _, vectors = taught_by(store, env)
    await learnt.teach(OTHER, CARD, INTENT, good=False)
    await learnt.teach(THIRD, SECOND, INTENT, good=False)
    learnt.forget(OTHER)
    assert set(vectors.lessons.lifts(INTENT)) == {SECOND}, "at once"
    await learnt.save()
    assert [row[3] for row in lessons_kept(store)] == [THIRD.raw]


async def test_what_makes_room_in_memory_makes_room_on_disk(store: Store, env: FixedEnv) -> None:
    learnt, _, vectors = taught_by(store, env)
    for number in range(PER_CARD + 3):
        env.advance(1.0)
        await learnt.teach(OTHER, CARD, np.array([1, 0, 0, number / 100], dtype=np.float32), good=False)
    assert len(lessons_kept(store)) == len(vectors.lessons) == PER_CARD


async def test_a_lesson_waits_for_a_disk_that_is_full(
    store: Store, env: FixedEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    learnt, _, vectors = taught_by(store, env)
    write = store.write

    async def full(change: Any) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(store, "write", full)
    await learnt.teach(OTHER, CARD, INTENT, good=True)
    assert set(vectors.lessons.lifts(INTENT)) == {CARD}
    monkeypatch.setattr(store, "write", write)
    await learnt.save()
    assert len(lessons_kept(store)) == 1
