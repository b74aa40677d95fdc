"""What passes the filters is remembered, and never a moment longer than it is true."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest

from atmosphere.capabilities.offer import Offer, OfferEntry
from atmosphere.mesh.table import CHANGES_KEPT, Route, State
from atmosphere.routing import reach as reaching
from atmosphere.routing.filters import Asker, Sieve
from atmosphere.routing.intent import Constraints, Intent
from atmosphere.routing.reach import KEPT, Reach, Reachable
from tests.mesh.people import FOURTH, ME, OTHER, THIRD
from tests.routing.test_router import CHAT, COOKING, IDS, VISION, World
from transports.peer_id import PeerId

FAR = [PeerId(b"\x00\x24\x08\x01\x12\x20" + bytes([number]) * 32) for number in (1, 2, 3)]
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
    assert repr(reach) == f"<Reach of {KEPT} questions>"


def test_the_pairs_that_are_kept_are_bounded_too(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reaching, "PAIRS_KEPT", 9)
    reach = Reach(world.table)
    asked = [dataclasses.replace(CHATTING, constraints=Constraints(exclude=frozenset({peer}))) for peer in FAR]
    first, second, third = (reach.of(intent, ASKER) for intent in asked)
    assert [len(first), len(second), len(third)] == [4, 4, 4]
    assert repr(reach) == "<Reach of 2 questions>"
    assert reach.of(asked[1], ASKER) is second
    assert reach.of(asked[0], ASKER) is not first, "the oldest went"
    monkeypatch.setattr(reaching, "PAIRS_KEPT", 1)
    assert reach.of(asked[2], ASKER) is reach.of(asked[2], ASKER)


KEY = bytes([99]) * 32
NEW = dataclasses.replace(CHAT, model="new", context_tokens=6000)


def offer_unknown(world: World) -> None:
    """THIRD offers a card that nobody has described yet, beside one that is known."""
    entries = (OfferEntry(KEY, 1), OfferEntry(IDS[CHAT], 1))
    world.table.offered(THIRD, Offer(THIRD, 1, 2, "", entries, 0.0))


def flap(world: World) -> None:
    """More changes than the table's log holds."""
    for number in range(CHANGES_KEPT):
        world.table.doubt(OTHER, "silent", 1.0)
        world.table.alive(OTHER, number + 2.0)


def drop(world: World) -> None:
    """The card that nobody offers any more is forgotten."""
    world.table.prune(4.0)
    assert KEY not in world.table.cards


STEPS: list[Callable[[World], None]] = [
    lambda world: world.table.doubt(OTHER, "silent", 1.0),
    offer_unknown,
    lambda world: world.table.described(KEY, NEW),
    lambda world: world.table.alive(OTHER, 2.0),
    lambda world: world.table.gone(THIRD, "reset"),
    lambda world: world.node(FOURTH, VISION, CHAT),
    lambda world: world.table.alive(THIRD, 3.0),
    lambda world: world.node(ME),
    flap,
    lambda world: world.table.forget(THIRD),
    drop,
    lambda world: world.node(THIRD, VISION),
    offer_unknown,
    lambda world: world.table.described(KEY, dataclasses.replace(NEW, context_tokens=5000)),
    lambda world: world.table.start_from({ME: world.table.nodes[ME], FOURTH: world.table.nodes[FOURTH]}, {}),
]
ASKED = [CHATTING, Intent(tool=None), *(dataclasses.replace(CHATTING, tokens=n) for n in (1, 4097, 5500, 6001)),
         dataclasses.replace(CHATTING, tokens=1, constraints=Constraints(min_context_tokens=5500)),
         Intent(tool="chat", model="new"), Intent(tool="chat", constraints=Constraints(labels=frozenset({"gpu"})))]


@pytest.mark.parametrize("every", [1, 2, 5])
def test_what_was_kept_and_renewed_is_what_a_fresh_look_would_give(world: World, every: int) -> None:
    """After any changes, asked after each of them or after several."""
    kept, vectors = Reach(world.table), world.router.vectors
    for number, step in enumerate(STEPS):
        step(world)
        if number % every:
            continue
        for intent in ASKED:
            found = kept.of(intent, ASKER)
            fresh = Reachable(world.table, Sieve(intent, ASKER))
            assert sorted(map(repr, found.routes)) == sorted(map(repr, fresh.routes))
            assert (len(found), found.filtered) == (len(fresh.routes), fresh.filtered)
            assert found.rows(vectors).tolist() == fresh.rows(vectors).tolist()
            assert {card: set(held) for card, held in found.by_card.items()} == {
                card: set(held) for card, held in fresh.by_card.items()}


def test_only_the_nodes_that_changed_are_looked_at_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    reach = Reach(world.table)
    reach.of(CHATTING, ASKER)
    seen: list[PeerId] = []
    stops = Sieve.stops

    def looked(sieve: Sieve, route: Route) -> str | None:
        seen.append(route.node.peer)
        return stops(sieve, route)

    monkeypatch.setattr(Sieve, "stops", looked)
    world.table.doubt(THIRD, "silent", 1.0)
    world.table.alive(THIRD, 2.0)
    reach.of(CHATTING, ASKER)
    assert seen == [THIRD, THIRD], "its two offers, once"
    reach.of(CHATTING, ASKER)
    assert len(seen) == 2
