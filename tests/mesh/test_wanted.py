"""What is still to be fetched: whom to ask, when again, and when to give up."""

from __future__ import annotations

from atmosphere.mesh.wanted import FIRST_RETRY_S, MAX_ATTEMPTS, MAX_RETRY_S, Wanted
from protocols.sync.messages import MAX_KEYS, Key, Kind
from tests.mesh.people import ME, OTHER, THIRD

KEY = Key(Kind.CARD, bytes(32))


def test_the_source_is_asked_first_and_others_after_it() -> None:
    wanted = Wanted()
    wanted.add(KEY, OTHER, 0.0)
    assert wanted.due([OTHER, THIRD], 0.0) == {OTHER: [KEY]}
    asked = set()
    now = 0.0
    for _ in range(4):
        wanted.asked([KEY], now)
        now = wanted.next_due()
        asked |= wanted.due([OTHER, THIRD], now).keys()
    assert asked == {OTHER, THIRD}


def test_waits_grow_and_end() -> None:
    wanted = Wanted()
    wanted.add(KEY, None, 0.0)
    waits = []
    now = 0.0
    while len(wanted):
        wanted.asked([KEY], now)
        if len(wanted):
            waits.append(wanted.next_due() - now)
            now = wanted.next_due()
    assert waits == sorted(waits)
    assert max(waits) <= MAX_RETRY_S
    assert len(waits) == MAX_ATTEMPTS


def test_nothing_is_asked_before_it_is_due_or_of_nobody() -> None:
    wanted = Wanted()
    wanted.add(KEY, None, 0.0)
    assert wanted.due([], 0.0) == {}
    wanted.asked([KEY], 0.0)
    assert wanted.due([ME], FIRST_RETRY_S / 2) == {}
    assert wanted.due([ME], FIRST_RETRY_S) == {ME: [KEY]}


def test_one_request_holds_no_more_than_the_protocol_takes() -> None:
    wanted = Wanted()
    for number in range(MAX_KEYS + 10):
        wanted.add(Key(Kind.CARD, number.to_bytes(32, "big")), OTHER, 0.0)
    assert len(wanted.due([OTHER], 0.0)[OTHER]) == MAX_KEYS


def test_what_has_come_is_not_asked_for_again() -> None:
    wanted = Wanted()
    wanted.add(KEY, None, 0.0)
    wanted.drop(KEY)
    assert wanted.next_due() == float("inf")
