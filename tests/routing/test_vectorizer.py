"""Vectors of cards: used as they come, computed here in the end, and never believed against the card's own words."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import numpy as np
import pytest
import trio
import trio.testing
from numpy.typing import NDArray

from atmosphere.capabilities.card import Card
from atmosphere.capabilities.vector import CardVector
from atmosphere.embedding import HashEmbedder, Vectors
from atmosphere.env import FixedEnv
from atmosphere.routing.kept import KeptVectors, digest_of
from atmosphere.routing.matching import MAX_CONTRASTED, CardVectors, card_texts, centroid
from atmosphere.routing.phrases import subject
from atmosphere.routing.vectorizer import FETCH_GRACE_S, Vectorizer
from atmosphere.store import Store

MUSIC = Card("media/music", "Plays songs", examples=("play some jazz", "next song please"))
COOKING = Card("knowledge/answer", "Recipes", topics=("soup", "bread"), examples=("how do I bake a cake",))
KEY, OTHER_KEY = bytes(32), bytes([1]) * 32


class World:
    """A vectorizer at work."""

    def __init__(self, store: Store | None = None) -> None:
        self.embedder = HashEmbedder()
        self.vectors = CardVectors(self.embedder.space.name)
        self.wanted: list[bytes] = []
        self.given: list[CardVector] = []
        self.embedded: list[str] = []
        self.embedder.embed = self.embed  # type: ignore[method-assign]
        kept = None if store is None else KeptVectors(store, FixedEnv(), self.embedder.space)
        self.vectorizer = Vectorizer(
            self.vectors, self.embedder, FixedEnv(), self.wanted.append, self.given.append, kept
        )

    def embed(self, texts: Sequence[str]) -> Vectors:
        self.embedded += texts
        return HashEmbedder().embed(texts)

    def sent(self, text: str) -> CardVector:
        """What another node sends of the card: the vector of *text*."""
        return CardVector.from_floats(KEY, self.vectors.space, self.embedder.embed([text])[0])

    def parts(self, key: bytes = KEY) -> tuple[NDArray[np.int8], np.float32]:
        return self.vectors._phrases[self.vectors.rows[key]]

    def phrases(self) -> int:
        return len(self.parts()[0])


@asynccontextmanager
async def at_work(store: Store | None = None) -> AsyncIterator[World]:
    world = World(store)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.vectorizer.run)
        yield world
        nursery.cancel_scope.cancel()


@pytest.fixture
def own() -> CardVector:
    embedder = HashEmbedder()
    parts = embedder.embed(card_texts(MUSIC))
    return CardVector.from_floats(KEY, embedder.space.name, centroid(parts, len(subject(MUSIC))))


async def test_an_own_card_is_computed_at_once_and_given_to_the_mesh(
    autojump_clock: trio.testing.MockClock, own: CardVector
) -> None:
    async with at_work() as world:
        world.vectorizer.own_card(KEY, MUSIC)
        await trio.testing.wait_all_tasks_blocked()
        assert KEY in world.vectors
        assert world.phrases() == len(card_texts(MUSIC)) <= MAX_CONTRASTED
        assert world.given == [own]
        assert world.wanted == []


async def test_a_card_of_another_node_is_asked_for_and_computed_when_nothing_comes(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with at_work() as world:
        world.vectorizer.card(KEY, MUSIC)
        assert world.wanted == [KEY]
        await trio.sleep(0.9 * FETCH_GRACE_S)
        assert KEY not in world.vectors
        await trio.sleep(0.2 * FETCH_GRACE_S)
        assert KEY in world.vectors


async def test_what_was_sent_is_used_at_once_and_replaced_by_what_was_computed(
    autojump_clock: trio.testing.MockClock, own: CardVector
) -> None:
    async with at_work() as world:
        world.vectorizer.card(KEY, MUSIC)
        world.vectorizer.fetched(own)
        assert KEY in world.vectors
        assert world.phrases() == 1
        await trio.sleep(2 * FETCH_GRACE_S)
        assert world.phrases() == len(card_texts(MUSIC))
        assert world.vectorizer.disagreements == 0


async def test_a_vector_that_is_not_what_the_card_says_is_replaced_and_counted(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with at_work() as world:
        world.vectorizer.card(KEY, MUSIC)
        world.vectorizer.fetched(world.sent("quarterly tax filing"))
        await trio.sleep(2 * FETCH_GRACE_S)
        assert world.vectorizer.disagreements == 1
        query = world.embedder.embed(["play a song"])[0]
        vector = world.vectors.get(KEY)
        assert vector is not None
        assert vector @ query > 0.2


async def test_vectors_of_another_space_or_size_are_not_taken(autojump_clock: trio.testing.MockClock) -> None:
    async with at_work() as world:
        sent = world.sent("play")
        world.vectorizer.fetched(CardVector(KEY, "other:384", sent.scale, sent.values))
        world.vectorizer.fetched(CardVector(KEY, sent.space, sent.scale, sent.values[:10]))
        assert KEY not in world.vectors


async def test_after_a_restart_nothing_is_embedded_or_asked_for_again(autojump_clock: trio.testing.MockClock) -> None:
    store = Store.memory(FixedEnv())
    async with at_work(store) as before:
        before.vectorizer.own_card(KEY, MUSIC)
        before.vectorizer.card(OTHER_KEY, COOKING)
        await trio.sleep(2 * FETCH_GRACE_S)
        assert before.wanted == [OTHER_KEY]
        assert sorted(before.embedded) == sorted(card_texts(MUSIC) + card_texts(COOKING))
    async with at_work(store) as after:
        after.vectorizer.card(KEY, MUSIC)
        after.vectorizer.own_card(OTHER_KEY, COOKING)
        await trio.testing.wait_all_tasks_blocked()
        assert (after.embedded, after.wanted) == ([], [])
        assert after.given == before.given
        for key, card in ((KEY, MUSIC), (OTHER_KEY, COOKING)):
            vector, was = after.vectors.get(key), before.vectors.get(key)
            assert vector is not None
            assert was is not None
            assert np.array_equal(vector, was)
            (values, scale), (were, scaled) = after.parts(key), before.parts(key)
            assert np.array_equal(values, were)
            assert scale == pytest.approx(scaled, rel=1e-6)
            assert len(values) == len(card_texts(card))


async def test_what_is_computed_while_the_node_ends_is_kept_too(autojump_clock: trio.testing.MockClock) -> None:
    store = Store.memory(FixedEnv())
    async with at_work(store) as before:
        before.vectorizer.own_card(KEY, MUSIC)
        before.vectorizer.card(OTHER_KEY, COOKING)  # not due yet
        await trio.testing.wait_all_tasks_blocked()
        assert await KeptVectors(store, FixedEnv(), before.embedder.space).find([digest_of(MUSIC)]) == {}
    async with at_work(store) as after:
        after.vectorizer.own_card(KEY, MUSIC)
        after.vectorizer.own_card(OTHER_KEY, COOKING)
        await trio.testing.wait_all_tasks_blocked()
        assert after.embedded == card_texts(COOKING)


async def test_what_a_member_sent_is_never_kept(autojump_clock: trio.testing.MockClock) -> None:
    store = Store.memory(FixedEnv())
    async with at_work(store) as before:
        before.vectorizer.card(KEY, MUSIC)
        await trio.testing.wait_all_tasks_blocked()
        before.vectorizer.fetched(before.sent("quarterly tax filing"))
        await trio.testing.wait_all_tasks_blocked()
        assert KEY in before.vectors
    async with at_work(store) as after:
        after.vectorizer.card(KEY, MUSIC)
        await trio.testing.wait_all_tasks_blocked()
        assert KEY not in after.vectors
        assert after.wanted == [KEY]
