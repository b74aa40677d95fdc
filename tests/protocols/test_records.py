"""Envelopes: one encoding, one domain, one signer; any other bytes are refused with their fault."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl.signing import SigningKey

import protocols.records
from protocols.records import EnvelopeError, Fault, open_envelope, sign
from protocols.records.envelope import OVERHEAD
from protocols.records.records_pb2 import Envelope
from transports.peer_id import PeerId

KEY = SigningKey(bytes(range(32)))
SIGNER = PeerId.from_public_key(KEY.verify_key.encode())
OTHER = PeerId.from_public_key(SigningKey(b"o" * 32).verify_key.encode())
DOMAIN = b"atmosphere/test/v1"
GOOD = sign(DOMAIN, b"hello", KEY)
VECTORS = json.loads((Path(protocols.records.__file__).parent / "vectors.json").read_text())


@given(st.binary(max_size=2000), st.booleans())
def test_round_trip(payload: bytes, named: bool) -> None:
    data = sign(DOMAIN, payload, KEY, name_signer=named)
    assert open_envelope(data, DOMAIN, 4096, None if named else SIGNER) == (payload, SIGNER)
    assert len(data) <= len(payload) + OVERHEAD


def test_no_flipped_bit_passes() -> None:
    for position in range(len(GOOD) * 8):
        flipped = bytearray(GOOD)
        flipped[position // 8] ^= 1 << position % 8
        with pytest.raises(EnvelopeError):
            open_envelope(bytes(flipped), DOMAIN, 4096)


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_not_crashed_on(data: bytes) -> None:
    with pytest.raises(EnvelopeError):
        open_envelope(data, DOMAIN, 4096)


WIRE = Envelope.FromString(GOOD)


@pytest.mark.parametrize(("data", "domain", "limit", "signer", "fault"), [
    (GOOD, b"atmosphere/link/v1", 4096, None, Fault.FORGED),
    (GOOD, DOMAIN, len(GOOD) - 1, None, Fault.OVERSIZED),
    (GOOD, DOMAIN, 4096, SIGNER, Fault.MALFORMED),
    (sign(DOMAIN, b"hello", KEY, name_signer=False), DOMAIN, 4096, None, Fault.MALFORMED),
    (sign(DOMAIN, b"hello", KEY, name_signer=False), DOMAIN, 4096, OTHER, Fault.FORGED),
    (GOOD + b"\x20\x01", DOMAIN, 4096, None, Fault.MALFORMED),
    (GOOD + GOOD, DOMAIN, 4096, None, Fault.MALFORMED),
    (b"\x0a\x85\x00" + GOOD[2:], DOMAIN, 4096, None, Fault.MALFORMED),
    (GOOD[:-1], DOMAIN, 4096, None, Fault.MALFORMED),
    (b"", DOMAIN, 4096, None, Fault.MALFORMED),
    (Envelope(payload=b"hello", signer=bytes(32), signature=WIRE.signature).SerializeToString(), DOMAIN, 4096, None,
     Fault.FORGED),
    (Envelope(payload=b"hello", signer=WIRE.signer, signature=bytes(64)).SerializeToString(), DOMAIN, 4096, None,
     Fault.FORGED),
    (Envelope(payload=b"hello", signer=WIRE.signer, signature=b"x").SerializeToString(), DOMAIN, 4096, None,
     Fault.MALFORMED),
])
def test_refused_with_its_fault(
    data: bytes, domain: bytes, limit: int, signer: PeerId | None, fault: Fault
) -> None:
    with pytest.raises(EnvelopeError) as caught:
        open_envelope(data, domain, limit, signer)
    assert caught.value.fault is fault


@pytest.mark.parametrize("case", VECTORS["cases"], ids=lambda case: case["name"])
def test_vectors(case: dict[str, Any]) -> None:
    """``signed``: what ``open_envelope`` says of the bytes, for the domain named."""
    said = case["signed"]
    signer = PeerId.from_public_key(bytes.fromhex(said["by"])) if "by" in said else None
    if "fault" in said:
        with pytest.raises(EnvelopeError) as caught:
            open_envelope(bytes.fromhex(case["hex"]), said["domain"].encode(), VECTORS["max_frame"], signer)
        assert caught.value.fault == said["fault"]
    else:
        payload, _ = open_envelope(bytes.fromhex(case["hex"]), said["domain"].encode(), VECTORS["max_frame"], signer)
        assert payload.hex() == said["payload"]
