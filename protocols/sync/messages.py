"""Values, limits and errors of ``/atmosphere/sync/1``."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

from protocols.records import records_pb2
from protocols.sync import sync_pb2 as pb
from protocols.sync.summary import DigestError, check
from transports.peer_id import PeerId

PROTOCOL = "/atmosphere/sync/1"
VERSION = 1

MAX_HELLO_BYTES = 4 * 1024
"""Before admission nothing larger is read: a membership is below 1 KiB."""
MAX_FRAME_BYTES = 1024 * 1024
RECORDS_FRAME_BYTES = 256 * 1024
"""A sender closes a Records frame here, so that a joiner can use the first ones while the rest comes."""
MAX_KEYS = 512
"""Keys in one Want."""
OVERVIEW_ENTRIES = 4096
"""Entries in one Overview frame."""
MAX_OVERVIEW_ENTRIES = 1_000_000
"""Entries taken from one peer in one answer."""
MAX_OVERVIEW_BYTES = 64 * 1024 * 1024
"""Of one overview: a million entries of the usual length. Nobody says how long a key is, so bytes are counted."""
MAX_RECORDS_BYTES = 160 * 1024 * 1024
"""Of the answer to one Want: MAX_KEYS of the largest records there are, offers of 257 KiB, and room."""
HELLO_TIMEOUT = 10.0
"""Seconds for the whole greeting: two round trips and one verification."""
REQUEST_TIMEOUT = 30.0
"""Seconds for one Ask or Want until its last frame."""
IDLE_TIMEOUT = 60.0
"""Seconds that a session may stay open without a request."""


class Kind(IntEnum):
    """The kinds of records; the numbers are those of records.proto."""

    MEMBERSHIP = 1
    REVOCATION = 2
    BEACON = 3
    OFFER = 4
    CARD = 5
    VECTOR = 6
    LEAVE = 7
    REDEMPTION = 8
    ISSUER = 9


TRUST_KINDS = frozenset({Kind.REVOCATION, Kind.REDEMPTION, Kind.ISSUER})
"""Grow-only statements about who may act: asked for first, kept on disk, spread on the topic of revocations."""


class Presence(IntEnum):
    """What somebody believes of a node; the numbers are those of sync.proto."""

    ALIVE = 0
    OFFLINE = 1
    LEFT = 2


@dataclass(frozen=True, slots=True)
class Hello:
    """How a node introduces itself."""

    mesh: bytes
    membership: bytes
    trust: bytes
    agent: str
    now_ms: int
    nodes: bytes = b""

    def to_proto(self) -> pb.Hello:
        return pb.Hello(
            version=VERSION,
            mesh=self.mesh,
            membership=self.membership,
            trust=self.trust,
            agent=self.agent[:64],
            now_ms=self.now_ms,
            nodes=self.nodes,
        )


@dataclass(frozen=True, slots=True)
class Known:
    """Somebody has a beacon of *author* (a public key) in this order, and believes that of it."""

    author: bytes
    epoch: int
    sequence: int
    presence: Presence = Presence.ALIVE

    @property
    def order(self) -> tuple[int, int]:
        return (self.epoch, self.sequence)

    def to_proto(self) -> pb.Known:
        presence = pb.Presence.ValueType(int(self.presence))
        return pb.Known(author=self.author, epoch=self.epoch, sequence=self.sequence, presence=presence)

    @classmethod
    def from_proto(cls, message: pb.Known) -> Known:
        known = message.presence in _PRESENCES  # what a later release believes proves no life here
        presence = Presence(message.presence) if known else Presence.OFFLINE
        return cls(message.author, message.epoch, message.sequence, presence)


_PRESENCES = frozenset(int(presence) for presence in Presence)


@dataclass(frozen=True, slots=True)
class Ask:
    """What do you know otherwise than I do? The digests are those of a Summary; empty: tell me all."""

    nodes: bytes = b""
    trust: bytes = b""
    answering: bool = False
    """This follows a question of the other side, which need not ask in return."""

    def to_proto(self) -> pb.Ask:
        return pb.Ask(nodes=self.nodes, trust=self.trust, answering=self.answering)

    @classmethod
    def from_proto(cls, message: pb.Ask) -> Ask:
        """Check and read. Raises SyncError."""
        try:
            check(message.nodes)
            check(message.trust)
        except DigestError as error:
            raise SyncError(str(error)) from None
        return cls(message.nodes, message.trust, message.answering)


@dataclass(frozen=True, slots=True)
class Key:
    """Names one record."""

    kind: Kind
    key: bytes

    def to_proto(self) -> pb.Key:
        return pb.Key(kind=records_pb2.Kind.ValueType(int(self.kind)), key=self.key)


@dataclass(frozen=True, slots=True)
class Record:
    """A record's exact bytes. What they mean is the node's business."""

    kind: Kind
    body: bytes

    @property
    def digest(self) -> bytes:
        return hashlib.sha256(self.body).digest()

    def to_proto(self) -> records_pb2.Record:
        return records_pb2.Record(kind=records_pb2.Kind.ValueType(int(self.kind)), body=self.body)


@dataclass(frozen=True, slots=True)
class Overview:
    """What a node knows, without the contents: all of it, or what is in buckets that differ."""

    trust: Sequence[Key]
    known: Sequence[Known]


class Source(Protocol):
    """What the serving side gives out."""

    def overview(self, peer: PeerId, ask: Ask) -> Overview:
        """What *peer* does not know by the digests of its question."""

    def records(self, keys: Sequence[Key]) -> Iterable[Record]:
        """The records of *keys* that are known, in that order."""


class Refused(Exception):
    """A peer was refused, by us or by it. *code* is for programs, the message says what to do."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class SyncError(Exception):
    """The peer broke the protocol or did not answer; the message says how."""
