"""Beacon, leave and suspicion as typed values, with every limit checked on the way in and on the way out."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from google.protobuf.message import DecodeError

from protocols.beacons import beacons_pb2 as pb
from transports.peer_id import PeerId

VERSION = 1

MAX_BEACON_BYTES = 600
"""Of the whole envelope. Gossip stays small: a node with 1,000 capabilities has a beacon of the same size."""
MAX_HEALTH_BYTES = 256
"""Of a message on the topic of health, envelope and all; a suspicion has some 180."""
MAX_ADDRESSES = 4
MAX_ADDRESS_BYTES = 64
DIGEST_BYTES = 32
KEY_BYTES = 32
MAX_PERIOD_MS = 3_600_000
MIN_PERIOD_MS = 1_000
"""A node that states a shorter period than this would be a flood."""
MAX_SKEW_MS = 300_000
"""How far the clocks of two nodes may be apart."""
MAX_COUNTER = 2**53
"""Epochs and sequences above this are nonsense that would make the author mute for ever."""


class BeaconError(Exception):
    """The message is not one that a sound node sends; the text says why."""


@dataclass(frozen=True, slots=True)
class Beacon:
    """What a node says about itself. The author is the signer of the envelope around it."""

    membership: bytes
    epoch: int
    sequence: int
    period_ms: int
    offer: bytes
    issued_at_ms: int
    load_permille: int = 0
    queue: int = 0
    cost_milli: int = 1000
    addresses: tuple[str, ...] = ()

    @property
    def order(self) -> tuple[int, int]:
        """Later beacons of one author compare greater."""
        return (self.epoch, self.sequence)

    def encode(self) -> bytes:
        """The payload to be signed. Raises BeaconError for a value outside the limits."""
        self._check()
        return pb.Beacon(
            version=VERSION,
            membership=self.membership,
            epoch=self.epoch,
            sequence=self.sequence,
            period_ms=self.period_ms,
            offer=self.offer,
            load_permille=self.load_permille,
            queue=self.queue,
            cost_milli=self.cost_milli,
            issued_at_ms=self.issued_at_ms,
            addresses=self.addresses,
        ).SerializeToString(deterministic=True)

    @classmethod
    def decode(cls, payload: bytes) -> Beacon:
        """Parse and check a payload. Raises BeaconError."""
        try:
            message = pb.Beacon.FromString(payload)
        except DecodeError:
            raise BeaconError("not a beacon") from None
        if message.version != VERSION:
            raise BeaconError(f"beacon version {message.version}; this release speaks {VERSION}")
        beacon = cls(
            membership=message.membership,
            epoch=message.epoch,
            sequence=message.sequence,
            period_ms=message.period_ms,
            offer=message.offer,
            issued_at_ms=message.issued_at_ms,
            load_permille=message.load_permille,
            queue=message.queue,
            cost_milli=message.cost_milli,
            addresses=tuple(message.addresses),
        )
        beacon._check()
        return beacon

    def _check(self) -> None:
        if len(self.membership) != DIGEST_BYTES or len(self.offer) != DIGEST_BYTES:
            raise BeaconError("a digest is not 32 bytes")
        _check_order(self.epoch, self.sequence)
        if not MIN_PERIOD_MS <= self.period_ms <= MAX_PERIOD_MS:
            raise BeaconError(f"period of {self.period_ms} ms; {MIN_PERIOD_MS} to {MAX_PERIOD_MS} is allowed")
        if self.load_permille > 1000 or self.queue > 1_000_000 or self.cost_milli > 1_000_000:
            raise BeaconError("load, queue or cost out of range")
        if len(self.addresses) > MAX_ADDRESSES or any(len(a.encode()) > MAX_ADDRESS_BYTES for a in self.addresses):
            raise BeaconError(f"more than {MAX_ADDRESSES} addresses, or one longer than {MAX_ADDRESS_BYTES} bytes")


@dataclass(frozen=True, slots=True)
class Leave:
    """A node says that it is going: no failure, no search for it."""

    epoch: int
    sequence: int
    issued_at_ms: int

    @property
    def order(self) -> tuple[int, int]:
        return (self.epoch, self.sequence)

    def encode(self) -> bytes:
        _check_order(self.epoch, self.sequence)
        return pb.Leave(
            version=VERSION, epoch=self.epoch, sequence=self.sequence, issued_at_ms=self.issued_at_ms
        ).SerializeToString(deterministic=True)

    @classmethod
    def decode(cls, payload: bytes) -> Leave:
        """Parse and check a payload. Raises BeaconError."""
        try:
            message = pb.Leave.FromString(payload)
        except DecodeError:
            raise BeaconError("not a leave message") from None
        if message.version != VERSION:
            raise BeaconError(f"leave version {message.version}; this release speaks {VERSION}")
        _check_order(message.epoch, message.sequence)
        return cls(message.epoch, message.sequence, message.issued_at_ms)


@dataclass(frozen=True, slots=True)
class Suspicion:
    """A node says that it believes another one to have failed. The witness is the signer of the envelope around it.

    *epoch* and *sequence* are those of the last beacon of the subject that the witness knows: a later one refutes it.
    *refused*: connections to it are refused, so nobody listens there any more; otherwise it does not answer.
    """

    subject: PeerId
    epoch: int
    sequence: int
    refused: bool
    issued_at_ms: int

    @property
    def order(self) -> tuple[int, int]:
        return (self.epoch, self.sequence)

    def timely(self, now_ms: int) -> bool:
        """Whether it was made now, as far as clocks agree. One that was not is passed over: it is nobody's fault."""
        return abs(now_ms - self.issued_at_ms) <= MAX_SKEW_MS

    def encode(self) -> bytes:
        """The payload to be signed. Raises BeaconError for a value outside the limits."""
        _check_order(self.epoch, self.sequence)
        return pb.Suspicion(
            version=VERSION,
            subject=self.subject.public_key,
            epoch=self.epoch,
            sequence=self.sequence,
            refused=self.refused,
            issued_at_ms=self.issued_at_ms,
        ).SerializeToString(deterministic=True)

    @classmethod
    def decode(cls, payload: bytes) -> Suspicion:
        """Parse and check a payload. Raises BeaconError."""
        try:
            message = pb.Suspicion.FromString(payload)
        except DecodeError:
            raise BeaconError("not a suspicion") from None
        if message.version != VERSION:
            raise BeaconError(f"suspicion version {message.version}; this release speaks {VERSION}")
        if len(message.subject) != KEY_BYTES:
            raise BeaconError(f"a subject of {len(message.subject)} bytes; a public key has {KEY_BYTES}")
        _check_order(message.epoch, message.sequence)
        subject = PeerId.from_public_key(message.subject)
        return cls(subject, message.epoch, message.sequence, message.refused, message.issued_at_ms)


