"""What passes the filters is remembered, and never a moment longer than it is true."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest

from atmosphere.mesh.table import State
from atmosphere.routing.filters import Asker
from atmosphere.routing.intent import Constraints, Intent
from atmosphere.routing.reach import KEPT, Reach
from tests.mesh.people import ME, OTHER, THIRD
from tests.routing.test_router import CHAT, COOKING, VISION, World

CHATTING = Intent(tool="chat", text="hello")
ASKER = Asker()


@pytest.fixture
def world() -> World:
    world = World()
    world.node(ME, COOKING)
    world.node(OTHER, CHAT, labels=("gpu",))
    world.node(THIRD, CHAT, VISION, rtt_ms=80.0)
    return world


def test_the_same_question_is_answered_from_memory_whatever_its_text(world: World) -> None:
    reach = Reach(world.table)
    first = reach.of(CHATTING, ASKER)
    assert len(first.routes) == 4
    assert len(first.by_card) == 3
    assert reach.of(dataclasses.replace(CHATTING, text="something else", tokens=0), ASKER) is first
    assert reach.of(Intent(tool="embed"), ASKER).routes == []


CHANGES: dict[str, Callable[[World], None]] = {
    "a node fails": lambda world: world.table.gone(THIRD, "reset", State.OFFLINE),
    "a node is suspect": lambda world: world.table.doubt(THIRD, "silent", 1.0),
    "a node is forgotten": lambda world: world.table.forget(THIRD),
    "an offer changes": lambda world: world.node(THIRD, COOKING),
    "one's own membership ends": lambda world: world.table.certified(None),
}


@pytest.mark.parametrize("name", CHANGES)
async def test_every_change_of_the_table_is_seen_at_once(world: World, name: str) -> None:
    before = (await world.router.decide(CHATTING)).candidates
    CHANGES[name](world)
    after = (await world.router.decide(CHATTING)).candidates
    fresh = [route for route in world.table.routes() if any(tool.name == "chat" for tool in route.card.tools)]
    assert len(after) == len(fresh)
    assert {(one.peer, one.card_id) for one in after} == {(one.node.peer, one.entry.card) for one in fresh}
    assert after != before


def test_the_length_of_a_request_matters_only_against_what_is_offered(world: World) -> None:
    reach = Reach(world.table)
    short = reach.of(dataclasses.replace(CHATTING, tokens=100), ASKER)
    assert reach.of(dataclasses.replace(CHATTING, tokens=4096), ASKER) is short
    too_long = reach.of(dataclasses.replace(CHATTING, tokens=4097), ASKER)
    assert too_long.filtered == {"context": 2}


def test_a_measured_distance_is_looked_at_every_time(world: World) -> None:
    reach = Reach(world.table)
    near = Intent(tool="chat", constraints=Constraints(max_latency_ms=50.0))
    assert len(reach.of(near, ASKER).routes) == 2
    world.table.measured(THIRD, 5.0)
    assert len(reach.of(near, ASKER).routes) == 4


async def test_load_and_distance_count_as_they_are_now(world: World) -> None:
    """They change all the time and raise no version: the pairs are remembered, not how busy their nodes were."""
    asked = Intent(tool="chat", model="llama3.2")
    assert await world.order(asked) == [OTHER, THIRD]
    world.table.load(OTHER, 1000, 5, 1.0)
    assert await world.order(asked) == [THIRD, OTHER]
    world.table.load(OTHER, 0, 0, 2.0)
    world.table.measured(OTHER, 300.0)
    world.table.measured(THIRD, 1.0)
    assert await world.order(asked) == [THIRD, OTHER]


def test_the_memory_is_bounded(world: World) -> None:
    reach = Reach(world.table)
    for number in range(KEPT + 10):
        reach.of(Intent(tool=f"tool{number}"), ASKER)
    assert repr(reach) == f"<Reach of {KEPT} questions about 4 routes>"
