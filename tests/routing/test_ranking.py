"""Ranking: whoever is best by the full formula comes first, whatever was remembered to find that out faster."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from atmosphere.capabilities.offer import Offer, OfferEntry
from atmosphere.mesh.table import Path, Route
from atmosphere.routing.decision import Candidate
from atmosphere.routing.intent import Intent, Prefer
from atmosphere.routing.outcomes import Outcomes
from atmosphere.routing.ranking import Ranking
from atmosphere.routing.scoring import Standings, factors, score
from protocols.beacons import Beacon
from tests.mesh.people import ME, OTHER, membership_of
from tests.routing.test_router import CHAT, COOKING, IDS, VISION, World
from transports.peer_id import PeerId

CHANCE = random.Random(7)
PEERS = [PeerId(b"\x00\x24\x08\x01\x12\x20" + CHANCE.randbytes(32)) for _ in range(60)]
SIZES = {CHAT.model: 0.9, VISION.model: 1.0}


def crowd() -> tuple[World, Outcomes]:
    """Sixty nodes and this one, alike in groups, so that there are ties; something is known of some."""
    chance, world = random.Random(1), World()
    for peer in [ME, *PEERS]:
        cards = chance.sample((CHAT, VISION, COOKING), chance.randint(1, 3))
        entries = tuple(OfferEntry(IDS[card], 1, chance.choice((0, 0, 5000)), ()) for card in cards)
        load, queue, cost = chance.choice((0, 0, 500)), chance.choice((0, 0, 3)), chance.choice((1000, 3000))
        beacon = Beacon(bytes(32), 1, 1, 15_000, bytes(32), 0, load, queue, cost)
        world.table.connected(peer, Path.LOCAL if peer == ME else Path.LAN, 0.0)
        world.table.observe(peer, beacon, membership_of(OTHER), 0.0)
        world.table.offered(peer, Offer(peer, 1, 1, "", entries, 0.0))
        if rtt_ms := chance.choice((None, 5.0, 300.0)):
            world.table.measured(peer, rtt_ms)
    outcomes = Outcomes()
    for route in chance.sample(list(world.table.routes()), 30):
        outcomes.record(route.node.peer, route.entry.card, chance.random() < 0.5, chance.uniform(0.1, 30.0))
        outcomes.judge(route.node.peer, route.entry.card, chance.random() < 0.5)
    return world, outcomes


def size(world: World) -> Callable[[bytes], float | None]:
    return lambda card: SIZES.get(world.table.cards[card].model)


def by_the_formula(world: World, outcomes: Outcomes, prefer: Prefer) -> list[tuple[float, bytes, bytes]]:
    """Every pair by its full record: score, peer id, card."""

    def scored(route: Route) -> tuple[float, bytes, bytes]:
        reliability, seconds, opinion = outcomes.learnt(route.node.peer, route.entry.card)
        values = dict(factors(route, 1.0, reliability, seconds=seconds, opinion=opinion, prefer=prefer))
        further = size(world)(route.entry.card)
        return score(values | ({} if further is None else {"size": further})), route.node.peer.raw, route.entry.card

    return sorted(map(scored, world.table.routes()), key=lambda item: item[:2], reverse=True)


def key(candidate: Candidate) -> tuple[float, bytes, bytes]:
    return candidate.score, candidate.peer.raw, candidate.card_id


@pytest.mark.parametrize("prefer", Prefer)
def test_the_best_are_those_of_the_full_formula_to_the_last_bit(prefer: Prefer) -> None:
    world, outcomes = crowd()
    standings = Standings()
    for _ in range(2):  # the second time from what was remembered of the nodes, some of which have changed
        ranking = Ranking(list(world.table.routes()), Intent(tool="chat", prefer=prefer), None, outcomes, standings,
                          lambda route: 1.0, {"size": size(world)})
        expected = by_the_formula(world, outcomes, prefer)
        assert [key(one) for one in ranking.best(32)] == expected[:32]
        assert all(one.score == score(one.factors) for one in ranking.best(10_000))
        assert len(ranking.best(10_000)) == len(expected)
        for peer in PEERS[:20]:
            world.table.load(peer, 900, 2, 1.0)
            world.table.measured(peer, 40.0)


def test_the_best_pair_of_each_card() -> None:
    world, outcomes = crowd()
    ranking = Ranking(list(world.table.routes()), Intent(tool="chat"), None, outcomes, Standings(), lambda route: 1.0)
    best: dict[bytes, Candidate] = {}
    for candidate in ranking.best(10_000):
        best.setdefault(candidate.card_id, candidate)
    assert ranking.best_of_cards(2) == list(best.values())[:2]


def test_a_card_that_was_chosen_goes_first_and_keeps_its_order() -> None:
    world, outcomes = crowd()
    ranking = Ranking(list(world.table.routes()), Intent(tool="chat"), None, outcomes, Standings(), lambda route: 1.0)
    every = ranking.best(10_000)
    first = every[-1].card_id
    assert ranking.best(10_000, first) == sorted(every, key=lambda one: one.card_id != first)
