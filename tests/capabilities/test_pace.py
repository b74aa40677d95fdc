"""What a node says of its own pace: measured where the work is, told seldom, and silent where nothing was asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import trio

from atmosphere.capabilities import capabilities_pb2 as pb
from atmosphere.capabilities.backend import Backend, Emit, Provision, ToolCall
from atmosphere.capabilities.card import Card, CardError, Tool, card_id
from atmosphere.capabilities.offer import MAX_PACE_MS, Offer, OfferEntry, without_paces
from atmosphere.capabilities.pace import ENTRIES, LATE_S, LEAST_MS, SAMPLES, Paces
from atmosphere.capabilities.registry import LocalRegistry
from tests.mesh.people import OTHER

ONE, TWO = bytes([1]) * 32, bytes([2]) * 32
PAUSE_S = 15.0


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Teller:
    """Paces and who tells them as soon as they may be told."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.paces = Paces(self.clock, lambda: PAUSE_S)
        self.told = 0

    def took(self, *seconds: float, card: bytes = ONE, at_least: bool = False, after_s: float = 0.0) -> int:
        """Calls took so long, one every *after_s*; what the others know then."""
        for each in seconds:
            self.clock.now += after_s
            if self.paces.took(card, each, at_least=at_least):
                self.paces.tell()
                self.told += 1
        return self.paces.told_ms(card)


