"""The records this node has seen and verified, by content: what sync gives out and what it still needs.

Pure and bounded: the least recently used record of a kind goes when the kind is full. Use counts from half full on:
before, nothing has to go soon.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, MutableMapping

from protocols.sync.messages import Key, Kind, Record

CAPACITY: dict[Kind, int] = {
    Kind.BEACON: 10_000,  # one per node, as many as the table keeps
    Kind.LEAVE: 10_000,
    Kind.MEMBERSHIP: 10_000,
    Kind.OFFER: 10_000,
    Kind.REVOCATION: 100_000,  # tiny and for ever
    Kind.REDEMPTION: 100_000,
    Kind.ISSUER: 1_000,
    Kind.CARD: 20_000,
    Kind.VECTOR: 20_000,
}
MAX_BYTES = 256 * 1024 * 1024
"""Of all records together: a node on a Raspberry Pi must not be filled up by its mesh."""


class Library:
    """Exact bytes of records by (kind, key). Whoever puts a record in has verified it."""

    def __init__(self) -> None:
        self._records: dict[Kind, MutableMapping[bytes, bytes]] = {kind: {} for kind in Kind}
        """The least recently used first."""
        self.size = 0
        """Bytes held."""

    def __repr__(self) -> str:
        counts = ", ".join(f"{len(records)} {kind.name.lower()}" for kind, records in self._records.items() if records)
        return f"<Library {self.size} bytes: {counts}>"

    def __contains__(self, key: Key) -> bool:
        return key.key in self._records[key.kind]

    def start_from(self, kind: Kind, records: MutableMapping[bytes, bytes], size: int) -> None:
        """Keep *records*, of *size* bytes together, in place of those of that kind which are here."""
        self.size += size - sum(map(len, self._records[kind].values()))
        self._records[kind] = records

    def put(self, key: Key, body: bytes) -> None:
        """Keep *body* under *key*, in place of what was there."""
        records = self._records[key.kind]
        self.size += len(body) - len(records.pop(key.key, b""))
        records[key.key] = body
        while len(records) > CAPACITY[key.kind] or (self.size > MAX_BYTES and len(records) > 1):
            self.size -= len(records.pop(next(iter(records))))

    def get(self, key: Key) -> bytes | None:
        records = self._records[key.kind]
        body = records.get(key.key)
        if body is not None and (2 * len(records) > CAPACITY[key.kind] or 2 * self.size > MAX_BYTES):
            records[key.key] = records.pop(key.key)
        return body

    def drop(self, key: Key) -> None:
        self.size -= len(self._records[key.kind].pop(key.key, b""))

    def keys(self, kind: Kind) -> Iterator[bytes]:
        return iter(self._records[kind])

    def records(self, keys: Iterable[Key]) -> Iterator[Record]:
        """Those of *keys* that are here, in their order."""
        for key in keys:
            body = self.get(key)
            if body is not None:
                yield Record(key.kind, body)
