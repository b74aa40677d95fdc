"""Anti-entropy between tables: what differs comes over, what is equal costs a greeting, ghosts stay dead."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from itertools import pairwise

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from atmosphere.identity import Target, revoke
from atmosphere.mesh.reconciler import DEBOUNCE_S, GAP_S, GRAFTED_S, INQUIRIES, RECONCILE_S, SPREAD
from atmosphere.mesh.table import State
from protocols.beacons import Beacon
from protocols.records import domains, open_envelope
from protocols.sync.messages import Ask, Key, Kind, Presence, Record, SyncError
from tests.mesh.knowers import Author, Knower
from tests.mesh.people import CHAINS, FOURTH, ME, MESH, NOW, OTHER, OWNER, THIRD
from transports.peer_id import PeerId


@cache
def author(number: int) -> Author:
    return Author(number)


async def meet(left: Knower, right: Knower) -> None:
    """Both ask, as after a greeting."""
    left.join(right)
    await left.ask(right)
    await right.ask(left)
    left.part(right)


def beacon_key(number: int) -> Key:
    return Key(Kind.BEACON, author(number).peer.public_key)


async def test_equal_tables_exchange_greetings_and_nothing_else(autojump_clock: trio.abc.Clock) -> None:
    left, right = Knower(ME), Knower(OTHER)
    for number in range(300):
        left.hear(author(number))
        right.hear(author(number))
    left.join(right)
    await left.ask(right)
    sent, answered = left.written[OTHER], right.written[ME]
    hello = left.hello().to_proto().ByteSize()
    print(f"\n300 equal nodes: {sent} + {answered} bytes, of them {2 * hello} greeting")
    assert sent + answered <= 2 * hello + 32  # lengths and Ready
    right.hear(author(300))
    await left.ask(right)
    assert left.written[OTHER] + right.written[ME] > 2 * (sent + answered)  # or the assertion above says nothing


@pytest.mark.parametrize("nodes", [10, 100, 1000])
async def test_the_price_of_ten_differences(nodes: int, autojump_clock: trio.abc.Clock) -> None:
    left, right = Knower(ME), Knower(OTHER)
    for number in range(nodes):
        left.hear(author(number))
        right.hear(author(number), *((2, 2) if number < 10 else (1, 1)))
    left.join(right)
    await left.ask(right)
    size = left.written[OTHER] + right.written[ME]
    print(f"\n{nodes} nodes, 10 with another offer: {size} bytes with all that was fetched")
    assert left.seen() == right.seen()
    assert size < 8_000 + 5 * nodes  # a whole listing would be 46 bytes for each node


said_of_nodes = st.lists(
    st.tuples(st.integers(0, 11), st.integers(0, 3), st.integers(0, 3)), max_size=12, unique_by=lambda item: item[0]
)


@given(said_of_nodes)
@settings(deadline=None, max_examples=60)
def test_two_tables_are_equal_after_one_comparison_each(said: list[tuple[int, int, int]]) -> None:
    """*said*: (author, last beacon that the left one heard, and the right one); 0: none at all."""
    left, right = Knower(ME), Knower(OTHER)
    for number, heard_left, heard_right in said:
        for knower, sequence in ((left, heard_left), (right, heard_right)):
            if sequence:
                knower.hear(author(number), sequence, offer=sequence)
    trio.run(meet, left, right, clock=MockClock(autojump_threshold=0))
    assert left.seen() == right.seen()
    assert left.inventory.nodes.root == right.inventory.nodes.root
    assert len(left.seen()) == sum(1 for _, heard_left, heard_right in said if heard_left or heard_right)


async def test_a_ghost_does_not_come_back(autojump_clock: trio.abc.Clock) -> None:
    """The right half heard the node's last words and holds it offline; they prove nothing to the left half."""
    left, right = Knower(ME), Knower(OTHER)
    left.hear(author(0), 3)
    left.table.gone(author(0).peer, "partition")
    for number, sequence in ((0, 5), (1, 1)):  # the second one was never heard of on the left
        right.hear(author(number), sequence)
        right.table.gone(author(number).peer, "dead")
    await meet(left, right)
    assert left.state(author(0)) is left.state(author(1)) is State.OFFLINE
    beacon = left.table.nodes[author(0).peer].beacon
    assert beacon is not None
    assert beacon.sequence == 5
    assert left.inventory.nodes.root == right.inventory.nodes.root
    left.hear(author(0), 6)  # gossip: it speaks
    assert left.state(author(0)) is State.ONLINE


