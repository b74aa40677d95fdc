"""What became of earlier work: a bounded memory per (node, card) of success, speed and what people said.

Failures fade within minutes: who is ranked last is hardly ever asked, so only time can give it a second chance. A
backend that was restarted is what its owner prefers again a few minutes later, even where nobody had to try it. What
people said fades within weeks, and how fast a pair answers within hours. These two are kept across restarts (see
learnt.py); a node that is put out of the mesh takes everything with it.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from transports.peer_id import PeerId

WEIGHT = 0.3
"""Of the newest outcome in the running mean: three failures in a row leave a third."""
FLOOR = 0.1
"""A pair that always failed is still tried when nobody else is there."""
HALF_LIFE_S = 30.0
"""In which what is missing to 1 halves. The circuit breaker keeps a pair that is still broken from being hammered."""
FORGIVEN = 0.99
"""From here on it counts as 1: ties are broken by the owner's preference again."""
OPINION_STEP = 0.25
"""Of what is missing to full praise or blame: one word moves a quarter, four in a row two thirds."""
OPINION_HALF_LIFE_S = 14 * 86400.0
SPEED_WEIGHT = 0.3
SPEED_HALF_LIFE_S = 3600.0
"""What was slow an hour ago (a model that had to be loaded, say) counts half."""
MAX_SECONDS = 600.0
CAPACITY = 20_000

Pair = tuple[PeerId, bytes]

UNKNOWN = 1.0, 0.0, 0.0
"""What :meth:`Outcomes.learnt` gives of a pair that was never tried."""


@dataclass(slots=True)
class Record:
    """What is known of one pair; each figure with the moment it holds for, seconds on Env's clock."""

    success: float = 1.0
    success_at: float = 0.0
    opinion: float = 0.0
    """-1 (blame) to 1 (praise)."""
    opinion_at: float = 0.0
    seconds: float = 0.0
    """Until the first answer; 0: not known."""
    seconds_at: float = 0.0


class Outcomes:
    """What is remembered of each pair; 1, 0 and 0 for one that was never tried."""

    def __init__(self, monotonic: Callable[[], float] = lambda: 0.0) -> None:
        """*monotonic*: Env's clock, seconds; without one nothing fades."""
        self._monotonic = monotonic
        self._records: OrderedDict[Pair, Record] = OrderedDict()
        self.unsaved: set[Pair] = set()
        """Pairs whose opinion or speed has changed since somebody emptied this set."""
        self.on_unsaved: Callable[[], None] = lambda: None
        """Called when the first pair comes into that set; to note it."""

    def __repr__(self) -> str:
        return f"<Outcomes of {len(self._records)} pairs>"

    def __len__(self) -> int:
        return len(self._records)

    def record(self, peer: PeerId, card_id: bytes, good: bool, seconds: float | None = None) -> None:
        """Take in one outcome. *seconds*: until the first answer of a good one."""
        found = self._of(peer, card_id)
        now = self._monotonic()
        mean = _success(found, now)
        found.success, found.success_at = mean + WEIGHT * ((1.0 if good else 0.0) - mean), now
        if good and seconds is not None:
            self._took((peer, card_id), found, seconds)

    def silent(self, peer: PeerId, card_id: bytes, seconds: float) -> None:
        """There was no answer within *seconds*, and nobody waited for it any longer."""
        if seconds > self.seconds(peer, card_id):
            self._took((peer, card_id), self._of(peer, card_id), seconds)

    def _took(self, pair: Pair, found: Record, seconds: float) -> None:
        seconds = min(max(seconds, 0.0), MAX_SECONDS)
        found.seconds = found.seconds + SPEED_WEIGHT * (seconds - found.seconds) if found.seconds else seconds
        found.seconds_at = self._monotonic()
        self._changed(pair)

    def judge(self, peer: PeerId, card_id: bytes, good: bool) -> float:
        """Somebody says that an answer was good, or bad; the opinion after that, -1..1."""
        found = self._of(peer, card_id)
        now = self._monotonic()
        opinion = _faded(found.opinion, now - found.opinion_at, OPINION_HALF_LIFE_S)
        found.opinion, found.opinion_at = opinion + OPINION_STEP * ((1.0 if good else -1.0) - opinion), now
        self._changed((peer, card_id))
        return found.opinion

    def restore(self, peer: PeerId, card_id: bytes, opinion: float, seconds: float, age_s: float) -> None:
        """Take in what an earlier run knew of a pair, *age_s* old; what was learnt since counts more."""
        if (peer, card_id) in self._records:
            return
        at = self._monotonic() - max(age_s, 0.0)
        found = self._of(peer, card_id)
        found.opinion, found.opinion_at = min(1.0, max(-1.0, opinion)), at
        found.seconds, found.seconds_at = min(max(seconds, 0.0), MAX_SECONDS), at

    def forget(self, peer: PeerId) -> None:
        """*peer* is not a member any more: nothing of it is kept."""
        for pair in [pair for pair in self._records if pair[0] == peer]:
            del self._records[pair]
            self.unsaved.discard(pair)

    def reliability(self, peer: PeerId, card_id: bytes) -> float:
        """The share of good outcomes lately, FLOOR..1."""
        found = self._records.get((peer, card_id))
        return 1.0 if found is None else max(FLOOR, _success(found, self._monotonic()))

    def opinion(self, peer: PeerId, card_id: bytes) -> float:
        """What people said, -1..1; 0: nothing."""
        found = self._records.get((peer, card_id))
        if found is None or not found.opinion:
            return 0.0
        return _faded(found.opinion, self._monotonic() - found.opinion_at, OPINION_HALF_LIFE_S)

    def seconds(self, peer: PeerId, card_id: bytes) -> float:
        """How long the first answer took lately; 0: not known."""
        found = self._records.get((peer, card_id))
        if found is None or not found.seconds:
            return 0.0
        return _faded(found.seconds, self._monotonic() - found.seconds_at, SPEED_HALF_LIFE_S)

    def learnt(self, peer: PeerId, card_id: bytes) -> tuple[float, float, float]:
        """Reliability, seconds and opinion of a pair, at one look where nothing is known: most were never tried."""
        pair = peer, card_id
        return (self.reliability(*pair), self.seconds(*pair), self.opinion(*pair)) if pair in self._records else UNKNOWN

    def known(self) -> Iterator[Pair]:
        """The pairs something is known of."""
        return iter(self._records)

    def worst(self, count: int) -> list[tuple[PeerId, bytes, float]]:
        """At most *count* pairs whose success is below 1, the least reliable first."""
        now = self._monotonic()
        below = ((*pair, mean) for pair, found in self._records.items() if (mean := _success(found, now)) < 1.0)
        return heapq.nsmallest(count, below, key=lambda item: item[2])

    def _changed(self, pair: Pair) -> None:
        self.unsaved.add(pair)
        if len(self.unsaved) == 1:
            self.on_unsaved()

    def _of(self, peer: PeerId, card_id: bytes) -> Record:
        found = self._records.get((peer, card_id))
        if found is None:
            found = self._records[peer, card_id] = Record()
            if len(self._records) > CAPACITY:
                self.unsaved.discard(self._records.popitem(last=False)[0])
        else:
            self._records.move_to_end((peer, card_id))
        return found


def _success(found: Record, now: float) -> float:
    if found.success == 1.0:
        return 1.0
    mean = 1.0 - _faded(1.0 - found.success, now - found.success_at, HALF_LIFE_S)
    return 1.0 if mean > FORGIVEN else mean


def _faded(value: float, age_s: float, half_life_s: float) -> float:
    return value * 0.5 ** (age_s / half_life_s) if age_s > 0 else value
