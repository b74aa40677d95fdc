"""Who may start a handshake: decided from the IP address alone, before a byte is read. Pure; the caller brings time.

A handshake is the dearest thing that somebody unknown can make a node do, about 5 ms of CPU. So strangers' handshakes
are few per second, in total and per address, and connections beyond are closed unread. Addresses where a member is or
was connected have budgets of their own, which no stranger elsewhere can use up: under a flood members reconnect. A
member at an address never seen before competes with the strangers; it tries again until it gets through. For its sake
and that of those who join, a stranger that sits silent in a handshake gives way to a newer one.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from transports.config import HostConfig
from transports.rates import TokenBuckets

MAX_ADDRESSES = 4096
"""Addresses with a bucket of their own. More than 4,096 are stopped by the limit for all strangers."""

MAX_MEMBER_ADDRESSES = 1024
"""Addresses kept for members, twice the connections of a node; the one used longest ago is forgotten first."""


@dataclass(frozen=True, eq=False)
class Handshake:
    """One that runs. *give_way* ends it."""

    of_member: bool
    since: float
    give_way: Callable[[], None]


class Gate:
    """Limits on inbound connections: rate and number of handshakes, with a reserve for members' addresses."""

    def __init__(self, config: HostConfig) -> None:
        self._config = config
        self._strangers: TokenBuckets[None] = TokenBuckets(config.stranger_rate, config.stranger_burst, 1)
        self._addresses: TokenBuckets[str] = TokenBuckets(config.address_rate, config.address_burst, MAX_ADDRESSES)
        self._members: TokenBuckets[str] = TokenBuckets(config.member_rate, config.member_burst, MAX_MEMBER_ADDRESSES)
        self._known: OrderedDict[str, None] = OrderedDict()
        self._running: dict[bool, dict[Handshake, None]] = {True: {}, False: {}}  # members' and others', oldest first

    def __repr__(self) -> str:
        return f"<Gate, {self.handshakes} handshakes, {len(self._known)} members' addresses>"

    @property
    def handshakes(self) -> int:
        return len(self._running[True]) + len(self._running[False])

    def is_members(self, host: str) -> bool:
        """Whether an admitted member was connected from or at *host*."""
        return host in self._known

    def remember_member(self, host: str) -> None:
        """An admitted member is, was, or will be at *host*."""
        self._known[host] = None
        self._known.move_to_end(host)
        if len(self._known) > MAX_MEMBER_ADDRESSES:
            self._known.popitem(last=False)

    def forget_member(self, host: str) -> None:
        """The last member at *host* was expelled; whoever is there is a stranger now."""
        self._known.pop(host, None)

    def refusal(self, host: str, now: float) -> str | None:
        """Why *host* may not start a handshake at *now*, in seconds; None when it may, and then it is counted."""
        if self.is_members(host):
            if self.handshakes >= self._config.max_handshakes:
                return "too many handshakes at a time"
            return "too many handshakes of a member's address" if self._members.take(host, now) else None
        if self._full() and now - self._oldest().since < self._config.handshake_patience:
            return "too many handshakes at a time"
        if self._strangers.wait(None, now):
            return "too many handshakes of strangers"
        if self._addresses.take(host, now):
            return "too many handshakes of one address"
        self._strangers.take(None, now)
        return None

    def begin(self, host: str, now: float, give_way: Callable[[], None]) -> Handshake:
        """A handshake with *host* begins; pass the result to :meth:`end`. The oldest stranger's may give way to it."""
        handshake = Handshake(self.is_members(host), now, give_way)
        if not handshake.of_member and self._full():
            oldest = self._oldest()
            self.end(oldest)
            oldest.give_way()
        self._running[handshake.of_member][handshake] = None
        return handshake

    def end(self, handshake: Handshake) -> None:
        """It is over, well or not. A second call does nothing."""
        self._running[handshake.of_member].pop(handshake, None)

    def _full(self) -> bool:
        return len(self._running[False]) >= self._config.max_handshakes - self._config.member_handshakes

    def _oldest(self) -> Handshake:
        return next(iter(self._running[False]))