async def test_a_node_that_lives_over_there_is_back(autojump_clock: trio.abc.Clock) -> None:
    left, right = Knower(ME), Knower(OTHER)
    left.hear(author(0), 3)
    left.table.gone(author(0).peer, "partition")
    right.hear(author(0), 4)
    await meet(left, right)
    assert left.state(author(0)) is right.state(author(0)) is State.ONLINE


@pytest.mark.parametrize(("age", "state"), [(35.0, State.ONLINE), (37.0, State.OFFLINE), (299.0, State.OFFLINE)])
async def test_an_old_beacon_proves_no_life(age: float, state: State, autojump_clock: trio.abc.Clock) -> None:
    left, right = Knower(ME), Knower(OTHER)
    old = author(0)
    right.hear(old)
    right.table.nodes[old.peer] = replace(
        right.table.nodes[old.peer], beacon=Beacon.decode(_payload(old.beacon(2, age=age)))
    )
    right.library.put(beacon_key(0), old.beacon(2, age=age))
    await meet(left, right)
    assert left.state(old) is state
    assert left.table.nodes[old.peer].last_seen == pytest.approx(-age, abs=1.0)


async def test_who_spoke_before_the_mesh_grew_lives(autojump_clock: trio.abc.Clock) -> None:
    """It has stated the period of a small mesh and says its next beacon after that of a large one."""
    left, right = Knower(ME), Knower(OTHER)
    for number in range(100):
        right.hear(author(number))
    early = author(0)
    right.table.nodes[early.peer] = replace(
        right.table.nodes[early.peer], beacon=Beacon.decode(_payload(early.beacon(2, age=55.0)))
    )
    right.library.put(beacon_key(0), early.beacon(2, age=55.0))
    await meet(left, right)
    assert left.state(early) is right.state(early) is State.ONLINE
    await meet(left, right)
    assert left.contested == right.contested == []


async def test_what_is_forgotten_here_is_not_learnt_again_from_who_forgets_later(
    autojump_clock: trio.abc.Clock
) -> None:
    left, right = Knower(ME), Knower(OTHER)
    old = author(0)
    right.hear(old)
    right.table.nodes[old.peer] = replace(
        right.table.nodes[old.peer], beacon=Beacon.decode(_payload(old.beacon(2, age=310.0)))
    )
    right.library.put(beacon_key(0), old.beacon(2, age=310.0))
    right.table.gone(old.peer, "dead")
    await meet(left, right)
    assert left.state(old) is None


def _payload(envelope: bytes) -> bytes:
    return open_envelope(envelope, domains.BEACON, 600)[0]


async def test_goodbyes_come_over_and_strangers_that_left_do_not(autojump_clock: trio.abc.Clock) -> None:
    left, right = Knower(ME), Knower(OTHER)
    left.hear(author(0), 3)
    for number in (0, 1):
        right.hear(author(number), 3)
        right.intake.leave(author(number).leave(4), author(number).peer)
    await meet(left, right)
    assert left.state(author(0)) is State.LEFT
    assert left.state(author(1)) is None
    assert left.inventory.nodes.root == right.inventory.nodes.root


async def test_a_node_believed_dead_here_and_alive_there_has_to_speak(autojump_clock: trio.abc.Clock) -> None:
    left, right = Knower(ME), Knower(OTHER)
    for knower in (left, right):
        knower.hear(author(0), 3)
    left.table.gone(author(0).peer, "partition")
    await meet(left, right)
    assert left.state(author(0)) is State.OFFLINE  # nobody's word is enough
    assert left.contested == [(author(0).peer, (1, 3))]
    assert right.contested == []


