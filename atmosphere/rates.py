"""The node's rate limits: calls of a member, joins of strangers. Pure; every number has its reason beside it."""

from __future__ import annotations

from transports.rates import TokenBuckets

__all__ = ["CallRates", "JoinRates", "TokenBuckets"]

CALLS_PER_S, CALLS_BURST = 500.0, 1000.0
"""From one peer, of all kinds. A core serves a few thousand small calls per second: one peer gets a part of it, and a
machine that works for twenty people at once stays below."""

FAMILY_PER_S, FAMILY_BURST = 300.0, 600.0
"""From one peer, for one type of capability: a loop gone wild with one tool leaves room for the peer's other work."""

JOINS_PER_S, JOINS_BURST = 0.2, 5.0
"""From one peer or address: a person who retries, or a household that sets up five machines at once."""

ALL_JOINS_PER_S, ALL_JOINS_BURST = 5.0, 20.0
"""From everybody. A join costs two signatures and a write to disk, about 10 ms: 5 % of a core at most."""

CALLERS = 1024
"""Callers remembered, twice the connections a node has; each may have several families."""

JOINERS = 4096
"""Peers and addresses remembered. Forgetting one early is harmless: the limit for everybody comes first."""


class CallRates:
    """Calls by peer and by (peer, type of capability)."""

    def __init__(self) -> None:
        self._peers: TokenBuckets[bytes] = TokenBuckets(CALLS_PER_S, CALLS_BURST, CALLERS)
        self._families: TokenBuckets[tuple[bytes, str]] = TokenBuckets(FAMILY_PER_S, FAMILY_BURST, 4 * CALLERS)

    def __repr__(self) -> str:
        return f"<CallRates {len(self._peers)} peers, {len(self._families)} families>"

    def take(self, peer: bytes, family: str, now: float) -> float:
        """0 when the call may run, otherwise the seconds to wait (``rate_limited``); then nothing was taken."""
        seconds = max(self._peers.wait(peer, now), self._families.wait((peer, family), now))
        if not seconds:
            self._peers.take(peer, now)
            self._families.take((peer, family), now)
        return seconds


class JoinRates:
    """Join requests by peer, by address, and in total."""

    def __init__(self) -> None:
        self._sources: TokenBuckets[bytes | str] = TokenBuckets(JOINS_PER_S, JOINS_BURST, JOINERS)
        self._all: TokenBuckets[None] = TokenBuckets(ALL_JOINS_PER_S, ALL_JOINS_BURST, 1)

    def __repr__(self) -> str:
        return f"<JoinRates {len(self._sources)} sources>"

    def take(self, peer: bytes, address: str, now: float) -> float:
        """0 when *peer*, connected from IP *address*, may ask; otherwise the seconds to wait, and nothing was taken."""
        seconds = max(self._all.wait(None, now), self._sources.wait(peer, now), self._sources.wait(address, now))
        if not seconds:
            self._all.take(None, now)
            self._sources.take(peer, now)
            self._sources.take(address, now)
        return seconds
