"""Vectors of cards: used as they come, computed here in the end, and never believed against the card's own words."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from atmosphere.capabilities.card import Card
from atmosphere.capabilities.vector import CardVector
from atmosphere.embedding import HashEmbedder
from atmosphere.env import FixedEnv
from atmosphere.routing.matching import MAX_CONTRASTED, CardVectors, card_texts, centroid
from atmosphere.routing.phrases import subject
from atmosphere.routing.vectorizer import FETCH_GRACE_S, Vectorizer

MUSIC = Card("media/music", "Plays songs", examples=("play some jazz", "next song please"))
KEY = bytes(32)


class World:
    """A vectorizer at work."""

    def __init__(self) -> None:
        self.embedder = HashEmbedder()
        self.vectors = CardVectors(self.embedder.space.name)
        self.wanted: list[bytes] = []
        self.given: list[CardVector] = []
        self.vectorizer = Vectorizer(self.vectors, self.embedder, FixedEnv(), self.wanted.append, self.given.append)

    def sent(self, text: str) -> CardVector:
        """What another node sends of the card: the vector of *text*."""
        return CardVector.from_floats(KEY, self.vectors.space, self.embedder.embed([text])[0])

    def phrases(self) -> int:
        values, _ = self.vectors._phrases[self.vectors.rows[KEY]]
        return len(values)


@asynccontextmanager
async def at_work() -> AsyncIterator[World]:
    world = World()
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
        assert vector @ query > 0.3


async def test_vectors_of_another_space_or_size_are_not_taken(autojump_clock: trio.testing.MockClock) -> None:
    async with at_work() as world:
        sent = world.sent("play")
        world.vectorizer.fetched(CardVector(KEY, "other:384", sent.scale, sent.values))
        world.vectorizer.fetched(CardVector(KEY, sent.space, sent.scale, sent.values[:10]))
        assert KEY not in world.vectors
