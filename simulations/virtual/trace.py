"""What happened, as one hash."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from hashlib import blake2b

LAST_EVENTS = 200


class Trace:
    """A hash over notes in the order they were made, each with its virtual time.

    Two runs with one hash had the same notes at the same times. *keep*: how many of the last notes stay readable, to
    find the first one that differs.
    """

    def __init__(self, clock: Callable[[], float], keep: int = LAST_EVENTS) -> None:
        self._clock = clock
        self._hash = blake2b(digest_size=16)
        self.count = 0
        self.last: deque[str] = deque(maxlen=keep)

    def __repr__(self) -> str:
        return f"<Trace of {self.count} events, {self.hash}>"

    def note(self, *event: str | int | float | bytes | bool | None) -> None:
        """*event* happens now. Only values that look the same in every process."""
        text = f"{self._clock()!r} {event!r}"
        self._hash.update(text.encode())
        self._hash.update(b"\n")
        self.last.append(text)
        self.count += 1

    @property
    def hash(self) -> str:
        """32 hex digits, of all notes so far."""
        return self._hash.hexdigest()
