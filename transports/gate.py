"""Who may start a handshake: decided from the IP address alone, before a byte is read. Pure; the caller brings time.

A handshake is the dearest thing that somebody unknown can make a node do, about 5 ms of CPU. So strangers' handshakes
are few per second, in total and per address, and connections beyond are closed unread. Addresses where a member is or
was connected have budgets of their own, which no stranger elsewhere can use up: under a flood members reconnect. A
member at an address never seen before competes with the strangers; it tries again until it gets through.
"""

from __future__ import annotations

from collections import Counter, OrderedDict

from transports.config import HostConfig
from transports.rates import TokenBuckets

MAX_ADDRESSES = 4096
"""Addresses with a bucket of their own. More than 4,096 are stopped by the limit for all strangers."""

MAX_MEMBER_ADDRESSES = 1024
"""Addresses kept for members, twice the connections of a node; the one used longest ago is forgotten first."""


class Gate:
    """Limits on inbound connections: rate and number of handshakes, with a reserve for members' addresses."""

    def __init__(self, config: HostConfig) -> None:
        self._config = config
        self._strangers: TokenBuckets[None] = TokenBuckets(config.stranger_rate, config.stranger_burst, 1)
        self._addresses: TokenBuckets[str] = TokenBuckets(config.address_rate, config.address_burst, MAX_ADDRESSES)
        self._members: TokenBuckets[str] = TokenBuckets(config.member_rate, config.member_burst, MAX_MEMBER_ADDRESSES)
        self._known: OrderedDict[str, None] = OrderedDict()
        self._running: Counter[bool] = Counter()  # handshakes, by whether their address is a member's

    def __repr__(self) -> str:
        return f"<Gate, {self.handshakes} handshakes, {len(self._known)} members' addresses>"

    @property
    def handshakes(self) -> int:
        return self._running.total()

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
        config = self._config
        members = self.is_members(host)
        reserve = config.max_handshakes if members else config.max_handshakes - config.member_handshakes
        if self.handshakes >= config.max_handshakes or self._running[members] >= reserve:
            return "too many handshakes at a time"
        if members:
            return "too many handshakes of a member's address" if self._members.take(host, now) else None
        if self._strangers.wait(None, now):
            return "too many handshakes of strangers"
        if self._addresses.take(host, now):
            return "too many handshakes of one address"
        self._strangers.take(None, now)
        return None

    def begin(self, host: str) -> bool:
        """A handshake with *host* begins; pass the result to :meth:`end`."""
        members = self.is_members(host)
        self._running[members] += 1
        return members

    def end(self, begun: bool) -> None:
        self._running[begun] -= 1
