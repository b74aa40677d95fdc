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
    """The n-th of 2^k buckets has the names whose first k bits are n. Its digest: SHA-256, cut, of the sum mod 2^256 of
    SHA-256 over name and digest of each."""
    low, high = bytes([0x10]) * 32, bytes([0x90]) * 32
    summary = Summary([(high, b"B"), (low, b"A")])
    first, second = (hashlib.sha256(content).digest() for content in (low + b"A", high + b"B"))
    one, other = (hashlib.sha256(each).digest()[:8] for each in (first, second))
    assert summary.digests(2) == one + other
    assert summary.digests(4) == one + bytes(8) + other + bytes(8)
    total = (int.from_bytes(first) + int.from_bytes(second)) % 2**256
    assert summary.root == hashlib.sha256(total.to_bytes(32)).digest()[:8]
    assert summary.root.hex() == "74d81a31cf953f16"
    assert Summary().root == bytes(8)


changes = st.lists(st.tuples(st.sampled_from([bytes([n]) * 32 for n in range(0, 256, 17)]), st.binary(max_size=2)))


@given(changes, st.sets(st.integers(0, 6).map(lambda bits: 1 << bits)))
@settings(deadline=None)
def test_a_summary_that_changes_is_that_of_what_it_holds_now(
    steps: list[tuple[bytes, bytes]], asked: set[int]
) -> None:
    summary, held = Summary(), dict[bytes, bytes]()
    for name, digest in steps:  # an empty digest: dropped
        if digest:
            held[name] = digest
            summary.put(name, digest)
        else:
            held.pop(name, None)
            summary.drop(name)
        for buckets in asked:
            assert summary.digests(buckets) == Summary(held.items()).digests(buckets)
        assert summary.listed(b"") == sorted(held)
    assert (len(summary), set(summary)) == (len(held), set(held))


@given(items, items, st.integers(0, 12).map(lambda bits: 1 << bits))
@settings(deadline=None)
def test_what_is_listed_is_what_is_in_buckets_that_differ(
    mine: dict[bytes, bytes], theirs: dict[bytes, bytes], buckets: int
) -> None:
    question = Summary(theirs.items()).digests(buckets)
    assert Summary(mine.items()).listed(question) == sorted(listed(mine, question))


def test_a_summary_over_the_same_hashes_goes_its_own_way() -> None:
    first = Summary(spread(100).items())
    before = first.digests(16)
    second = first.over(dict(first.hashes))
    second.put(b"another name", b"x")
    second.drop(next(iter(first)))
    assert first.digests(16) == before == Summary(spread(100).items()).digests(16)
    assert second.digests(16) != before
    assert (len(first), len(second)) == (100, 100)


def test_a_change_costs_the_same_in_a_large_set() -> None:
    def hashed(count: int) -> int:
        summary = Summary(spread(count).items())
        summary.digests(summary.buckets)
        looked = Counted(summary.hashes)
        summary = summary.over(looked)
        summary.put(next(iter(summary.hashes)), b"y")
        summary.question(b"another")
        return looked.reads

    assert hashed(100) == hashed(3000) <= 2


class Counted(dict[bytes, int]):
    """Counts how many of its values are read."""

    reads = 0

    def get(self, key: bytes, default: object = None) -> int:  # type: ignore[override]
        self.reads += 1
        return super().get(key, default)  # type: ignore[arg-type,return-value]

    def items(self):  # type: ignore[no-untyped-def]
        self.reads += len(self)
        return super().items()


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
