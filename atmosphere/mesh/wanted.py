"""What this node knows by name only and still has to fetch, from whom, and when to ask again. Pure and bounded."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from protocols.sync.messages import MAX_KEYS, Key
from transports.peer_id import PeerId

CAPACITY = 50_000
FIRST_RETRY_S = 0.1
"""A beacon outruns the offer that it names: whoever forwarded it may still be fetching that, too."""
MAX_RETRY_S = 60.0
MAX_ATTEMPTS = 16
"""With doubling waits about eight minutes; a new beacon names what is still wanted again."""


@dataclass(slots=True)
class _Want:
    source: PeerId | None
    due: float
    attempts: int = 0


class Wanted:
    """Keys to fetch. *source*: who is known to know."""

    def __init__(self) -> None:
        self._wants: dict[Key, _Want] = {}

    def __contains__(self, key: Key) -> bool:
        return key in self._wants

    def __len__(self) -> int:
        return len(self._wants)

    def __repr__(self) -> str:
        return f"<Wanted {len(self._wants)} keys>"

    def add(self, key: Key, source: PeerId | None, now: float) -> None:
        """Note *key*, to be fetched at once; a key that is there already keeps its turn."""
        if key not in self._wants and len(self._wants) < CAPACITY:
            self._wants[key] = _Want(source, now)

    def drop(self, key: Key) -> None:
        """It has come, or nobody needs it any more."""
        self._wants.pop(key, None)

    def due(self, connected: Collection[PeerId], now: float) -> dict[PeerId, list[Key]]:
        """Whom to ask for what now; each key goes to its source, later to any of *connected* in turn."""
        plan: dict[PeerId, list[Key]] = {}
        others = sorted(connected)
        if not others:
            return plan
        for number, (key, want) in enumerate(self._wants.items()):
            if want.due > now:
                continue
            first = want.source if want.attempts == 0 and want.source in connected else None
            keys = plan.setdefault(first or others[(number + want.attempts) % len(others)], [])
            if len(keys) < MAX_KEYS:
                keys.append(key)
        return plan

    def asked(self, keys: Collection[Key], now: float) -> None:
        """*keys* were asked for; those that do not come are asked for again after a growing wait."""
        for key in keys:
            want = self._wants.get(key)
            if want is not None:
                want.attempts += 1
                want.due = now + min(MAX_RETRY_S, FIRST_RETRY_S * 2 ** (want.attempts - 1))
                if want.attempts > MAX_ATTEMPTS:
                    del self._wants[key]

    def next_due(self) -> float:
        """When there will be something to ask for; infinity when nothing is wanted."""
        return min((want.due for want in self._wants.values()), default=float("inf"))
