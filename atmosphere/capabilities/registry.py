"""What this node offers now, and the one door through which every call reaches a backend."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf

from atmosphere.capabilities.admission import Admission, Slots
from atmosphere.capabilities.backend import Backend, Emit, Provision, ToolCall
from atmosphere.capabilities.card import Card, CardError, CardId, Effects, card_id, short_id
from atmosphere.capabilities.idempotency import IdempotencyMemory
from atmosphere.capabilities.offer import MAX_ENTRIES, OfferEntry
from atmosphere.capabilities.pace import Paces
from protocols.call.errors import CallError, Code

log = logging.getLogger(__name__)

QUEUE_LIMIT = 256
"""Calls of one card that wait for a slot: as many as a full HTTP front holds; beyond, callers do better elsewhere."""
PACE_PAUSE_S = 15.0
"""Between two tellings of paces, where nobody says otherwise: a beacon's period in a small mesh."""


@dataclass(frozen=True, slots=True)
class Load:
    """How busy a card or the node is."""

    permille: int
    """Share of the concurrency in use."""
    queue: int
    """Calls that wait."""


@dataclass(frozen=True, slots=True)
class RegistryStatistics:
    """Counts since the start, except *cards*, *backends*, *running* and *waiting*: now."""

    version: int
    backends: int
    cards: int
    running: int
    waiting: int
    served: int
    failed: int
    """Calls that ended in an error of the backend or the registry."""
    cancelled: int
    refused: int
    """Turned away because the queue was full, or longer than the call's deadline allowed."""
    repeated: int
    """Calls that ran already under the same idempotency key and were given what came of that."""


@dataclass(slots=True, eq=False)
class Source:
    """One backend's part of the registry."""

    backend: Backend
    provisions: dict[CardId, Provision] = field(default_factory=dict)
    running: int = 0
    last_activity: float = float("-inf")
    """When one of its calls last made progress."""
    left_out: list[str] = field(default_factory=list)
    suspected: bool = False
    """A call failed in a way that says the backend may be gone."""


@dataclass(slots=True, eq=False)
class Entry:
    """One card on this node."""

    id: CardId
    card: Card
    data: bytes
    """The card's exact bytes."""
    admission: Admission[Source]


