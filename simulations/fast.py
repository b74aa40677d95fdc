"""Accelerations of the production code from outside: the ``fast`` fidelity. Each says what it drops.

They are in place for the length of ``with accelerated(): run(...)`` and gone afterwards. ``vanilla`` is a run without
them; tests/simulations/test_fidelity.py compares the two.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from math import inf
from typing import Any, cast

import trio
import trio._core._run as scheduler
from libp2p.pubsub.pb import rpc_pb2
from nacl.bindings import crypto_sign_open

from atmosphere.capabilities.offer import Offer
from atmosphere.identity.chain import open_chain
from atmosphere.identity.link import Link
from protocols.beacons import Announcement, Beacon
from protocols.records.envelope import open_envelope
from simulations import acquaint
from simulations.shared import Shared
from simulations.virtual.stand_ins import WATCHED
from transports.libp2p.gossip_frames import read_rpc
from transports.libp2p.host import LibraryHost

REMEMBERED = 1 << 18
"""Signatures; 16 bytes and a set entry each."""
RECORDS = 1 << 14
"""Of each kind; a record spreads within a second."""
FRAMES = 1 << 12
PASSES_WITHOUT_POLL = 200


_ABSENT: Any = object()


@contextmanager
def _set(owner: Any, name: str, value: object) -> Iterator[None]:
    before = vars(owner).get(name, _ABSENT)
    setattr(owner, name, value)
    try:
        yield
    finally:
        if before is _ABSENT:
            delattr(owner, name)
        else:
            setattr(owner, name, before)


@contextmanager
def _set_everywhere(original: Callable[..., Any], value: Callable[..., Any]) -> Iterator[None]:
    """Wherever a watched package has imported *original* by its name."""
    with ExitStack() as stack:
        for name, module in list(sys.modules.items()):
            if name.split(".")[0] in WATCHED and name != __name__ and not name.startswith("nacl"):
                for attribute, held in list(vars(module).items()):
                    if held is original:
                        stack.enter_context(_set(module, attribute, value))
        yield


@contextmanager
def _signatures() -> Iterator[None]:
    known: set[bytes] = set()

    def verify_once(signed: bytes, key: bytes) -> bytes:
        digest = blake2b(signed, key=key, digest_size=16).digest()
        if digest in known:
            return signed[64:]
        message: bytes = crypto_sign_open(signed, key)
        if len(known) >= REMEMBERED:
            known.clear()
        known.add(digest)
        return message

    with _set_everywhere(crypto_sign_open, verify_once):
        yield


@contextmanager
def _records() -> Iterator[None]:
    with ExitStack() as stack:
        for reader in (open_envelope, open_chain):
            stack.enter_context(_set_everywhere(reader, lru_cache(RECORDS)(reader)))
        for kind in (Announcement, Beacon, Link, Offer):
            stack.enter_context(_set(kind, "decode", staticmethod(lru_cache(RECORDS)(kind.decode))))
        yield


@contextmanager
def _frames() -> Iterator[None]:
    known: dict[bytes, rpc_pb2.RPC] = {}

    def read_once(frame: bytes) -> rpc_pb2.RPC:
        rpc = known.get(frame)
        if rpc is None:
            rpc = read_rpc(frame)
            if not rpc.HasField("control"):  # what is in there is cut to size by who handles it
                if len(known) >= FRAMES:
                    known.clear()
                known[frame] = rpc
        return rpc

    with _set_everywhere(read_rpc, read_once):
        yield


@contextmanager
def _identify() -> Iterator[None]:
    with _set(LibraryHost, "_schedule_identify", lambda self, peer_id, *, reason: None):
        yield


@contextmanager
def _tables() -> Iterator[None]:
    with _set(acquaint, "own", Shared):
        yield


@contextmanager
def _order() -> Iterator[None]:
    with _set(scheduler._r, "shuffle", lambda batch: None):
        yield


class _Registering:
    """What CancelScope._might_change_registered_deadline does, as an object instead of a generator."""

    __slots__ = ("_scope",)

    def __init__(self, scope: Any) -> None:
        self._scope = scope

    def __enter__(self) -> None: ...

    def __exit__(self, *error: object) -> None:
        scope = self._scope
        old = scope._registered_deadline
        new = inf if scope._cancel_status is None or scope._cancel_called else scope._deadline
        if old != new:
            scope._registered_deadline = new
            deadlines = scheduler.GLOBAL_RUN_CONTEXT.runner.deadlines
            if old != inf:
                deadlines.remove(old, scope)
            if new != inf:
                deadlines.add(new, scope)


@contextmanager
def _scopes() -> Iterator[None]:
    with _set(trio.CancelScope, "_might_change_registered_deadline", lambda scope: _Registering(scope)):
        yield


@contextmanager
def _polls() -> Iterator[None]:
    manager = cast(Any, scheduler).TheIOManager
    ask: Callable[[Any, float], Any] = manager.get_events
    passes = 0

    def sometimes(self: Any, timeout: float) -> Any:
        nonlocal passes
        passes += 1
        return [] if timeout <= 0 and passes % PASSES_WITHOUT_POLL else ask(self, timeout)

    with _set(manager, "get_events", sometimes):
        yield


@dataclass(frozen=True)
class Acceleration:
    """One change and what a run with it no longer shows."""

    name: str
    drops: str
    applied: Callable[[], Any]


ACCELERATIONS = (
    Acceleration(
        "signatures",
        "A signature that one node has found good is not computed again by the next. No outcome differs; only the "
        "processor time of a node is no longer what it would be.",
        _signatures,
    ),
    Acceleration(
        "records",
        "A record that one node has read is not read again by the next: all hold the same values, none of which can "
        "be changed. No outcome differs; processor time and memory of a node are no longer what they would be.",
        _records,
    ),
    Acceleration(
        "tables",
        "What all nodes know of all when the world begins is there once, and each node keeps only what differs for it. "
        "No outcome differs; a node's memory no longer grows with the mesh as it would.",
        _tables,
    ),
    Acceleration(
        "frames",
        "A gossip message that one node has unpacked is not unpacked again by the next: all hold the same message. No "
        "outcome differs; processor time and memory of a node are no longer what they would be.",
        _frames,
    ),
    Acceleration(
        "identify",
        "Peers do not exchange identify after connecting: two streams and some 1.5 KB per link less, and nothing in "
        "the library's peerstore. Nothing here reads what it says.",
        _identify,
    ),
    Acceleration(
        "order",
        "Tasks that can run in the same instant run in the order of their creation instead of one drawn from the seed: "
        "a seed explores other links and topologies, but no other interleavings.",
        _order,
    ),
    Acceleration(
        "scopes",
        "Each of the three steps in which a cancel scope notes its deadline runs without the generator that Trio wraps "
        "it in. No outcome differs; processor time of a node is no longer what it would be.",
        _scopes,
    ),
    Acceleration(
        "polls",
        f"The operating system is asked for events in one of {PASSES_WITHOUT_POLL} passes of the scheduler: Ctrl-C "
        "takes a moment longer. There are no sockets.",
        _polls,
    ),
)
NAMES = tuple(each.name for each in ACCELERATIONS)


@contextmanager
def accelerated(names: Collection[str] = NAMES) -> Iterator[None]:
    """Put the accelerations called *names* in place for the length of the block: around :func:`run`, not within it.

    Everything that will run must be imported before. Raises KeyError for a name that is none.
    """
    known = {each.name: each for each in ACCELERATIONS}
    with ExitStack() as stack:
        for name in names:
            stack.enter_context(known[name].applied())
        yield
