"""The gradient table: what becomes of facts over time. Times are plain numbers."""

from __future__ import annotations

import dataclasses

import pytest

from atmosphere.capabilities.card import Card
from atmosphere.capabilities.offer import Offer, OfferEntry
from atmosphere.mesh.table import MIN_PRUNE_S, GradientTable, Node, Path, State
from protocols.beacons import Beacon
from tests.mesh.people import FOURTH, ME, OTHER, THIRD, membership_of
from transports.peer_id import PeerId

CARD_ID = bytes([5]) * 32
CARD = Card("llm/chat", "A chat model", model="m")
BEACON = Beacon(bytes(32), 1, 1, 15_000, bytes(32), 0)


def offer(*cards: bytes, name: str = "gpu") -> Offer:
    return Offer(OTHER, 1, 1, name, tuple(OfferEntry(card) for card in cards), 0.0)


@pytest.fixture
def table() -> GradientTable:
    table = GradientTable(ME)
    table.connected(ME, Path.LOCAL, 0.0)
    table.observe(OTHER, BEACON, membership_of(OTHER), 0.0)
    table.offered(OTHER, offer(CARD_ID))
    table.described(CARD_ID, CARD)
    return table


def test_a_card_is_a_route_once_beacon_offer_and_card_are_there(table: GradientTable) -> None:
    assert [(route.node.peer, route.card) for route in table.routes()] == [(OTHER, CARD)]
    without_card = GradientTable(ME)
    without_card.observe(OTHER, BEACON, membership_of(OTHER), 0.0)
    without_card.offered(OTHER, offer(CARD_ID))
    assert list(without_card.routes()) == []


def test_an_older_or_repeated_beacon_changes_nothing(table: GradientTable) -> None:
    newer = dataclasses.replace(BEACON, sequence=5, load_permille=700)
    assert table.observe(OTHER, newer, membership_of(OTHER), 10.0)
    version = table.version
    for stale in (BEACON, newer, dataclasses.replace(newer, load_permille=1)):
        assert not table.observe(OTHER, stale, membership_of(OTHER), 20.0)
    assert table.nodes[OTHER].load_permille == 700
    assert table.version == version


def test_a_later_epoch_outranks_any_sequence(table: GradientTable) -> None:
    table.observe(OTHER, dataclasses.replace(BEACON, sequence=10**6), membership_of(OTHER), 1.0)
    assert table.observe(OTHER, dataclasses.replace(BEACON, epoch=2, sequence=1), membership_of(OTHER), 2.0)


def test_a_doubted_node_is_not_a_route_and_returns_at_the_first_proof(table: GradientTable) -> None:
    table.doubt(OTHER, "a call failed", 3.0)
    assert table.nodes[OTHER].state is State.SUSPECT
    assert list(table.routes()) == []
    table.doubt(OTHER, "again", 9.0)
    assert table.nodes[OTHER].silent_since == 3.0  # doubt begins once
    table.alive(OTHER, 10.0)
    assert len(list(table.routes())) == 1
    assert table.nodes[OTHER].silent_since is None


@pytest.mark.parametrize("state", [State.OFFLINE, State.LEFT])
def test_a_node_that_is_gone_returns_with_a_newer_beacon(table: GradientTable, state: State) -> None:
    table.gone(OTHER, "stopped", state)
    assert table.nodes[OTHER].state is state
    assert list(table.routes()) == []
    table.observe(OTHER, dataclasses.replace(BEACON, sequence=2), membership_of(OTHER), 5.0)
    assert table.nodes[OTHER].state is State.ONLINE


def test_this_node_never_doubts_itself(table: GradientTable) -> None:
    table.doubt(ME, "nonsense", 1.0)
    table.gone(ME, "nonsense")
    assert table.nodes[ME].state is State.ONLINE


@pytest.mark.parametrize(("period_ms", "patience"), [(15_000, MIN_PRUNE_S), (200_000, 600.0)])
def test_silence_is_forgotten_after_five_minutes_or_three_periods(
    table: GradientTable, period_ms: int, patience: float
) -> None:
    beacon = dataclasses.replace(BEACON, sequence=2, period_ms=period_ms)
    table.observe(OTHER, beacon, membership_of(OTHER), 100.0)
    assert table.prune(100.0 + patience) == []
    assert table.prune(100.1 + patience) == [OTHER]
    assert CARD_ID not in table.cards  # what nobody offers goes too
    assert ME in table.nodes


def test_who_spoke_before_the_mesh_grew_is_kept_for_three_periods_of_now(table: GradientTable) -> None:
    table.observe(OTHER, dataclasses.replace(BEACON, sequence=2, period_ms=18_000), membership_of(OTHER), 100.0)
    for number in range(1000):
        peer = PeerId.from_public_key(number.to_bytes(32))
        table.nodes[peer] = Node(peer, 1100.0)
    assert table.prune(100.0 + 2 * MIN_PRUNE_S) == []  # its next beacon may come five minutes after the last one
    assert OTHER in table.prune(100.0 + 4 * MIN_PRUNE_S)


def test_every_change_is_in_the_log_with_a_growing_number(table: GradientTable) -> None:
    table.doubt(OTHER, "why", 1.0)
    numbers = [change.number for change in table.changes]
    assert numbers == sorted(set(numbers))
    assert numbers[-1] == table.version
    assert table.changes[-1].what == "suspect: why"


def test_a_load_figure_of_a_call_counts_at_once(table: GradientTable) -> None:
    table.load(OTHER, 900, 4, 50.0)
    node = table.nodes[OTHER]
    assert (node.load_permille, node.queue, node.last_seen) == (900, 4, 50.0)


def test_who_is_offline_is_known_without_a_search() -> None:
    table = GradientTable(ME)
    for peer in (OTHER, THIRD):
        table.node(peer, 0.0)
        table.gone(peer, "silent")
    assert list(table.offline) == [OTHER, THIRD]
    table.alive(OTHER, 1.0)
    table.gone(THIRD, "it said goodbye", State.LEFT)
    assert not table.offline
    table.gone(OTHER, "silent")
    table.forget(OTHER)
    assert not table.offline


def test_a_full_table_forgets_whom_it_has_not_seen_for_longest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("atmosphere.mesh.table.MAX_NODES", 3)
    monkeypatch.setattr("atmosphere.mesh.table.EVICTED", 1)
    table = GradientTable(ME)
    for peer, now in ((ME, 0.0), (OTHER, 2.0), (THIRD, 1.0), (FOURTH, 3.0)):
        table.node(peer, now)
    assert list(table.nodes) == [ME, OTHER, FOURTH]


def test_a_node_that_was_looked_up_is_what_it_was_then(table: GradientTable) -> None:
    before = table.nodes[OTHER]
    table.gone(OTHER, "silent")
    assert before.state is State.ONLINE
    with pytest.raises(dataclasses.FrozenInstanceError):
        before.state = State.OFFLINE  # type: ignore[misc]
