"""The request and the reply of probe as values and bytes, with every limit. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from google.protobuf.message import DecodeError

from protocols.probe import probe_pb2 as pb
from transports.peer_id import PeerId

PROTOCOL: Final = "/atmosphere/probe/1"
MAX_FRAME: Final = 128
"""A request has 37 bytes; the rest is for fields of later releases."""
MAX_TIMEOUT_MS: Final = 10_000
KEY_BYTES: Final = 32


class ProbeError(Exception):
    """There is no answer, or it is not one; the text says why. About the subject nothing was learnt."""


class ProbeOutcome(IntEnum):
    """What a witness found out about the subject."""

    ALIVE = 1
    """It has just answered the witness."""
    SILENT = 2
    """It did not answer the witness in time."""
    REFUSED = 3
    """Where it was, connections are refused: nobody listens there any more."""
    UNKNOWN = 4
    """The witness cannot say: no connection, no address, or no time."""


@dataclass(frozen=True, slots=True)
class Request:
    """Can you reach *subject*? Try for *timeout_ms* at most."""

    subject: PeerId
    timeout_ms: int

    def encode(self) -> bytes:
        """The payload of the frame. Raises ProbeError for a time outside the limits."""
        _check_timeout(self.timeout_ms)
        return pb.Request(subject=self.subject.public_key, timeout_ms=self.timeout_ms).SerializeToString()

    @classmethod
    def decode(cls, payload: bytes) -> Request:
        """Parse and check a payload. Raises ProbeError."""
        try:
            wire = pb.Request.FromString(payload)
        except DecodeError:
            raise ProbeError("not a request: the bytes are damaged") from None
        if len(wire.subject) != KEY_BYTES:
            raise ProbeError(f"a subject of {len(wire.subject)} bytes; a public key has {KEY_BYTES}")
        _check_timeout(wire.timeout_ms)
        return cls(PeerId.from_public_key(wire.subject), wire.timeout_ms)


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer."""

    outcome: ProbeOutcome

    def encode(self) -> bytes:
        """The payload of the frame."""
        return pb.Reply(outcome=pb.Outcome.ValueType(self.outcome)).SerializeToString()

    @classmethod
    def decode(cls, payload: bytes) -> Reply:
        """Parse a payload; an outcome that only later releases know says nothing here. Raises ProbeError."""
        try:
            wire = pb.Reply.FromString(payload)
        except DecodeError:
            raise ProbeError("not a reply: the bytes are damaged") from None
        if wire.outcome == pb.UNSTATED:
            raise ProbeError("a reply without an outcome")
        return cls(ProbeOutcome(wire.outcome) if wire.outcome in _OUTCOMES else ProbeOutcome.UNKNOWN)


_OUTCOMES = frozenset(int(outcome) for outcome in ProbeOutcome)


def _check_timeout(timeout_ms: int) -> None:
    if not 1 <= timeout_ms <= MAX_TIMEOUT_MS:
        raise ProbeError(f"a time of {timeout_ms} ms; 1 to {MAX_TIMEOUT_MS} is allowed")
