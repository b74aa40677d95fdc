"""What a node says that it knows is what it knows, however it came to know it, and a change costs what it changes."""

from __future__ import annotations

import hashlib
from collections import deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atmosphere.env import FixedEnv
from atmosphere.identity import Target, revoke
from atmosphere.mesh.inventory import Inventory
from atmosphere.mesh.table import GradientTable, State
from atmosphere.mesh.trust import Struck, Trust
from atmosphere.store import Store
from protocols.beacons import Beacon
from protocols.sync.messages import Ask, Kind, Known, Overview, Presence, Record
from protocols.sync.summary import Summary
from tests.mesh.people import FOURTH, ME, MESH, NOW, OTHER, OWNER, THIRD, membership_of
from transports.peer_id import PeerId

PEERS = (ME, OTHER, THIRD, FOURTH)
STEPS = st.tuples(st.sampled_from(("beacon", "offer", "gone", "left", "alive", "doubt", "forget", "own", "look")),
                  st.sampled_from(PEERS[1:]))


def trust() -> Trust:
    env = FixedEnv(1, start=NOW)
    return Trust(MESH, Store.memory(env), env, lambda *_: None, 86400)


def beacon_of(sequence: int, offer: int) -> Beacon:
    return Beacon(bytes(32), 1, sequence, 15_000, bytes([offer % 256]) * 32, 0)


