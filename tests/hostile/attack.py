"""One attack of the table, and what attackers do to bytes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from protocols.records.records_pb2 import Envelope
from tests.hostile.house import (
    Answer,
    House,
)


@dataclass(frozen=True)
class Case:
    """One attack. *words*: found in the reason, so that no case passes for another case's reason."""

    name: str
    door: str
    code: str
    words: str
    attack: Callable[[House], Answer | Awaitable[Answer]]

    def __str__(self) -> str:
        return f"{self.door}: {self.name}"


CASES: list[Case] = []


def case(door: str, name: str, code: str, words: str, attack: Callable[[House], Answer | Awaitable[Answer]]) -> None:
    CASES.append(Case(name, door, code, words, attack))


def flip(data: bytes, position: int) -> bytes:
    """*data* with one bit changed in the byte at *position*."""
    changed = bytearray(data)
    changed[position] ^= 1
    return bytes(changed)


def reordered(envelope: bytes) -> bytes:
    """The same envelope with its fields in another order: other bytes, another digest, the same meaning to protobuf."""
    wire = Envelope.FromString(envelope)
    return b"".join((
        Envelope(signature=wire.signature).SerializeToString(), Envelope(signer=wire.signer).SerializeToString(),
        Envelope(payload=wire.payload).SerializeToString(),
    ))


