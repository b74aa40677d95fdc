"""What a gossip peer's misdeeds add up to. Pure; the caller brings the time.

Points are the share of 100 at which a forwarder is not listened to any more; at 50 it loses its place in the mesh and
gets none. Each ends at half the points at which it began: otherwise whoever is put out would be back after seconds, as
what it does reaches nobody meanwhile and costs nothing. Points halve every minute, so who stops is heard again after
one or two and back in the mesh after one to three, and they outlast a reconnect.

Why not the library's scorer (0.8.1): it forgets a peer's points when it disconnects, so a reconnect is an amnesty; its
counters are entered for every peer and topic that is merely asked about, topics that the peer made up included, and
never left; the graylist is asked for GRAFT alone; and time in mesh is one point per GRAFT, not time. Shown in
tests/transports/test_score.py on the bare library. Delete when those pass there.
"""

from __future__ import annotations

from enum import Enum
from typing import Generic, TypeVar

K = TypeVar("K")

PRUNE_AT = 50.0
MUTE_AT = 100.0
HALF_LIFE = 60.0
"""Seconds; the shortest time for which a peer is put out."""

LIMIT = 200.0
"""Points a peer can have: two minutes of silence at most, and one more without a place, however much it did."""

CAPACITY = 1024
"""Peers remembered, twice the connections of a node; the one with the oldest entry goes first."""


class Fault(Enum):
    """A misdeed and its points."""

    REJECTED = 5.0
    """A message that is wrong, and the forwarder could have known: its signature, size, content. 20 of them mute; an
    honest node forwards one when news, such as a revocation, reaches it a moment later."""

    MALFORMED = 25.0
    """Bytes that are no RPC. No version of any program sends them; four mute."""

    OVER_RATE = 0.2
    """A message beyond the rate limit, new or repeated. 500 mute: a burst is forgiven, a flood is not."""


class Standing(Enum):
    """What follows from a peer's points."""

    GOOD = "good"
    SHUNNED = "shunned"
    """It has no place in the mesh: nothing is sent to it, and what it sends is judged as ever."""
    MUTED = "muted"
    """Besides, its streams are refused."""


class Scores(Generic[K]):
    """Points of peers, and their standing."""

    def __init__(self) -> None:
        self._points: dict[K, tuple[float, float, Standing]] = {}

    def __repr__(self) -> str:
        return f"<Scores of {len(self._points)} peers>"

    def __len__(self) -> int:
        return len(self._points)

    def add(self, peer: K, fault: Fault, now: float) -> None:
        """*peer* did this at *now*, in seconds."""
        before, points = self.standing(peer, now), min(self.of(peer, now) + fault.value, LIMIT)
        if points >= MUTE_AT:
            before = Standing.MUTED
        elif points >= PRUNE_AT and before is Standing.GOOD:
            before = Standing.SHUNNED
        self._points[peer] = points, now, before
        while len(self._points) > CAPACITY:
            del self._points[next(iter(self._points))]

    def of(self, peer: K, now: float) -> float:
        """The points of *peer* at *now*."""
        points, at, _ = self._points.get(peer, (0.0, now, Standing.GOOD))
        return float(points * 0.5 ** (max(0.0, now - at) / HALF_LIFE))

    def standing(self, peer: K, now: float) -> Standing:
        """Of *peer* at *now*: the worst since it last did something, as far as its points still bear it."""
        known = self._points.get(peer) if self._points else None
        if known is None or known[2] is Standing.GOOD:
            return Standing.GOOD
        worst = known[2]
        points = self.of(peer, now)
        if worst is Standing.MUTED and points >= MUTE_AT / 2:
            return worst
        return Standing.SHUNNED if points >= PRUNE_AT / 2 else Standing.GOOD

    def shunned(self, peer: K, now: float) -> bool:
        """Whether *peer* has no place in the mesh."""
        return bool(self._points) and self.standing(peer, now) is not Standing.GOOD

    def muted(self, peer: K, now: float) -> bool:
        """Whether *peer* is not listened to."""
        return bool(self._points) and self.standing(peer, now) is Standing.MUTED

    def count(self, now: float) -> tuple[int, int]:
        """How many peers are shunned, and how many of those muted."""
        found = [self.standing(peer, now) for peer in self._points]
        return len(found) - found.count(Standing.GOOD), found.count(Standing.MUTED)
