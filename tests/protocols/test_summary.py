"""Digests of buckets: what differs is found, what is equal costs nothing to find out."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.sync.messages import Ask, Known, Presence, SyncError
from protocols.sync.summary import BUCKET_ITEMS, DIGEST_BYTES, MAX_BUCKETS, DigestError, Summary, check

names = st.binary(min_size=32, max_size=32)
items = st.dictionaries(names, st.binary(min_size=1, max_size=4), max_size=60)


def spread(count: int) -> dict[bytes, bytes]:
    return {hashlib.sha256(str(number).encode()).digest(): b"x" for number in range(count)}


def listed(mine: dict[bytes, bytes], question: bytes) -> dict[bytes, bytes]:
    differs = Summary(mine.items()).differing(question)
    return {name: digest for name, digest in mine.items() if differs(name)}


@given(items, items, st.integers(0, 6).map(lambda bits: 1 << bits))
@settings(deadline=None)
def test_every_difference_is_listed_whatever_the_sets_and_buckets(
    mine: dict[bytes, bytes], theirs: dict[bytes, bytes], buckets: int
) -> None:
    told = listed(mine, Summary(theirs.items()).digests(buckets))
    assert set(mine.items()) - set(theirs.items()) <= set(told.items())
    assert Summary(mine.items()).agrees(Summary(theirs.items()).digests(buckets)) == (mine == theirs)
    if mine == theirs:
        assert told == {}


@given(items)
@settings(deadline=None)
def test_order_does_not_matter(some: dict[bytes, bytes]) -> None:
    assert Summary(some.items()).digests(8) == Summary(reversed(some.items())).digests(8)


@pytest.mark.parametrize("count", [10, 100, 1000, 10_000])
def test_few_differences_list_few_items(count: int) -> None:
    mine = spread(count)
    theirs = dict(mine)
    for name in list(mine)[:10]:
        theirs[name] = b"y"
    question = Summary(theirs.items()).question(their_root=b"another")
    told = listed(mine, question)
    print(f"\n{count} items, 10 differ: {len(question)} bytes of digests, {len(told)} items listed")
    assert len(question) <= max(DIGEST_BYTES, 2 * count * DIGEST_BYTES // BUCKET_ITEMS)
    assert len(told) <= 10 * 3 * BUCKET_ITEMS


def test_equal_sets_need_no_more_than_the_root() -> None:
    summary = Summary(spread(10_000).items())
    assert summary.question(summary.root) == summary.root
    assert len(summary.root) == DIGEST_BYTES
    assert listed(spread(10_000), summary.root) == {}


def test_who_says_nothing_is_told_everything() -> None:
    assert listed(spread(20), b"") == spread(20)
    assert not Summary().agrees(b"")


def test_the_digests_that_every_implementation_computes() -> None:
    """The n-th of 2^k buckets has the names whose first k bits are n; SHA-256 of names and digests in order, cut."""
    low, high = bytes([0x10]) * 32, bytes([0x90]) * 32
    summary = Summary([(high, b"B"), (low, b"A")])
    first, second = (hashlib.sha256(content).digest()[:8] for content in (low + b"A", high + b"B"))
    assert summary.digests(2) == first + second
    assert summary.digests(4) == first + bytes(8) + second + bytes(8)
    assert summary.root == hashlib.sha256(low + b"A" + high + b"B").digest()[:8]
    assert Summary().root == bytes(8)


def test_buckets_are_bounded_and_suit_the_size() -> None:
    assert [Summary(spread(count).items()).buckets for count in (0, 10, 100, 1000)] == [1, 1, 16, 128]
    assert Summary(spread(40_000).items()).buckets == MAX_BUCKETS


@pytest.mark.parametrize("size", [1, 7, 9, 3 * DIGEST_BYTES, 1000, 2 * MAX_BUCKETS * DIGEST_BYTES])
def test_impossible_digests_are_refused_with_a_reason(size: int) -> None:
    with pytest.raises(DigestError, match=f"digests of {size} bytes"):
        check(bytes(size))
    for ask in (Ask(nodes=bytes(size)), Ask(trust=bytes(size))):
        with pytest.raises(SyncError, match="power of two"):
            Ask.from_proto(ask.to_proto())


def test_a_belief_of_a_later_release_proves_no_life() -> None:
    message = Known(bytes(32), 1, 1, Presence.ALIVE).to_proto()
    message.presence = 17  # type: ignore[assignment]
    assert Known.from_proto(message).presence is Presence.OFFLINE