async def test_who_is_suspected_here_and_has_spoken_since_lives(autojump_clock: trio.abc.Clock) -> None:
    """Beacons that differ in their order alone make no difference between two nodes, but to who doubts their author."""
    left, right = Knower(ME), Knower(OTHER)
    for number in range(100):
        left.hear(author(number), 3)
        right.hear(author(number), 4 if number < 50 else 3)
    await meet(left, right)
    assert left.table.nodes[author(7).peer].beacon.order == (1, 3)  # type: ignore[union-attr]
    root = left.inventory.nodes.root
    for number in (7, 77):
        left.table.doubt(author(number).peer, "others hear nothing of it", 0.0)
    await meet(left, right)
    assert left.state(author(7)) is State.ONLINE
    assert left.state(author(77)) is State.SUSPECT  # nobody knows better
    assert left.inventory.nodes.root == root


async def test_some_neighbours_are_asked_about_all_who_are_suspected(autojump_clock: trio.abc.Clock) -> None:
    me, others = Knower(ME), [Knower(peer) for peer in (OTHER, THIRD, FOURTH)]
    for number in range(40):
        me.hear(author(number), 3)
        for other in others:
            other.hear(author(number), 4)
    async with trio.open_nursery() as nursery:
        for knower in (me, *others):
            await nursery.start(knower.run)
        for other in others:
            me.join(other)
            me.reconciler.attend(other.peer)
        await trio.sleep(GRAFTED_S + GAP_S + 2 * DEBOUNCE_S)
        before = me.sessions
        for number in range(40):
            me.table.doubt(author(number).peer, "others hear nothing of it", 0.0)
            me.reconciler.inquire()
        await trio.sleep(2 * DEBOUNCE_S)
        assert me.sessions - before == INQUIRIES
        assert {me.state(author(number)) for number in range(40)} == {State.ONLINE}
        nursery.cancel_scope.cancel()


async def test_trust_records_are_in_force_before_anything_else_is_taken(autojump_clock: trio.abc.Clock) -> None:
    left, right = Knower(ME), Knower(OTHER)
    right.hear(author(0))
    right.trust.hear(Record(Kind.REVOCATION, revoke(Target.PEER, author(0).peer.public_key, OWNER, MESH, NOW)))
    right.hear(author(1))
    left.join(right)
    known_then: list[int] = []
    async with trio.open_nursery() as left._nursery:
        await left.reconciler.reconcile(
            OTHER, answering=True, trusted=lambda peer, known: known_then.append(len(left.seen()))
        )
    assert known_then == [0]
    assert left.trust.digest == right.trust.digest
    assert set(left.seen()) == {author(1).peer}  # the other one is revoked, whatever the neighbour still believes
    assert len(left.learned) == 1


