"""What became of calls with an idempotency key: the same call again waits for the first, or gets its result. Pure.

Only for tools with effects: what merely reads or computes may run twice, and would push out what may not. A key is its
caller's own; nobody learns by it what another one asked. Kept are results, and of tools with ``effects: once`` also
failures after the work had begun, because it must not begin again. The memory is bounded and does not outlive the
node: a repeat that comes too late runs again.
"""

from __future__ import annotations

import hashlib
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from atmosphere.capabilities.backend import ToolCall
from atmosphere.capabilities.card import Effects
from protocols.call.errors import CallError, Code
from transports.peer_id import PeerId

KEPT_S = 900.0                       # a caller comes back after an overload within 30 s, by hand within minutes
KEPT_MAX = 4096
KEPT_OF_CALLER_MAX = 1024            # a quarter: one caller alone cannot push out the others' results
KEPT_BYTES = 16 * 1024 * 1024
RESULT_MAX_BYTES = 1024 * 1024       # a larger result is not kept

Key = tuple[PeerId | None, bytes]
"""(caller, idempotency key)"""

_NOT_BEGUN = frozenset({Code.NOT_FOUND, Code.FORBIDDEN, Code.OVERLOADED, Code.RATE_LIMITED, Code.UNAVAILABLE,
                        Code.INVALID, Code.TOO_LARGE})


@dataclass(slots=True, eq=False)
class Record:
    """One piece of work under one key."""

    key: Key
    work: bytes
    """Digest of tool and arguments."""
    effects: Effects
    begun: bool = False
    """It has been given to the backend."""
    streamed: bool = False
    """Pieces of its answer were passed on; they are not kept."""
    outcome: bytes | CallError | None = None
    """None while it runs."""
    until: float = 0.0
    wakers: list[Callable[[], None]] = field(default_factory=list)
    """Of the repeats that wait; called once, when it has ended."""

    @property
    def size(self) -> int:
        return len(self.outcome) if isinstance(self.outcome, bytes) else 0


class IdempotencyMemory:
    """The running and the ended work of all callers."""

    def __init__(self) -> None:
        self._running: dict[Key, Record] = {}
        self._kept: OrderedDict[Key, Record] = OrderedDict()  # the oldest first
        self._of_caller: Counter[PeerId | None] = Counter()
        self._bytes = 0

    def __repr__(self) -> str:
        return f"<IdempotencyMemory {len(self._running)} running, {len(self._kept)} kept in {self._bytes} bytes>"

    def find(self, call: ToolCall, now: float) -> Record | None:
        """The work that *call* repeats; None when it is new.

        Raises CallError (invalid) when the key belongs to other work, or when this is about a stream: the pieces that
        the first one was given are not kept.
        """
        while self._kept and next(iter(self._kept.values())).until <= now:
            self._drop(next(iter(self._kept)))
        key = _key(call)
        record = self._running.get(key) or self._kept.get(key)
        if record is None:
            return None
        if record.work != _work(call):
            raise CallError(Code.INVALID, "this idempotency key was used for another call; make a new key for each")
        if not isinstance(record.outcome, CallError) and (record.streamed or call.arguments().get("stream")):
            ran = "runs already" if record.outcome is None else "has run"
            raise CallError(Code.INVALID, f"a call with this idempotency key {ran}, and a stream cannot be given "
                            "twice; ask without stream, or with a new key to run it again")
        return record

    def begin(self, call: ToolCall, effects: Effects) -> Record:
        """Note that *call*, which is new, is about to run."""
        record = Record(_key(call), _work(call), effects)
        self._running[record.key] = record
        return record

    def end(self, record: Record, outcome: bytes | CallError | None, now: float) -> None:
        """*record* has ended: in a result, an error, or None, cancelled. Wakes those who wait for it."""
        del self._running[record.key]
        record.outcome = _worth_keeping(record, outcome)
        if record.outcome is not None:
            record.until = now + KEPT_S
            self._kept[record.key] = record
            self._of_caller[record.key[0]] += 1
            self._bytes += record.size
            for key in self._surplus(record.key[0]):
                self._drop(key)
        for wake in record.wakers:
            wake()
        record.wakers.clear()

    def _surplus(self, caller: PeerId | None) -> Iterator[Key]:
        """Keys to drop, one after the other, until everything is within its bound."""
        while self._of_caller[caller] > KEPT_OF_CALLER_MAX:
            yield next(key for key in self._kept if key[0] == caller)
        while len(self._kept) > KEPT_MAX or self._bytes > KEPT_BYTES:
            yield next(iter(self._kept))

    def _drop(self, key: Key) -> None:
        record = self._kept.pop(key)
        self._bytes -= record.size
        self._of_caller[key[0]] -= 1
        if not self._of_caller[key[0]]:
            del self._of_caller[key[0]]


def _worth_keeping(record: Record, outcome: bytes | CallError | None) -> bytes | CallError | None:
    """What a repeat is told; None: it runs again."""
    once = record.effects is Effects.ONCE and record.begun
    if isinstance(outcome, bytes):
        if len(outcome) <= RESULT_MAX_BYTES:
            return outcome
        return _unknown(f"it has run, but its result of {len(outcome)} bytes was too large to keep") if once else None
    if not once or (outcome is not None and outcome.code in _NOT_BEGUN):
        return None
    # a copy: what was raised holds on to its traceback
    return _unknown("it was called off after it had begun") if outcome is None else replace(outcome)


def _unknown(why: str) -> CallError:
    return CallError(Code.UNKNOWN_OUTCOME, f"{why}; see what came of it before you ask with a new idempotency key")


def _key(call: ToolCall) -> Key:
    return (call.caller, call.idempotency_key)


def _work(call: ToolCall) -> bytes:
    return hashlib.sha256(call.tool.encode() + b"\0" + call.args).digest()