class LocalRegistry:
    """The capabilities of this node.

    Backends come and go through :meth:`update` and :meth:`remove`; whenever what is offered changes, :attr:`version`
    grows and *on_change* is called (synchronously; it must only note the fact); the latter also when there are paces to
    be told. :meth:`serve` runs one call: it waits for a slot in first-come order, never longer than the call's
    deadline. Cancelling it cancels the backend's work. A call of a tool with effects that repeats the idempotency key
    of its caller does not run a second time.
    """

    def __init__(
        self,
        monotonic: Callable[[], float],
        *,
        on_change: Callable[[], None] = lambda: None,
        on_suspect: Callable[[Backend], None] = lambda _backend: None,
        on_load: Callable[[], None] = lambda: None,
        pace_pause_s: Callable[[], float] = lambda: PACE_PAUSE_S,
        queue_limit: int = QUEUE_LIMIT,
    ) -> None:
        """*monotonic*: Env's clock, seconds. *on_suspect*: a call found this backend unreachable or broken.
        *on_load*: a call has begun to run or to wait, or ended. Both only note it. *pace_pause_s*: the least time
        between two changes of the offer that are of paces alone."""
        self.version = 0
        self.on_change = on_change
        self.on_suspect = on_suspect
        self.on_load = on_load
        self._monotonic = monotonic
        self._queue_limit = queue_limit
        self._sources: dict[int, Source] = {}
        self._entries: dict[CardId, Entry] = {}
        self._memory = IdempotencyMemory()
        self._paces = Paces(monotonic, pace_pause_s)
        self._served = self._failed = self._cancelled = self._refused = self._repeated = 0

    def __repr__(self) -> str:
        return f"<LocalRegistry version {self.version}: {len(self._entries)} cards of {len(self._sources)} backends>"

    # What is offered

    def update(self, backend: Backend, provisions: Sequence[Provision]) -> bool:
        """What *backend* offers now, replacing what it offered before; True if that changed anything.

        Calls that run on a card which is gone go on to their end. A card over a limit, and what is beyond
        ``MAX_ENTRIES`` cards of the node, is left out and logged.
        """
        offered: dict[CardId, tuple[bytes, Provision]] = {}
        left_out: list[str] = []
        room = MAX_ENTRIES - len(self._entries)
        for provision in provisions:
            try:
                data = provision.card.encode()
            except CardError as error:
                left_out.append(f"{provision.card.type} {provision.card.model}: {error}")
                continue
            card = card_id(data)
            if card not in self._entries and card not in offered:
                room -= 1
                if room < 0:
                    left_out.append(f"{short_id(card)}: a node offers at most {MAX_ENTRIES} cards")
                    continue
            offered[card] = (data, provision)
        source = self._sources.get(id(backend))
        if source is None:
            source = self._sources[id(backend)] = Source(backend)
        source.suspected = False
        if left_out != source.left_out:  # said once, not with every poll
            source.left_out = left_out
            for reason in left_out:
                log.warning("%s: left out %s", backend.name, reason)
        before = source.provisions
        source.provisions = {card: provision for card, (_data, provision) in offered.items()}
        if source.provisions == before:
            return False
        for card in before.keys() - offered.keys():
            self._withdraw(card, source)
        for card, (data, provision) in offered.items():
            entry = self._entries.get(card)
            if entry is None:
                entry = self._entries[card] = Entry(card, provision.card, data, Admission(self._queue_limit))
            entry.admission.add(source, max(provision.concurrency, 1))
        self._changed()
        return True

    def remove(self, backend: Backend) -> bool:
        """*backend* is gone; calls that wait for it are refused as unavailable. True if it was there."""
        source = self._sources.pop(id(backend), None)
        if source is None:
            return False
        cards = list(source.provisions)
        source.provisions = {}
        for card in cards:
            self._withdraw(card, source)
        if cards:
            self._changed()
        return True

    def _withdraw(self, card: CardId, source: Source) -> None:
        entry = self._entries[card]
        entry.admission.remove(source)
        if not entry.admission.slots:
            del self._entries[card]
            self._paces.forget(card)

    def _changed(self) -> None:
        self._paces.tell()  # they go with it
        self.version += 1
        self.on_change()

    def cards(self) -> Mapping[CardId, Card]:
        """Every card that is offered now."""
        return {card: entry.card for card, entry in self._entries.items()}

    def card_bytes(self, card: CardId) -> bytes | None:
        """The exact bytes of an offered card."""
        entry = self._entries.get(card)
        return None if entry is None else entry.data

    def backends(self) -> tuple[Backend, ...]:
        """The backends that are there now."""
        return tuple(source.backend for source in self._sources.values())

    def backend_names(self, card: CardId) -> tuple[str, ...]:
        """Which backends offer *card*, for people."""
        entry = self._entries.get(card)
        return () if entry is None else tuple(slots.source.backend.name for slots in entry.admission.slots)

    def offer_entries(self) -> tuple[OfferEntry, ...]:
        """The entries of this node's offer, in the order of their card ids.

        Where several backends offer one card: the sum of their concurrency, the lowest price, the labels of all.
        """
        entries = []
        for card, entry in sorted(self._entries.items()):
            provisions = [slots.source.provisions[card] for slots in entry.admission.slots]
            entries.append(
                OfferEntry(
                    card,
                    concurrency=entry.admission.size,
                    price_micros=min(provision.price_micros for provision in provisions),
                    labels=tuple(sorted({label for provision in provisions for label in provision.labels})),
                    pace_ms=self._paces.told_ms(card),
                )
            )
        return tuple(entries)

    # Calls

    async def serve(self, card: CardId, call: ToolCall, emit: Emit) -> bytes:
        """Run one call of *card* and return its result (JSON bytes); pieces of a streamed answer go through *emit*.

        Raises :class:`CallError`: not_found (no such card or tool here), invalid (args are no JSON object), overloaded
        (slots and queue full, or a wait that is likely longer than the deadline: said at once, retryable, with a hint
        when to come back), unavailable (the card went while the call waited), deadline, or what the backend raised.
        Any other exception of a backend becomes internal, logged.
        """
        import trio  # here, not above: the bookkeeping of this module is used where no Trio runs

        entry = self._entries.get(card)
        if entry is None:
            message = f"this node does not offer card {short_id(card)} (any more); ask for its offer again"
            raise CallError(Code.NOT_FOUND, message, retryable=True)
        tool = entry.card.tool(call.tool)
        if tool is None:
            tools = ", ".join(tool.name for tool in entry.card.tools) or "none"
            raise CallError(Code.NOT_FOUND, f"{entry.card.type} has no tool {call.tool!r}; it has: {tools}")
        call.arguments()
        timeout = inf if call.deadline is None else call.deadline - self._monotonic()
        if timeout <= 0:
            raise CallError(Code.DEADLINE, "the deadline had passed before the call began; allow more time")
        with trio.move_on_after(timeout) as scope:
            if call.idempotency_key and tool.effects is not Effects.NONE:
                return await self._once(entry, tool.effects, call, emit)
            slots = await self._slot(entry, timeout)
            return await self._run(entry, slots, call, emit)
        assert scope.cancelled_caught  # the body returns or raises
        raise CallError(Code.DEADLINE, f"{call.tool} did not finish within {timeout:.1f} s; allow more time")

    async def _once(self, entry: Entry, effects: Effects, call: ToolCall, emit: Emit) -> bytes:
        """Run *call* unless it has run or runs already; then wait for what comes of that."""
        import trio

        while (known := self._memory.find(call, self._monotonic())) is not None:
            if isinstance(known.outcome, CallError):
                raise replace(known.outcome)
            if known.outcome is not None:
                self._repeated += 1
                return known.outcome
            ended = trio.Event()
            known.wakers.append(ended.set)
            try:
                await ended.wait()  # and look again: when it failed or was cancelled, this one runs in its place
            finally:
                if ended.set in known.wakers:
                    known.wakers.remove(ended.set)
        record = self._memory.begin(call, effects)
        outcome: bytes | CallError | None = None

        async def emit_and_note(piece: bytes) -> None:
            record.streamed = True
            await emit(piece)

        try:
            slots = await self._slot(entry, inf if call.deadline is None else call.deadline - self._monotonic())
            record.begun = True
            outcome = await self._run(entry, slots, call, emit_and_note)
            return outcome
        except CallError as error:
            outcome = error
            raise
        finally:
            self._memory.end(record, outcome, self._monotonic())

    async def _slot(self, entry: Entry, left_s: float) -> Slots[Source]:
        """A slot, at once or after waiting; *left_s*: until the call's deadline."""
        import trio

        admission = entry.admission
        slots = admission.take()
        if slots is not None:
            return slots
        if admission.full() or admission.hopeless(left_s):
            self._refused += 1
            why = "" if admission.full() else f", about {admission.wait_s():.1f} s of waiting with {left_s:.1f} s left"
            raise CallError(
                Code.OVERLOADED,
                f"{entry.card.type} {entry.card.model} is busy: {admission.running} calls run and "
                f"{len(admission.queue)} wait{why}; come back later or use another node",
                retryable=True,
                retry_after_ms=admission.retry_after_ms(),
            )
        event = trio.Event()
        waiting = admission.wait(event.set)
        self.on_load()
        try:
            await event.wait()
        except trio.Cancelled:
            self._cancelled += 1
            admission.leave(waiting)
            raise
        if waiting.granted is None:
            raise CallError(
                Code.UNAVAILABLE, f"the backend of {entry.card.type} went away while the call waited", retryable=True
            )
        return waiting.granted

    async def _run(self, entry: Entry, slots: Slots[Source], call: ToolCall, emit: Emit) -> bytes:
        import trio

        source = slots.source
        started = self._monotonic()
        answered = False
        finished: float | None = None

        async def emit_and_note(piece: bytes) -> None:
            nonlocal answered
            source.last_activity = self._monotonic()
            if not answered:
                answered = True
                self._took(entry.id, source.last_activity - started)
            await emit(piece)

        source.running += 1
        self.on_load()
        try:
            result = await source.backend.invoke(entry.card, call, emit_and_note)
            source.last_activity = self._monotonic()
            finished = source.last_activity - started
            self._served += 1
            if not answered:
                self._took(entry.id, finished)
            return result
        except trio.Cancelled:
            self._cancelled += 1
            if not answered:
                self._took(entry.id, self._monotonic() - started, at_least=True)
            raise
        except CallError as error:
            self._failed += 1
            if error.code is Code.UNAVAILABLE or (error.code is Code.BACKEND and not error.details):
                self._suspect(source)
            raise
        except Exception as error:
            self._failed += 1
            log.exception("%s failed in %s", source.backend.name, call.tool)
            message = f"{source.backend.name}: a bug in its adapter; the log of that node has the details"
            raise CallError(Code.INTERNAL, message) from error
        finally:
            source.running -= 1
            entry.admission.release(slots, finished)
            self.on_load()

    def _took(self, card: CardId, seconds: float, *, at_least: bool = False) -> None:
        if card in self._entries and self._paces.took(card, seconds, at_least=at_least):
            self._paces.tell()
            self.on_change()

    def _suspect(self, source: Source) -> None:
        if not source.suspected and id(source.backend) in self._sources:
            source.suspected = True
            self.on_suspect(source.backend)

    # How busy

    def load(self, card: CardId | None = None) -> Load:
        """How busy *card* is, or without one the node: its busiest backend, because that is where the machine works."""
        if card is not None:
            entry = self._entries.get(card)
            if entry is None:
                return Load(0, 0)
            return Load(_permille(entry.admission.running, entry.admission.size), len(entry.admission.queue))
        permille = 0
        for source in self._sources.values():
            if source.running:
                capacity = max((max(p.concurrency, 1) for p in source.provisions.values()), default=1)
                permille = max(permille, _permille(source.running, capacity))
        return Load(permille, sum(len(entry.admission.queue) for entry in self._entries.values()))

    def last_activity(self, backend: Backend) -> float:
        """When a call of *backend* last made progress, on the monotonic clock; -inf: never."""
        source = self._sources.get(id(backend))
        return float("-inf") if source is None else source.last_activity

    def statistics(self) -> RegistryStatistics:
        return RegistryStatistics(
            version=self.version,
            backends=len(self._sources),
            cards=len(self._entries),
            running=sum(source.running for source in self._sources.values()),
            waiting=sum(len(entry.admission.queue) for entry in self._entries.values()),
            served=self._served,
            failed=self._failed,
            cancelled=self._cancelled,
            refused=self._refused,
            repeated=self._repeated,
        )


def _permille(running: int, size: int) -> int:
    return min(1000, running * 1000 // max(size, 1))
