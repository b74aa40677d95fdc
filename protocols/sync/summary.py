"""Two nodes find out what they know differently without telling each other what they know. Pure.

The items of a set fall into a power of two of buckets by the first bits of their names (public keys or digests, which
are spread evenly). A bucket's digest covers the items in it, so two sets differ in no more buckets than they differ in
items, and only those buckets have to be listed: one round trip, 8 bytes for every 8 items or so.

A bucket is the sum modulo 2^256 of the hashes of its items, and its digest is cut from the hash of that sum (AdHash:
Bellare, Micciancio, "A new paradigm for collision-free hashing", 1997). So a change costs the same in any mesh, and
coarser buckets are the sums of finer ones. Who holds many items can make sums meet (Wagner, "A generalized birthday
problem", 2002): with 2^k items of its own in 2^(256/(k+1)) steps, no fewer than the 2^32 that two equal cuts take until
it holds 128 memberships.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, MutableMapping

DIGEST_BYTES = 8
"""Per bucket. Chance: two different buckets look alike once in 2^64. Malice: who can choose items can hide its own."""
MAX_BUCKETS = 4096
"""32 KiB of digests; the most that is sent and taken."""
BUCKET_ITEMS = 8
"""Items in a bucket, about: a bucket that differs costs some 400 bytes to list, the digests 1 byte for every item."""
_PREFIX_BITS = 16
_SUM_BYTES = 32
_MODULUS = 1 << 8 * _SUM_BYTES


class DigestError(Exception):
    """Digests that no sound node sends; the text says why."""


class Summary:
    """A set of items, each a name of at least 2 bytes and the digest of what is said under it.

    A change costs O(1); the first question for a number of buckets costs one look at all items.
    """

    def __init__(self, items: Iterable[tuple[bytes, bytes]] = ()) -> None:
        self._hashes: MutableMapping[bytes, int] = {}
        self._levels: dict[int, _Level] = {1: _Level(1)}
        self._order: list[bytes] | None = None
        """The names sorted, as long as none comes or goes."""
        for name, digest in items:
            self.put(name, digest)

    def __len__(self) -> int:
        return len(self._hashes)

    def __contains__(self, name: bytes) -> bool:
        return name in self._hashes

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._hashes)

    def __repr__(self) -> str:
        return f"<Summary {self.root.hex()} of {len(self)} items>"

    def put(self, name: bytes, digest: bytes) -> None:
        """Under *name* something of that *digest* is said now."""
        value = int.from_bytes(hashlib.sha256(name + digest).digest())
        before = self._hashes.get(name)
        if before is None:
            self._order = None
        if before != value:
            self._hashes[name] = value
            self._add(name, value - (before or 0))

    def drop(self, name: bytes) -> None:
        """Nothing is said under *name* any more."""
        before = self._hashes.pop(name, None)
        if before is not None:
            self._order = None
            self._add(name, -before)

    def _add(self, name: bytes, change: int) -> None:
        for level in self._levels.values():
            level.add(name, change)

    def over(self, hashes: MutableMapping[bytes, int]) -> Summary:
        """A summary of the same items that keeps their hashes in *hashes*, which has them already."""
        other = Summary()
        other._hashes = hashes
        other._levels = {buckets: level.copy() for buckets, level in self._levels.items()}
        other._order = self._order  # only ever replaced, not changed
        return other

    @property
    def hashes(self) -> MutableMapping[bytes, int]:
        """What the sums consist of, by name."""
        return self._hashes

    @property
    def root(self) -> bytes:
        """Digest of the whole set: equal sets, equal roots."""
        return self.digests(1)

    @property
    def buckets(self) -> int:
        """How many buckets suit a set of this size."""
        wanted = len(self) // BUCKET_ITEMS
        return min(MAX_BUCKETS, 1 << max(0, wanted - 1).bit_length())

    def digests(self, buckets: int) -> bytes:
        """The digests of all buckets, one after the other; zeros for an empty one."""
        found = self._levels.get(buckets)
        if found is None:
            found = self._levels[buckets] = _Level(buckets)
            for name, value in self._hashes.items():
                found.add(name, value)
        return found.digests

    def question(self, their_root: bytes) -> bytes:
        """What to ask one whose set has *their_root*: nothing more than the root if there is nothing to find."""
        return self.root if their_root == self.root else self.digests(self.buckets)

    def agrees(self, theirs: bytes) -> bool:
        """Whether a set with the digests *theirs* is this one. Raises DigestError."""
        return bool(theirs) and self.digests(check(theirs)) == theirs

    def differing(self, theirs: bytes) -> Callable[[bytes], bool]:
        """Whether an item of a name is in a bucket that differs from *theirs*: true of all if they said nothing.

        Raises DigestError for what :func:`check` refuses.
        """
        if not theirs:
            return lambda name: True
        buckets, differing = check(theirs), frozenset(self._differing(theirs))
        return lambda name: bucket(name, buckets) in differing

    def listed(self, theirs: bytes) -> list[bytes]:
        """The names in buckets that differ from *theirs*, sorted: all of them if they said nothing. Raises DigestError.

        Where few buckets differ this does not look at the others.
        """
        if self._order is None:
            self._order = sorted(self._hashes)
        order = self._order
        if not theirs:
            return list(order)
        found: list[bytes] = []
        buckets = check(theirs)
        for number in self._differing(theirs):
            found += order[_first(order, number, buckets) : _first(order, number + 1, buckets)]
        return found

    def _differing(self, theirs: bytes) -> list[int]:
        """The numbers of the buckets that differ from *theirs*, which say something."""
        buckets = check(theirs)
        mine = self.digests(buckets)
        if mine == theirs:
            return []
        places = (slice(n * DIGEST_BYTES, (n + 1) * DIGEST_BYTES) for n in range(buckets))
        return [number for number, place in enumerate(places) if mine[place] != theirs[place]]


class _Level:
    """The sums of all items in so many buckets. Digests are computed when they are asked for."""

    __slots__ = ("_digests", "_stale", "_sums", "buckets")

    def __init__(self, buckets: int) -> None:
        self.buckets = buckets
        self._sums = [0] * buckets
        self._digests = bytes(buckets * DIGEST_BYTES)
        self._stale: set[int] = set()

    def copy(self) -> _Level:
        other = _Level(self.buckets)
        other._sums, other._digests = self._sums.copy(), self.digests
        return other

    def add(self, name: bytes, change: int) -> None:
        number = bucket(name, self.buckets)
        self._sums[number] = (self._sums[number] + change) % _MODULUS
        self._stale.add(number)

    @property
    def digests(self) -> bytes:
        if self._stale:
            digests = bytearray(self._digests)
            for number in self._stale:
                digests[number * DIGEST_BYTES : (number + 1) * DIGEST_BYTES] = _cut(self._sums[number])
            self._digests = bytes(digests)
            self._stale.clear()
        return self._digests


def check(digests: bytes) -> int:
    """How many buckets somebody else's *digests* are of; 0 for none. Raises DigestError."""
    buckets, rest = divmod(len(digests), DIGEST_BYTES)
    if rest or buckets & (buckets - 1) or buckets > MAX_BUCKETS:
        raise DigestError(
            f"digests of {len(digests)} bytes: {DIGEST_BYTES} for each of a power of two of buckets,"
            f" at most {MAX_BUCKETS}, are allowed"
        )
    return buckets


def bucket(name: bytes, buckets: int) -> int:
    """In which of *buckets* an item of that name lies."""
    return int.from_bytes(name[: _PREFIX_BITS // 8]) * buckets >> _PREFIX_BITS


def _first(order: list[bytes], number: int, buckets: int) -> int:
    """Where the names of bucket *number* begin in *order*."""
    if number == buckets:
        return len(order)
    return bisect_left(order, ((number << _PREFIX_BITS) // buckets).to_bytes(_PREFIX_BITS // 8))


def _cut(total: int) -> bytes:
    if not total:
        return bytes(DIGEST_BYTES)
    return hashlib.sha256(total.to_bytes(_SUM_BYTES)).digest()[:DIGEST_BYTES]
