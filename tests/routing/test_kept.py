"""Vectors across restarts: found by what was embedded, bounded, and never worth a failure."""

from __future__ import annotations

import dataclasses
import sqlite3
from typing import Any

import numpy as np
import pytest

from atmosphere.capabilities.card import Card, Tool
from atmosphere.embedding import Space
from atmosphere.env import FixedEnv
from atmosphere.routing import kept
from atmosphere.routing.kept import USED_AGAIN_S, Kept, KeptVectors, digest_of
from atmosphere.routing.matching import MAX_CONTRASTED
from atmosphere.store import Store

MUSIC = Card("media/music", "Plays songs", model="a", topics=("jazz",), examples=("play some jazz", "next song"),
             tools=(Tool("skip", "Skips a song"),))
SPACE = Space.of("tiny", 4)
OTHER_SPACE = Space.of("other", 4)


def some(seed: int, texts: int = 3) -> Kept:
    chance = np.random.default_rng(seed)
    parts = chance.standard_normal((texts, 4)).astype(np.float32)
    parts /= np.linalg.norm(parts, axis=1, keepdims=True)
    return Kept(parts[0], parts)


@pytest.fixture
def env() -> FixedEnv:
    return FixedEnv()


@pytest.fixture
def store(env: FixedEnv) -> Store:
    return Store.memory(env)


async def test_what_is_found_is_what_was_kept(store: Store, env: FixedEnv) -> None:
    vectors = KeptVectors(store, env, SPACE)
    given = {bytes([number]) * 32: some(number, texts=1 + number) for number in range(20)}
    await vectors.save(given)
    found = await KeptVectors(store, env, SPACE).find([*given, bytes(31)])
    assert found.keys() == given.keys()
    for key, one in given.items():
        assert np.array_equal(found[key].centroid, one.centroid)
        assert len(found[key].parts) == min(len(one.parts), MAX_CONTRASTED)
        assert np.abs(found[key].parts - one.parts[:MAX_CONTRASTED]).max() < 1 / 127


async def test_another_space_has_its_own(store: Store, env: FixedEnv) -> None:
    await KeptVectors(store, env, SPACE).save({bytes(32): some(1)})
    assert not await KeptVectors(store, env, OTHER_SPACE).find([bytes(32)])


SAYS: dict[str, tuple[dict[str, Any], bool]] = {
    "another description": ({"description": "Plays music"}, True),
    "another topic": ({"topics": ("rock",)}, True),
    "one example less": ({"examples": ("play some jazz",)}, True),
    "the same texts, but none of them the subject": ({"topics": (), "examples": ("play", "x")}, True),
    "another tool": ({"tools": (Tool("skip", "Skips"),)}, True),
    "another model": ({"model": "b"}, False),
    "more features": ({"features": ("tools",)}, False),
}


@pytest.mark.parametrize("name", SAYS)
def test_vectors_are_found_by_what_was_embedded(name: str) -> None:
    changes, differs = SAYS[name]
    assert (digest_of(dataclasses.replace(MUSIC, **changes)) != digest_of(MUSIC)) is differs


def test_another_weight_of_the_subject_is_another_vector(monkeypatch: pytest.MonkeyPatch) -> None:
    before = digest_of(MUSIC)
    monkeypatch.setattr(kept, "SUBJECT_WEIGHT", 2.5)
    assert digest_of(MUSIC) != before


async def test_the_longest_unused_go(store: Store, env: FixedEnv, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "CAPACITY", 3)
    monkeypatch.setattr(kept, "AT_ONCE", 2)
    vectors = KeptVectors(store, env, SPACE)
    keys = [bytes([number]) * 32 for number in range(5)]
    for key in keys[:3]:
        await vectors.save({key: some(1)})
        env.advance(USED_AGAIN_S + 1)
    assert len(await vectors.find(keys[:1])) == 1, "used again: it is the newest now"
    await vectors.save({keys[3]: some(1), keys[4]: some(1)})
    assert (await vectors.find(keys)).keys() == {keys[0], keys[3], keys[4]}


BROKEN = {"empty": b"", "cut": some(1).encode()[:-1], "no parts": some(1).encode()[:20],
          "of more dimensions": bytes(33), "not a number": np.full(5, np.nan, "<f4").tobytes() + bytes(4)}


@pytest.mark.parametrize("name", BROKEN)
async def test_what_is_broken_on_disk_is_as_good_as_not_there(store: Store, env: FixedEnv, name: str) -> None:
    vectors = KeptVectors(store, env, SPACE)
    await vectors.save({bytes(32): some(1)})
    store.write_now(lambda connection: connection.execute("UPDATE vectors SET body = ?", (BROKEN[name],)))
    assert await vectors.find([bytes(32)]) == {}


async def test_a_disk_that_refuses_costs_a_warning(
    store: Store, env: FixedEnv, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def full(change: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    vectors = KeptVectors(store, env, SPACE)
    monkeypatch.setattr(store, "write", full)
    await vectors.save({bytes(32): some(1)})
    monkeypatch.setattr(store, "read", full)
    assert await vectors.find([bytes(32)]) == {}
    assert [record.message.partition(":")[0] for record in caplog.records] == [
        "vectors could not be kept", "vectors of an earlier run could not be read"]
