"""When to dial whom: a plain state machine. Time comes in as an argument, randomness as a draw."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from transports.peer_id import PeerId


@dataclass(frozen=True)
class BackOff:
    """How long to wait after failures in a row."""

    first: float = 0.5
    """Seconds after the first failure, and at most this after a loss: a node that restarts is back in a second."""

    factor: float = 2.0
    """Each further failure doubles the wait, so an outage of an hour costs some 70 dials and not 7,000."""

    longest: float = 60.0
    """Seconds at most: a machine that wakes up is found within a minute."""

    jitter: float = 0.5
    """The wait is shortened by up to this fraction, so that a mesh does not dial a returning node in one beat."""

    def delay(self, failures: int, draw: float) -> float:
        """Seconds to wait after *failures* in a row (0: a connection was lost); *draw* is uniform in [0, 1)."""
        full = min(self.first * self.factor ** min(max(failures - 1, 0), 32), self.longest)
        return full * draw if failures == 0 else full * (1 - self.jitter * draw)


GIVE_UP_AFTER = 12
"""Failures in a row after which a peer that is not wanted forever is forgotten: with the default back-off 6 minutes."""

REVISIT_EVERY = 600.0
"""Seconds until a peer that has let go of us, and is wanted forever, is dialled again, less up to half of them by
chance: two halves of a mesh that have forgotten each other meet through the nodes that their owners named."""

KNOCK_EVERY = 2.0
"""Seconds between dials out of turn while this node is cut off: a network that is whole again is noticed in about this
time, however long it was parted and however far the back-off has grown, for half a packet per second."""

MAX_WANTED = 1024
"""Peers kept in the plan; beyond it a new peer that is not wanted forever is refused."""

MAX_ADDRESSES = 8
"""Addresses kept for one peer, the newest first."""


@dataclass
class _Entry:
    addresses: tuple[str, ...]
    forever: bool
    due: float
    failures: int = 0
    connected: bool = False
    released: bool = False
    """It had too many connections and let go of ours, or the other way round."""
    dialling: bool = False
    last_error: str = ""
    tried: float = -math.inf
    silent: bool = False  # the last dial failed, and not because it was refused
    hurried: bool = False
    kept: bool = True  # False: nobody wants the peer connected, one dial was asked for


@dataclass(frozen=True)
class DialState:
    """What the plan knows of one peer. *due* is the time of the next dial, None while connected or dialling."""

    addresses: tuple[str, ...]
    forever: bool
    connected: bool
    failures: int
    due: float | None
    last_error: str


class DialPlan:
    """The peers to keep connected. Every method is told the time, in seconds of one monotonic clock."""

    def __init__(self, back_off: BackOff | None = None) -> None:
        self._back_off = back_off or BackOff()
        self._entries: dict[PeerId, _Entry] = {}
        self._knocked = -math.inf

    def __repr__(self) -> str:
        connected = sum(entry.connected for entry in self._entries.values())
        cut_off = ", cut off" if self.cut_off else ""
        return f"<DialPlan, {connected} of {len(self._entries)} wanted peers connected{cut_off}>"

    @property
    def cut_off(self) -> bool:
        """Whether at least half of the wanted peers do not answer. Then it is the network, rather than all of them, and
        of two halves that have lost each other at least one sees it so. A refusal is an answer."""
        wanted = [entry for entry in self._entries.values() if entry.kept]
        silent = sum(entry.silent for entry in wanted)
        return silent > 0 and silent * 2 >= len(wanted)

    def want(self, peer: PeerId, addresses: Sequence[str], forever: bool, connected: bool, now: float) -> bool:
        """Add *peer*, or add to what is known of it. New addresses are dialled at once. False: the plan is full."""
        entry = self._entries.get(peer)
        if entry is None:
            if len(self._entries) >= MAX_WANTED and not forever:
                return False
            self._entries[peer] = _Entry(tuple(addresses)[:MAX_ADDRESSES], forever, now, connected=connected)
            return True
        entry.forever = entry.forever or forever
        entry.kept = True
        if set(addresses) - set(entry.addresses):
            entry.addresses = tuple(dict.fromkeys((*addresses, *entry.addresses)))[:MAX_ADDRESSES]
            entry.failures = 0
            entry.due = now
        return True

    def hurry(self, peer: PeerId, addresses: Sequence[str], now: float) -> None:
        """Dial *peer*, which is not connected, once and now, whatever the back-off says; nothing while it is dialled.

        That dial counts for nothing else: the back-off goes on as it was, and a peer that is not wanted is not kept.
        A full plan takes no more.
        """
        entry = self._entries.get(peer)
        if entry is None:
            if len(self._entries) >= MAX_WANTED:
                return
            entry = self._entries[peer] = _Entry((), False, now, kept=False)
        if not entry.dialling:
            entry.addresses = tuple(dict.fromkeys((*addresses, *entry.addresses)))[:MAX_ADDRESSES]
            entry.hurried = True

    def forget(self, peer: PeerId) -> None:
        """Dial *peer* no more. A connection that exists stays."""
        self._entries.pop(peer, None)

    def on_connected(self, peer: PeerId, now: float) -> None:
        """*peer* has a connection. If this node was cut off, and *peer* was away, the others may be back as well."""
        entry = self._entries.get(peer)
        if entry is None:
            return
        if entry.silent and self.cut_off:
            for other in self._entries.values():
                if other.silent and other.kept:
                    other.due = min(other.due, now)
        entry.connected = True
        entry.silent = entry.released = False
        entry.failures = 0
        entry.last_error = ""
        if not entry.dialling:
            self.end(peer)  # a dial in a hurry that had not begun is not needed any more

    def on_lost(self, peer: PeerId, now: float, draw: float) -> None:
        entry = self._entries.get(peer)
        if entry is not None:
            entry.connected = False
            entry.due = now + self._back_off.delay(0, draw)

    def on_released(self, peer: PeerId, now: float, draw: float) -> None:
        """The connection to *peer* was let go for want of room. Only who is wanted forever is dialled again, later."""
        entry = self._entries.get(peer)
        if entry is not None and not entry.forever:
            del self._entries[peer]
        elif entry is not None:
            entry.connected = False
            entry.released = True
            entry.due = now + REVISIT_EVERY * (1 - self._back_off.jitter * draw)

    def revisit(self, now: float) -> None:
        """Dial at once whoever had let go of us: this node has nobody else."""
        for entry in self._entries.values():
            if entry.released:
                entry.released = False
                entry.due = now

    def on_failed(self, peer: PeerId, reason: str, now: float, draw: float, *, refused: bool = False) -> None:
        """A dial failed. A peer that is not wanted forever is forgotten after GIVE_UP_AFTER of them in a row."""
        entry = self._entries.get(peer)
        if entry is None:
            return
        entry.last_error = reason
        entry.silent = not refused and not entry.connected
        if entry.hurried:
            return
        entry.failures += 1
        entry.due = now + self._back_off.delay(entry.failures, draw)
        if entry.failures >= GIVE_UP_AFTER and not entry.forever and not entry.connected:
            del self._entries[peer]

    def begin(self, now: float, limit: int) -> list[tuple[PeerId, tuple[str, ...]]]:
        """Up to *limit* peers that are to be dialled now, the longest due first; each then belongs to the caller,
        who reports with :meth:`on_failed` if need be, and :meth:`end` in any case."""
        due = [(entry.due, peer) for peer, entry in self._entries.items() if self._waiting(entry) and entry.due <= now]
        return self._begin([peer for _, peer in sorted(due)], now, limit)

    def begin_hurried(self, now: float, limit: int) -> list[tuple[PeerId, tuple[str, ...]]]:
        """The same for the peers that are in a hurry. While this node is cut off, the silent ones take turns in it."""
        knock = self.next_knock()
        if knock is not None and now >= knock:
            self._knocked = now
            min(self._knockable(), key=lambda entry: entry.tried).hurried = True
        hurried = [peer for peer, entry in self._entries.items() if entry.hurried and not entry.dialling]
        return self._begin(hurried, now, limit)

    def _knockable(self) -> list[_Entry]:
        return [e for e in self._entries.values() if e.silent and self._waiting(e)] if self.cut_off else []

    def _begin(self, peers: list[PeerId], now: float, limit: int) -> list[tuple[PeerId, tuple[str, ...]]]:
        chosen = peers[: max(limit, 0)]
        for peer in chosen:
            self._entries[peer].dialling = True
            self._entries[peer].tried = now
        return [(peer, self._entries[peer].addresses) for peer in chosen]

    def end(self, peer: PeerId) -> None:
        """The dial is over."""
        entry = self._entries.get(peer)
        if entry is not None:
            entry.dialling = entry.hurried = False
            if not entry.kept:
                del self._entries[peer]

    def next_knock(self) -> float | None:
        """When the next dial out of turn is due; None while this node is not cut off."""
        tried = min((entry.tried for entry in self._knockable()), default=None)
        return None if tried is None else max(self._knocked, tried) + KNOCK_EVERY

    @property
    def beginning(self) -> int:
        """Peers that are not connected, and have neither failed nor let go of us."""
        return sum(not (entry.connected or entry.failures or entry.released) for entry in self._entries.values())

    def next_due(self) -> float | None:
        """When the next ordinary dial is due; None when nothing waits."""
        return min((entry.due for entry in self._entries.values() if self._waiting(entry)), default=None)

    @staticmethod
    def _waiting(entry: _Entry) -> bool:
        return not entry.connected and not entry.dialling and not entry.hurried

    def states(self) -> dict[PeerId, DialState]:
        return {
            peer: DialState(
                entry.addresses,
                entry.forever,
                entry.connected,
                entry.failures,
                entry.due if self._waiting(entry) else None,
                entry.last_error,
            )
            for peer, entry in self._entries.items()
        }