class HealthKind(Enum):
    """What a message on the topic of health holds an envelope of."""

    LEAVE = "leave"
    SUSPICION = "suspicion"


@dataclass(frozen=True, slots=True)
class Health:
    """A message on the topic of health: *envelope*, which is not verified here, and what it is of."""

    kind: HealthKind
    envelope: bytes

    def encode(self) -> bytes:
        """The bytes to be published. Raises BeaconError when they would be too many."""
        if self.kind is HealthKind.LEAVE:
            message = pb.Health(leave=self.envelope)
        else:
            message = pb.Health(suspicion=self.envelope)
        return _bounded(message.SerializeToString(deterministic=True))

    @classmethod
    def decode(cls, data: bytes) -> Health | None:
        """Parse a message; None when it is of a kind that only later releases know: pass it over, it is no fault.

        Raises BeaconError for what no sound node sends: damaged bytes, or too many.
        """
        try:
            message = pb.Health.FromString(_bounded(data))
        except DecodeError:
            raise BeaconError("not a health message") from None
        body = message.WhichOneof("body")
        return None if body is None else cls(HealthKind(body), getattr(message, body))


def _bounded(data: bytes) -> bytes:
    if len(data) > MAX_HEALTH_BYTES:
        raise BeaconError(f"a health message of {len(data)} bytes, {MAX_HEALTH_BYTES} is the maximum")
    return data


def _check_order(epoch: int, sequence: int) -> None:
    if not 1 <= epoch <= MAX_COUNTER or not 1 <= sequence <= MAX_COUNTER:
        raise BeaconError("epoch and sequence count from 1 and stay below 2^53")


def beacons_topic(mesh_id: str) -> str:
    """The GossipSub topic of the mesh's beacons."""
    return f"/atmosphere/1/{mesh_id}/beacons"


def health_topic(mesh_id: str) -> str:
    """The GossipSub topic of suspicion, refutation and leave."""
    return f"/atmosphere/1/{mesh_id}/health"


def revocations_topic(mesh_id: str) -> str:
    """The GossipSub topic of revocations."""
    return f"/atmosphere/1/{mesh_id}/revocations"
