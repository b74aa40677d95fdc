"""Beacons, goodbyes and suspicions: what is taken, what is refused, and how small they stay."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.beacons import (
    MAX_BEACON_BYTES,
    MAX_HEALTH_BYTES,
    Beacon,
    BeaconError,
    Health,
    HealthKind,
    Leave,
    Suspicion,
)
from protocols.beacons import beacons_pb2 as pb
from protocols.beacons.messages import MAX_ADDRESS_BYTES, MAX_ADDRESSES, MAX_COUNTER
from protocols.records.envelope import OVERHEAD
from transports.peer_id import PeerId

BEACON = Beacon(
    membership=bytes(32), epoch=3, sequence=7, period_ms=15_000, offer=bytes([1]) * 32, issued_at_ms=1_800_000_000_000
)

digests = st.binary(min_size=32, max_size=32)
counters = st.integers(1, MAX_COUNTER)
addresses = st.lists(st.text("/abcip4tcp.0123456789", max_size=MAX_ADDRESS_BYTES), max_size=MAX_ADDRESSES)


@given(digests, counters, counters, digests, st.integers(0, 1000), st.integers(0, 10**6), addresses)
def test_what_is_encoded_is_decoded(membership, epoch, sequence, offer, load, queue, listed) -> None:  # type: ignore[no-untyped-def]
    beacon = Beacon(
        membership, epoch, sequence, 15_000, offer, 1_800_000_000_000, load, queue, addresses=tuple(listed)
    )
    assert Beacon.decode(beacon.encode()) == beacon


def test_the_largest_beacon_fits_with_its_envelope() -> None:
    largest = dataclasses.replace(
        BEACON,
        epoch=MAX_COUNTER,
        sequence=MAX_COUNTER,
        queue=10**6,
        cost_milli=10**6,
        load_permille=1000,
        period_ms=3_600_000,
        addresses=("x" * MAX_ADDRESS_BYTES,) * MAX_ADDRESSES,
    )
    envelope = 2 + 2 + 32 + 2 + 64 + 3  # three fields with their tags and lengths
    assert len(largest.encode()) + envelope <= MAX_BEACON_BYTES


WRONG = {
    "a short digest": {"offer": bytes(31)},
    "epoch 0": {"epoch": 0},
    "sequence beyond any life": {"sequence": MAX_COUNTER + 1},
    "a flood of a period": {"period_ms": 10},
    "a period of a day": {"period_ms": 86_400_000},
    "load over 1": {"load_permille": 1001},
    "too many addresses": {"addresses": ("/ip4/1.2.3.4/tcp/1",) * 5},
    "a long address": {"addresses": ("/" * 65,)},
}


@pytest.mark.parametrize("name", WRONG)
def test_a_beacon_outside_the_limits_is_neither_made_nor_taken(name: str) -> None:
    wrong = dataclasses.replace(BEACON, **WRONG[name])
    with pytest.raises(BeaconError):
        wrong.encode()
    message = pb.Beacon.FromString(BEACON.encode())
    for field, value in WRONG[name].items():
        if isinstance(value, tuple):
            message.addresses.extend(value)
        else:
            setattr(message, field, value)
    with pytest.raises(BeaconError):
        Beacon.decode(message.SerializeToString())


def test_another_version_and_garbage_are_refused_with_a_reason() -> None:
    with pytest.raises(BeaconError, match="not a beacon"):
        Beacon.decode(b"\xff\xff")
    with pytest.raises(BeaconError, match="version 2"):
        Beacon.decode(pb.Beacon(version=2).SerializeToString())
    with pytest.raises(BeaconError, match="version 0"):
        Leave.decode(b"")


def test_unknown_fields_of_a_later_release_are_ignored() -> None:
    assert Beacon.decode(BEACON.encode() + bytes([0x9A, 0x06, 0x01, 0x78])) == BEACON  # field 99, "x"


def test_leave_keeps_the_order_of_beacons() -> None:
    leave = Leave(3, 8, 1_800_000_000_000)
    assert Leave.decode(leave.encode()) == leave
    assert leave.order > BEACON.order


SUSPICION = Suspicion(PeerId.from_public_key(bytes([3]) * 32), 3, 7, True, 1_800_000_000_000)


@given(digests, counters, counters, st.booleans(), st.integers(0, 2**64 - 1))
def test_a_suspicion_is_decoded_as_it_was_encoded_and_fits(key, epoch, sequence, refused, at) -> None:  # type: ignore[no-untyped-def]
    suspicion = Suspicion(PeerId.from_public_key(key), epoch, sequence, refused, at)
    payload = suspicion.encode()
    assert Suspicion.decode(payload) == suspicion
    assert len(Health(HealthKind.SUSPICION, bytes(len(payload) + OVERHEAD)).encode()) <= MAX_HEALTH_BYTES


@pytest.mark.parametrize("field", ["epoch", "sequence"])
@pytest.mark.parametrize("value", [0, MAX_COUNTER + 1])
def test_a_suspicion_of_no_beacon_is_neither_made_nor_taken(field: str, value: int) -> None:
    with pytest.raises(BeaconError, match="count from 1"):
        dataclasses.replace(SUSPICION, **{field: value}).encode()
    message = pb.Suspicion.FromString(SUSPICION.encode())
    setattr(message, field, value)
    with pytest.raises(BeaconError, match="count from 1"):
        Suspicion.decode(message.SerializeToString())


def test_the_beacon_that_follows_refutes_a_suspicion() -> None:
    assert SUSPICION.order == BEACON.order
    assert dataclasses.replace(BEACON, sequence=8).order > SUSPICION.order


@pytest.mark.parametrize("kind", HealthKind)
def test_a_health_message_says_what_is_in_it(kind: HealthKind) -> None:
    assert Health.decode(Health(kind, b"envelope").encode()) == Health(kind, b"envelope")


def test_a_health_message_is_bounded_both_ways() -> None:
    with pytest.raises(BeaconError, match="256 is the maximum"):
        Health(HealthKind.LEAVE, bytes(MAX_HEALTH_BYTES)).encode()
    with pytest.raises(BeaconError, match="256 is the maximum"):
        Health.decode(bytes(MAX_HEALTH_BYTES + 1))
    assert Health.decode(pb.Health().SerializeToString()) is None, "a kind of a later release is no fault"
