"""Affinity: a conversation stays where it was computed, unless that node is full or out of the mesh."""

from __future__ import annotations

import pytest

from atmosphere.routing.affinity import CAPACITY, LIFETIME_S, PEERS_KEPT, Affinity
from atmosphere.routing.intent import Intent
from atmosphere.routing.scoring import AFFINITY_FLOOR, AFFINITY_NEAR, OVERLOADED_PERMILLE
from tests.mesh.people import FOURTH, ME, OTHER, THIRD
from tests.routing.test_router import CHAT, IDS, VISION, World
from transports.peer_id import PeerId

CARD = IDS[CHAT]
TALK, SYSTEM = b"talk", b"system"


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def ask(*prefixes: bytes, tokens: int = 0) -> Intent:
    return Intent(tool="chat", model="llama3.2", prefixes=prefixes, tokens=tokens)


@pytest.fixture
def world() -> World:
    world = World()
    world.node(OTHER, CHAT)
    world.node(THIRD, CHAT, rtt_ms=4.0)  # a little better
    return world


async def test_the_same_beginning_goes_to_the_same_node(world: World) -> None:
    assert await world.order(ask(TALK, SYSTEM)) == [THIRD, OTHER]
    world.router.affinity.note((TALK, SYSTEM), CARD, OTHER)
    assert await world.order(ask(TALK, SYSTEM)) == [OTHER, THIRD]
    assert await world.order(ask(b"new", SYSTEM)) == [OTHER, THIRD], "the system prompt is computed there"
    assert await world.order(ask(b"new", b"other")) == [THIRD, OTHER]
    assert await world.order(ask()) == [THIRD, OTHER]


async def test_the_longer_the_request_the_more_it_counts(world: World) -> None:
    world.router.affinity.note((TALK,), CARD, OTHER)
    decision = await world.router.decide(ask(TALK))
    assert [one.factors["affinity"] for one in decision.candidates] == [1.0, AFFINITY_NEAR]
    decision = await world.router.decide(ask(TALK, tokens=4000))
    assert [one.factors["affinity"] for one in decision.candidates] == [1.0, AFFINITY_FLOOR]
    world.node(THIRD, CHAT, rtt_ms=4.0)
    world.table.load(OTHER, 600, 0, 0.0)
    assert await world.order(ask(TALK)) == [THIRD, OTHER], "short: the idle one"
    assert await world.order(ask(TALK, tokens=4000)) == [OTHER, THIRD], "long: the one that has read it"


@pytest.mark.parametrize(("load", "queue"), [(OVERLOADED_PERMILLE, 0), (0, 1)])
async def test_a_node_that_is_overloaded_is_not_preferred_and_nobody_pays_for_it(
    world: World, load: int, queue: int
) -> None:
    world.router.affinity.note((TALK,), CARD, OTHER)
    world.table.load(OTHER, load, queue, 0.0)
    decision = await world.router.decide(ask(TALK, tokens=4000))
    assert [one.peer for one in decision.candidates] == [THIRD, OTHER]
    assert [one.factors["affinity"] for one in decision.candidates] == [1.0, 1.0]
    world.table.load(OTHER, 0, 0, 0.0)
    assert await world.order(ask(TALK, tokens=4000)) == [OTHER, THIRD], "and it returns"


async def test_another_model_has_not_read_it(world: World) -> None:
    world.router.affinity.note((TALK,), IDS[VISION], OTHER)
    assert await world.order(ask(TALK)) == [THIRD, OTHER]


def test_the_most_specific_beginning_counts() -> None:
    memory = Affinity()
    memory.note((TALK, SYSTEM), CARD, OTHER)
    memory.note((b"elsewhere", SYSTEM), CARD, THIRD)
    assert memory.holders((TALK, SYSTEM), CARD) == {OTHER}
    assert memory.holders((b"new", SYSTEM), CARD) == {OTHER, THIRD}


def test_what_was_long_ago_is_gone() -> None:
    clock = Clock()
    memory = Affinity(clock)
    memory.note((TALK,), CARD, OTHER)
    clock.now = LIFETIME_S
    assert memory.holders((TALK,), CARD) == {OTHER}
    clock.now += 1
    assert memory.holders((TALK,), CARD) == frozenset()


def test_bounded_and_without_those_who_are_out() -> None:
    memory = Affinity()
    peers = [ME, OTHER, THIRD, FOURTH, PeerId.from_public_key(bytes(range(32)))]
    for peer in peers:
        memory.note((TALK,), CARD, peer)
    assert memory.holders((TALK,), CARD) == set(peers[-PEERS_KEPT:])
    memory.forget(THIRD)
    assert THIRD not in memory.holders((TALK,), CARD)
    for number in range(CAPACITY + 5):
        memory.note((number.to_bytes(4, "big"),), CARD, OTHER)
    assert len(memory) == CAPACITY
    memory.forget(OTHER)
    assert len(memory) == 0