@pytest.mark.parametrize("kept", [1024, 2])  # with a log of two changes there is more than once no log to go by
@given(steps=st.lists(STEPS, max_size=25))
@settings(deadline=None, max_examples=60)
def test_it_is_that_of_the_table_as_it_is_now(kept: int, steps: list[tuple[str, object]]) -> None:
    table = GradientTable(ME, changes=deque(maxlen=kept))
    table.node(ME, 0.0)
    inventory = Inventory(table, trust())
    for number, (what, peer) in enumerate(steps, 1):
        assert peer in PEERS
        match what:
            case "beacon":
                table.observe(peer, beacon_of(number, 1), membership_of(peer), 0.0)
            case "offer":
                table.observe(peer, beacon_of(number, number), membership_of(peer), 0.0)
            case "gone":
                table.gone(peer, "silent")
            case "left":
                table.gone(peer, "it said goodbye", State.LEFT)
            case "alive":
                table.alive(peer, 1.0)
            case "doubt":
                table.doubt(peer, "silent", 1.0)
            case "forget":
                table.forget(peer)
            case "own":
                table.spoke(beacon_of(number, number // 3))
            case "look":
                assert_agrees(inventory, table)
    assert_agrees(inventory, table)


def assert_agrees(inventory: Inventory, table: GradientTable) -> None:
    presences = {State.OFFLINE: b"\1"}
    there = [node for node in table.nodes.values() if node.beacon is not None]
    said = [
        (node.peer.public_key, node.beacon.membership + node.beacon.offer + presences.get(node.state, b"\0"))
        for node in there if node.state is not State.LEFT and node.beacon
    ]
    expected = Summary((name, hashlib.sha256(text).digest()) for name, text in said)
    assert inventory.nodes.root == expected.root
    assert inventory.nodes.digests(4) == expected.digests(4)
    told = inventory.answer(Ask()).known
    assert {(known.author, known.presence is Presence.LEFT) for known in told} == {
        (node.peer.public_key, node.state is State.LEFT) for node in there
    }
    assert len(told) == len(there)


def test_a_change_looks_at_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    table = GradientTable(ME)
    inventory = Inventory(table, trust())
    for peer in PEERS:
        table.observe(peer, beacon_of(1, 1), membership_of(peer), 0.0)
    before = inventory.nodes.root
    looked: list[object] = []
    renew = Inventory._renew
    monkeypatch.setattr(Inventory, "_renew", lambda self, peer: (looked.append(peer), renew(self, peer)))
    table.gone(THIRD, "silent")
    assert inventory.nodes.root != before
    assert looked == [THIRD]
    table.alive(THIRD, 1.0)
    assert inventory.nodes.root == before
    assert looked == [THIRD, THIRD]


def test_whose_a_membership_is_is_known_without_a_search() -> None:
    table = GradientTable(ME)
    membership = membership_of(OTHER)
    table.observe(OTHER, beacon_of(1, 1), membership, 0.0)
    table.observe(OTHER, beacon_of(2, 1), membership, 0.0)
    assert table.holders == {membership.serial: OTHER}
    assert not table.doubles
    table.observe(THIRD, beacon_of(1, 1), membership, 0.0)  # an issuer that gives one serial twice
    assert table.doubles
    table.forget(THIRD)
    table.forget(OTHER)
    assert table.holders == {}


def test_a_statement_names_whom_it_may_strike() -> None:
    env, heard = FixedEnv(1, start=NOW), list[Struck]()
    trust = Trust(MESH, Store.memory(env), env, lambda record, struck: heard.append(struck), 86400)
    serial, until = membership_of(OTHER).serial, int(NOW) + 100
    for record in (
        revoke(Target.MEMBERSHIP, serial, OWNER, MESH, NOW, until=until),
        revoke(Target.PEER, THIRD.public_key, OWNER, MESH, NOW),
        revoke(Target.ISSUER, FOURTH.public_key, OWNER, MESH, NOW),
    ):
        trust.hear(Record(Kind.REVOCATION, record))
    assert heard == [Struck(serial=serial), Struck(peers=frozenset({THIRD})), Struck(anybody=True)]


ALIVE, OFFLINE = Presence.ALIVE, Presence.OFFLINE


@pytest.mark.parametrize(
    ("listed", "buckets", "known"),
    [
        ((), 1, True),  # it says the same of everybody
        (((OTHER, 7, ALIVE),), 1, True),  # it knows itself alone: nobody is behind it
        (((ME, 2, ALIVE), (THIRD, 1, ALIVE)), 1, True),
        (((ME, 3, ALIVE),), 1, True),  # a restored backup's: it will count on from there
        (((ME, 1, ALIVE), (THIRD, 1, ALIVE)), 1, False),  # as this node was before
        (((ME, 2, OFFLINE), (THIRD, 1, ALIVE)), 1, False),
        (((OTHER, 7, ALIVE), (THIRD, 1, ALIVE)), 1, False),
        (((OTHER, 7, ALIVE), (THIRD, 1, ALIVE)), 4096, True),  # what differs is elsewhere
        (((ME, 1, ALIVE), (THIRD, 1, ALIVE)), 4096, False),
    ],
)
def test_whether_a_neighbour_knows_this_node_shows_in_what_it_lists(
    listed: tuple[tuple[PeerId, int, Presence], ...], buckets: int, known: bool
) -> None:
    table = GradientTable(ME)
    table.node(ME, 0.0)
    table.spoke(beacon_of(2, 1))
    inventory = Inventory(table, trust())
    overview = Overview([], [Known(peer.public_key, 1, sequence, presence) for peer, sequence, presence in listed])
    assert inventory.is_known(OTHER, Ask(nodes=bytes(8 * buckets)), overview) is known


def test_statements_come_and_go() -> None:
    env = FixedEnv(1, start=NOW)
    told = Trust(MESH, Store.memory(env), env, lambda *_: None, 86400)
    inventory = Inventory(GradientTable(ME), told)
    for until in (None, int(NOW) + 10, int(NOW) + 10**6):
        kind = Target.PEER if until is None else Target.MEMBERSHIP
        target = THIRD.public_key if until is None else until.to_bytes(16)
        told.hear(Record(Kind.REVOCATION, revoke(kind, target, OWNER, MESH, NOW, until=until or 0)))
        assert sorted(inventory.statements) == sorted(key.key for key in told.keys())  # noqa: SIM118 - no dict
    env.advance(1000)
    told.forget_ended()
    assert sorted(inventory.statements) == sorted(key.key for key in told.keys())  # noqa: SIM118 - no dict
    assert len(inventory.statements) == 2