@pytest.mark.parametrize(("seconds", "told_ms"), [
    ((2.0,), 2000),
    ((0.0003,), LEAST_MS),
    ((1e9,), MAX_PACE_MS),
    ((2.0, 600.0, 2.1), 2000),  # a model was loaded
    ((30.0, 1.0), 1000),  # of two the better one: the first was slow to start
    ((1.0, 1.9, 1.9, 1.9), 1000),  # not twice as long
    ((1.0, 2.0, 2.0), 2000),
    ((4.0, 2.1), 4000),
    ((4.0, 2.0), 2000),
    ((1.0,) * SAMPLES + (9.0,) * (SAMPLES // 2 + 1), 9000),  # lately
], ids=repr)
def test_the_median_of_the_last_calls_is_told_when_it_has_moved(seconds: tuple[float, ...], told_ms: int) -> None:
    assert Teller().took(*seconds, after_s=PAUSE_S) == told_ms


def test_the_first_is_told_at_once_and_then_there_is_a_pause_for_all_cards_together() -> None:
    teller = Teller()
    assert teller.took(1.0) == 1000
    assert teller.took(1.0, card=TWO) == 0
    assert teller.took(*[5.0] * SAMPLES) == 1000
    teller.clock.now += PAUSE_S - 1
    assert teller.took(5.0) == 1000
    assert teller.took(5.0, after_s=1.0) == 5000
    assert teller.paces.told_ms(TWO) == 1000, "all that have moved, at once"
    assert teller.told == 2


def test_what_goes_up_and_down_is_told_once_a_pause_at_most() -> None:
    teller = Teller()
    for _ in range(100):
        teller.took(*[1.0] * SAMPLES, *[9.0] * SAMPLES, after_s=0.1)
    assert teller.told <= 1 + 100 * 2 * SAMPLES * 0.1 / PAUSE_S


def test_what_has_come_back_is_not_told() -> None:
    teller = Teller()
    teller.took(1.0)
    teller.took(*[9.0] * SAMPLES, *[1.0] * SAMPLES)
    assert teller.took(1.0, after_s=PAUSE_S) == 1000
    assert teller.told == 1


def test_a_node_with_many_cards_tells_more_seldom() -> None:
    teller = Teller()
    for number in range(4 * ENTRIES):
        teller.took(1.0, card=number.to_bytes(32, "big"))
    assert teller.told == 1
    teller.took(1.0, card=bytes(32), after_s=PAUSE_S)
    assert teller.told == 1
    teller.took(1.0, card=bytes(32), after_s=3 * PAUSE_S)
    assert teller.told == 2


@pytest.mark.parametrize(("before", "seconds", "told_ms"), [
    ((), LATE_S - 0.1, 0),
    ((), LATE_S + 1.0, 4000),
    ((1.0,), 0.5, 1000),
    ((10.0,), 6.0, 10000),
], ids=repr)
def test_a_call_that_was_called_off_counts_where_it_was_late(
    before: tuple[float, ...], seconds: float, told_ms: int
) -> None:
    teller = Teller()
    teller.took(*before)
    assert teller.took(seconds, at_least=True, after_s=PAUSE_S) == told_ms


def test_what_is_withdrawn_is_forgotten() -> None:
    teller = Teller()
    teller.took(1.0)
    teller.paces.forget(ONE)
    assert teller.paces.told_ms(ONE) == 0
    assert teller.took(4.0, after_s=PAUSE_S) == 4000


# In the offer


def offer(entry: OfferEntry) -> Offer:
    return Offer(OTHER, 1, 1, "n", (entry,), 0.0)


def test_an_offer_without_paces_has_the_bytes_it_always_had() -> None:
    data = offer(OfferEntry(ONE, 2, 7, ("gpu",))).encode()
    entry = b"\x0a\x20" + ONE + b"\x10\x02\x18\x07\x22\x03gpu"
    assert data == b"\x0a\x26" + OTHER.raw + b"\x10\x01\x18\x01\x22\x01n\x2a" + bytes([len(entry)]) + entry


def test_a_pace_is_in_the_offer() -> None:
    paced = offer(OfferEntry(ONE, 2, pace_ms=2500))
    assert Offer.decode(paced.encode()) == paced
    assert paced.encode() == offer(OfferEntry(ONE, 2)).encode().replace(b"\x2a\x24", b"\x2a\x27") + b"\x28\xc4\x13"
    assert without_paces(paced.entries) == [OfferEntry(ONE, 2)]


@pytest.mark.parametrize("pace_ms", [MAX_PACE_MS + 1, 2**32 - 1])
def test_a_pace_beyond_the_longest_call_is_refused(pace_ms: int) -> None:
    with pytest.raises(CardError, match="pace_ms"):
        offer(OfferEntry(ONE, pace_ms=pace_ms)).encode()
    message = pb.Offer(peer=OTHER.raw, entries=[pb.OfferEntry(card=ONE, concurrency=1, pace_ms=pace_ms)])
    with pytest.raises(CardError, match="pace_ms"):
        Offer.decode(message.SerializeToString())


# Measured by the registry

CARD = Card("test/slow", "takes its time", tools=(Tool("do"),))
ID = card_id(CARD.encode())


class Slow(Backend):
    name = "slow"

    def __init__(self, first_s: float, then_s: float) -> None:
        self.first_s, self.then_s = first_s, then_s

    async def discover(self) -> Sequence[Provision]:
        return [Provision(CARD, 1)]

    async def invoke(self, card: Card, call: ToolCall, emit: Emit) -> bytes:
        await trio.sleep(self.first_s)
        if self.then_s:
            await emit(b"piece")
            await trio.sleep(self.then_s)
        return b"{}"


async def ignore(_piece: bytes) -> None:
    await trio.lowlevel.checkpoint()


@pytest.mark.parametrize(("first_s", "then_s", "cancel_s"), [
    (4.0, 0.0, None), (4.0, 60.0, None), (4.0, 60.0, 30.0), (60.0, 0.0, 4.0)
], ids=["a result", "its first piece", "a stream that is left", "called off before it answered"])
async def test_the_work_is_measured_and_not_the_wait_for_a_slot(
    first_s: float, then_s: float, cancel_s: float | None, autojump_clock: trio.abc.Clock
) -> None:
    told: list[int] = []
    registry = LocalRegistry(trio.current_time)
    registry.on_change = lambda: told.extend(entry.pace_ms for entry in registry.offer_entries())
    backend = Slow(first_s, then_s)
    registry.update(backend, await backend.discover())

    async def serve() -> None:
        with trio.move_on_after(float("inf") if cancel_s is None else cancel_s):
            await registry.serve(ID, ToolCall("do", b"{}"), ignore)

    async with trio.open_nursery() as nursery:
        for _ in range(2):
            nursery.start_soon(serve)
    assert told == [0, 4000]
    assert registry.version == 1, "it offers what it did before"
    registry.update(backend, [replace(provision, labels=("x",)) for provision in await backend.discover()])
    assert told == [0, 4000, 4000]
    registry.remove(backend)
    registry.update(backend, await backend.discover())
    assert told == [0, 4000, 4000, 0], "another one may be behind that card now"
