"""Two nodes find out what they know differently without telling each other what they know. Pure.

The items of a set fall into a power of two of buckets by the first bits of their names (public keys or digests, which
are spread evenly). A bucket's digest covers the items in it, so two sets differ in no more buckets than they differ in
items, and only those buckets have to be listed: one round trip, 8 bytes for every 8 items or so.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from itertools import groupby

DIGEST_BYTES = 8
"""Per bucket. Chance: two different buckets look alike once in 2^64. Malice: who can choose items can hide its own."""
MAX_BUCKETS = 4096
"""32 KiB of digests; the most that is sent and taken."""
BUCKET_ITEMS = 8
"""Items in a bucket, about: a bucket that differs costs some 400 bytes to list, the digests 1 byte for every item."""
_PREFIX_BITS = 16


class DigestError(Exception):
    """Digests that no sound node sends; the text says why."""


class Summary:
    """An immutable set of items, each a name of at least 2 bytes and the digest of what is said under it."""

    def __init__(self, items: Iterable[tuple[bytes, bytes]] = ()) -> None:
        self._items = sorted(items)
        self._digests: dict[int, bytes] = {}

    def __len__(self) -> int:
        return len(self._items)

    def __repr__(self) -> str:
        return f"<Summary {self.root.hex()} of {len(self)} items>"

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
        found = self._digests.get(buckets)
        if found is None:
            digests = bytearray(buckets * DIGEST_BYTES)
            for number, items in groupby(self._items, lambda item: _bucket(item[0], buckets)):
                content = hashlib.sha256(b"".join(name + digest for name, digest in items)).digest()
                digests[number * DIGEST_BYTES : (number + 1) * DIGEST_BYTES] = content[:DIGEST_BYTES]
            found = self._digests[buckets] = bytes(digests)
        return found

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
        buckets = check(theirs)
        mine = self.digests(buckets)
        places = (slice(n * DIGEST_BYTES, (n + 1) * DIGEST_BYTES) for n in range(buckets))
        differing = frozenset(n for n, place in enumerate(places) if mine[place] != theirs[place])
        return lambda name: _bucket(name, buckets) in differing


def check(digests: bytes) -> int:
    """How many buckets somebody else's *digests* are of; 0 for none. Raises DigestError."""
    buckets, rest = divmod(len(digests), DIGEST_BYTES)
    if rest or buckets & (buckets - 1) or buckets > MAX_BUCKETS:
        raise DigestError(
            f"digests of {len(digests)} bytes: {DIGEST_BYTES} for each of a power of two of buckets,"
            f" at most {MAX_BUCKETS}, are allowed"
        )
    return buckets


def _bucket(name: bytes, buckets: int) -> int:
    return int.from_bytes(name[: _PREFIX_BITS // 8]) * buckets >> _PREFIX_BITS