async def test_who_names_trust_records_and_does_not_give_them_is_not_trusted(
    autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    left, right = Knower(ME), Knower(OTHER)
    right.hear(author(0))
    right.trust.hear(Record(Kind.REVOCATION, revoke(Target.PEER, author(1).peer.public_key, OWNER, MESH, NOW)))
    left.join(right)

    def breaks(keys: list[Key]) -> list[Record]:
        raise SyncError("the disk is full")

    monkeypatch.setattr(right.reconciler, "records", breaks)
    trusted: list[PeerId] = []
    async with trio.open_nursery() as left._nursery:
        await left.reconciler.reconcile(OTHER, answering=True, trusted=lambda peer, known: trusted.append(peer))
    assert trusted == []
    assert left.seen() == {}


async def test_fetching_what_gossip_named_takes_trust_records_first(autojump_clock: trio.abc.Clock) -> None:
    left, right = Knower(ME), Knower(OTHER)
    left.join(right)
    async with trio.open_nursery() as nursery:
        await nursery.start(left.run)
        left.reconciler.attend(OTHER)
        left.members.learn(author(0).chain)
        left.intake.beacon(author(0).beacon(1), author(0).peer, OTHER)  # names an offer
        right.hear(author(0))
        right.trust.hear(Record(Kind.REVOCATION, revoke(Target.PEER, author(1).peer.public_key, OWNER, MESH, NOW)))
        left.reconciler.wake()
        await trio.sleep(0.01)
        assert left.table.nodes[author(0).peer].offer is not None
        assert left.trust.digest == right.trust.digest
        nursery.cancel_scope.cancel()


async def running(nursery: trio.Nursery, *knowers: Knower) -> None:
    """In a line, every link attended."""
    for knower in knowers:
        await nursery.start(knower.run)
    for left, right in pairwise(knowers):
        left.join(right)
        left.reconciler.attend(right.peer)
        right.reconciler.attend(left.peer)


async def test_news_runs_down_a_line_of_nodes(autojump_clock: trio.abc.Clock) -> None:
    a, b, c, d = line = [Knower(peer) for peer in (ME, OTHER, THIRD, FOURTH)]
    for knower in (a, b):
        for number in range(40):
            knower.hear(author(number))
    for knower in (c, d):
        for number in range(40, 80):
            knower.hear(author(number))
    async with trio.open_nursery() as nursery:
        await running(nursery, *line)
        began = trio.current_time()
        await b.reconciler.reconcile(THIRD, answering=False)  # the link in the middle is new
        with trio.fail_after(5.0):
            while len({knower.inventory.nodes.root for knower in line}) > 1:  # noqa: ASYNC110
                await trio.sleep(0.01)
        took = trio.current_time() - began
        print(f"\n80 nodes known on both ends after {took:.2f} s of virtual time")
        assert all(len(knower.seen()) == 80 for knower in line)
        assert took <= 4 * (DEBOUNCE_S + 0.05) + GAP_S
        # And then there is silence, but for one comparison of each now and then.
        await trio.sleep(1.0)
        before = sum(knower.sessions for knower in line)
        await trio.sleep(10 * RECONCILE_S)
        after = sum(knower.sessions for knower in line) - before
        print(f"{after} comparisons by 4 nodes in {10 * RECONCILE_S:g} s")
        assert after <= 4 * 13
        nursery.cancel_scope.cancel()


async def test_a_node_with_a_hundred_neighbours_brings_news_to_some(
    autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub, source = Knower(ME), Knower(OTHER)
    compared: list[PeerId] = []

    async def reconcile(peer: PeerId, *, answering: bool) -> None:
        compared.append(peer)

    async with trio.open_nursery() as nursery:
        await running(nursery, hub, source)
        for number in range(1, 101):
            hub.reconciler.attend(author(number).peer)
        await trio.sleep(GRAFTED_S + DEBOUNCE_S + GAP_S + 0.5)
        source.hear(author(0))
        ask = hub.reconciler.reconcile
        monkeypatch.setattr(hub.reconciler, "reconcile", reconcile)
        await ask(OTHER, answering=False)
        assert hub.state(author(0)) is State.ONLINE
        await trio.sleep(DEBOUNCE_S + GAP_S)
        assert SPREAD <= len(compared) == len(set(compared)) <= SPREAD + 1  # or one more, which had its turn
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("others", "greeting", "gossips", "at_once", "later"),
    [
        (0, True, True, 0, 0),  # all hear of the new neighbour by gossip
        (0, True, False, 0, 1),  # or they do not
        (1, True, True, 1, 1),  # of who is behind it, only from here
        (0, False, False, 1, 1),
    ],
)
async def test_what_a_new_neighbour_says_of_itself_is_left_to_gossip(
    others: int, greeting: bool, gossips: bool, at_once: int, later: int, autojump_clock: trio.abc.Clock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    new = author(0)
    monkeypatch.setitem(CHAINS, new.peer, new.chain)
    left, right = Knower(ME), Knower(new.peer)
    right.say(new)
    for number in range(others):
        right.hear(author(number + 1))
    spread: list[PeerId] = []
    monkeypatch.setattr(left.reconciler, "_spread_from", spread.append)
    async with trio.open_nursery() as nursery:
        await running(nursery, left, right)
        await left.reconciler.reconcile(
            new.peer, answering=True, trusted=(lambda peer, known: None) if greeting else None
        )
        assert left.state(new) is State.ONLINE
        assert len(spread) == at_once
        if gossips:
            left.reconciler.heard(new.peer)
        await trio.sleep(GRAFTED_S + 0.1)
        assert len(spread) == later
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("given_up", [False, True])
async def test_who_was_given_up_here_may_have_given_up_this_node(
    given_up: bool, autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where it thinks better of it since they met: those behind it do not, and are told by both."""
    me, other = author(0), author(1)
    for each in (me, other):
        monkeypatch.setitem(CHAINS, each.peer, each.chain)
    left, right = Knower(me.peer), Knower(other.peer)
    left.say(me)
    right.say(other, 2)
    right.hear(me)
    right.hear(author(2))
    left.hear(other)
    if given_up:
        left.table.gone(other.peer, "silent")
    told: list[bool] = []
    async with trio.open_nursery() as nursery:
        await running(nursery, left, right)
        await left.reconciler.reconcile(other.peer, answering=True, trusted=lambda peer, known: told.append(known))
        assert left.state(other) is State.ONLINE
        nursery.cancel_scope.cancel()
    assert told == [not given_up]


async def test_what_gossip_says_before_it_reaches_a_new_neighbour_is_asked_for(
    autojump_clock: trio.abc.Clock
) -> None:
    left, right = Knower(ME), Knower(OTHER)
    async with trio.open_nursery() as nursery:
        await running(nursery, left, right)
        await left.reconciler.reconcile(OTHER, answering=True)
        right.hear(author(0))
        await trio.sleep(GRAFTED_S + 2 * DEBOUNCE_S)
        assert left.state(author(0)) is State.ONLINE
        assert left.sessions <= 3
        nursery.cancel_scope.cancel()


async def test_a_neighbour_that_always_differs_is_not_asked_all_the_time(autojump_clock: trio.abc.Clock) -> None:
    left, right = Knower(ME), Knower(OTHER)
    async with trio.open_nursery() as nursery:
        await running(nursery, left, right)
        for number in range(100):  # ten questions a second, each about another table
            left.reconciler.overview(OTHER, Ask(nodes=number.to_bytes(8), trust=bytes(8)))
            await trio.sleep(0.1)
        assert left.sessions <= 10 / (GAP_S + DEBOUNCE_S) + 4
        nursery.cancel_scope.cancel()


async def test_an_answer_to_a_question_is_not_asked_about_in_return(autojump_clock: trio.abc.Clock) -> None:
    left, right = Knower(ME), Knower(OTHER)
    left.hear(author(0))
    async with trio.open_nursery() as nursery:
        await running(nursery, left, right)
        await trio.sleep(2 * GRAFTED_S)  # the comparisons of a new link are over
        before, others = left.sessions, right.sessions
        left.reconciler.overview(OTHER, Ask(nodes=bytes(8), trust=bytes(8), answering=True))
        await trio.sleep(1.0)
        assert left.sessions == before
        left.reconciler.overview(OTHER, Ask(nodes=bytes(8), trust=bytes(8)))
        await trio.sleep(1.0)
        assert left.sessions == before + 1
        assert right.sessions == others
        nursery.cancel_scope.cancel()


async def test_a_mixed_up_answer_does_not_lend_life(autojump_clock: trio.abc.Clock) -> None:
    """The teller leaves out the record of the one it holds alive: the dead one's must not be taken for it."""
    left, right = Knower(ME), Knower(OTHER)
    right.hear(author(0))
    right.hear(author(1))
    right.table.gone(author(1).peer, "dead")
    right.library.drop(beacon_key(0))
    await meet(left, right)
    assert left.state(author(0)) is None
    assert left.state(author(1)) is State.OFFLINE
    believed = {author(0).peer.public_key: Presence.ALIVE}
    body = author(2).beacon(1)
    left.members.learn(author(2).chain)
    left.intake.take(beacon_key(0), Record(Kind.BEACON, body), OTHER, believed)
    assert left.state(author(2)) is State.OFFLINE
