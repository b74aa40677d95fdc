"""Circuit breaker of one (node, card) pair: whoever just failed is left alone for a while, then probed by one call.

Pure: time comes in as an argument. It complements the failure detector, which knows nodes: a node may be well and the
backend behind one of its cards not.
"""

from __future__ import annotations

from enum import StrEnum

FAILURES = 3
"""Bad answers in a row that open a breaker: one may be the request's own fault."""
FIRST_PAUSE_S = 1.0
"""About what a backend or a connection takes to come back after a hiccup."""
MAX_PAUSE_S = 15.0
"""The longest pause: what came back is found again this soon, at a cost of four calls a minute."""
PROBE_S = 30.0
"""A probe that was not heard of for so long holds no other back."""


class Circuit(StrEnum):
    """The states of a breaker."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"  # one call is under way to find out


class Breaker:
    """Closed until its pair is in trouble; then open for a pause that doubles with every probe that fails."""

    __slots__ = ("_failures", "_pause", "_until", "news", "state")

    def __init__(self) -> None:
        self.state = Circuit.CLOSED
        self._failures = 0
        self._pause = 0.0
        self._until = 0.0  # open: when the next probe may go; half-open: when the one under way is given up
        self.news: object = None
        """What the node said of itself when this opened."""

    def __repr__(self) -> str:
        return f"<Breaker {self.state}, {self._failures} failures, pause {self._pause:g} s>"

    def wait_s(self, now: float, news: object = None) -> float:
        """Seconds until a call may go; 0: now.

        *news*: what the node says of itself (its boot, its offer). Different from when the breaker opened, it is a
        reason to ask at once.
        """
        if self.state is Circuit.CLOSED or (self.state is Circuit.OPEN and news != self.news):
            return 0.0
        return max(0.0, self._until - now)

    def begin(self, now: float) -> None:
        """A call goes, as :meth:`wait_s` allowed it. On a breaker that is not closed it is the probe."""
        if self.state is not Circuit.CLOSED:
            self.state, self._until = Circuit.HALF_OPEN, now + PROBE_S

    def good(self) -> None:
        """The pair has answered."""
        if self._failures:
            self.state, self._failures, self._pause = Circuit.CLOSED, 0, 0.0

    def bad(self, now: float, news: object = None, *, certain: bool) -> None:
        """The pair has failed. *certain*: it could not be reached or broke off, so once is enough."""
        self._failures += 1
        if self.state is Circuit.OPEN:
            return  # a call that was under way already says nothing new
        if certain or self.state is Circuit.HALF_OPEN or self._failures >= FAILURES:
            self._pause = min(max(FIRST_PAUSE_S, 2 * self._pause), MAX_PAUSE_S)
            self.state, self._until, self.news = Circuit.OPEN, now + self._pause, news

    def void(self, now: float) -> None:
        """The call ended and says nothing of the pair: it was called off, or refused for its own sake."""
        if self.state is Circuit.HALF_OPEN:
            self.state, self._until = Circuit.OPEN, now
