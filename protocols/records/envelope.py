"""Envelopes: a payload's exact bytes, who signed them, and the signature.

The signature is Ed25519 over ``domain || 0x00 || payload``. An envelope has one encoding: the fields in order, each
once, in their shortest form, nothing unknown. So nobody but the signer can make a second envelope (with another
digest) out of one; what may grow over time is the payload, which says its own version.
"""

from __future__ import annotations

from enum import StrEnum

from google.protobuf.message import DecodeError
from nacl.bindings import crypto_sign_open
from nacl.exceptions import BadSignatureError
from nacl.signing import SigningKey

from protocols.records.records_pb2 import Envelope
from transports.peer_id import PeerId

SIGNATURE_SIZE = 64
OVERHEAD = 110
"""The most bytes that an envelope adds to a payload of less than 16 KiB: signature, signer, tags and lengths."""


class Fault(StrEnum):
    """What is wrong with an envelope."""

    OVERSIZED = "oversized"
    MALFORMED = "malformed"
    FORGED = "forged"


class EnvelopeError(Exception):
    """The bytes are not an envelope that can be trusted. *fault* is for programs, the text for people."""

    def __init__(self, fault: Fault, message: str) -> None:
        super().__init__(message)
        self.fault = fault


def sign(domain: bytes, payload: bytes, key: SigningKey, *, name_signer: bool = True) -> bytes:
    """An envelope of *payload*. *name_signer* False leaves the signer out, where the reader knows it."""
    signature = key.sign(domain + b"\0" + payload).signature
    signer = key.verify_key.encode() if name_signer else b""
    return Envelope(payload=payload, signer=signer, signature=signature).SerializeToString()


def open_envelope(data: bytes, domain: bytes, max_size: int, signer: PeerId | None = None) -> tuple[bytes, PeerId]:
    """The payload in *data* and who signed it for *domain*; *max_size* bounds *data*, bytes.

    With *signer*, the envelope must leave its signer out, and the signature must be that peer's. Whether the signer
    may say what the payload says is the caller's question. Raises EnvelopeError.
    """
    if len(data) > max_size:
        raise EnvelopeError(Fault.OVERSIZED, f"an envelope of {len(data)} bytes, {max_size} is the maximum here")
    try:
        envelope = Envelope.FromString(data)
    except DecodeError as error:
        raise EnvelopeError(Fault.MALFORMED, "not an envelope: the bytes are damaged or cut off") from error
    payload, named, signature = envelope.payload, envelope.signer, envelope.signature
    if Envelope(payload=payload, signer=named, signature=signature).SerializeToString() != data:
        raise EnvelopeError(Fault.MALFORMED, "an envelope that is not in its one encoding")
    if len(signature) != SIGNATURE_SIZE:
        raise EnvelopeError(Fault.MALFORMED, f"a signature of {len(signature)} bytes instead of {SIGNATURE_SIZE}")
    if len(named) != (32 if signer is None else 0):
        raise EnvelopeError(Fault.MALFORMED, f"a signer of {len(named)} bytes where {'0' if signer else '32'} belong")
    by = PeerId.from_public_key(named) if signer is None else signer
    try:
        crypto_sign_open(signature + domain + b"\0" + payload, by.public_key)
    except BadSignatureError as error:
        raise EnvelopeError(Fault.FORGED, f"the signature is not {by.short}'s for these bytes") from error
    return payload, by
