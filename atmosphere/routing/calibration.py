"""From the fit of the best card to probabilities: that anybody can, and that this one is meant. Pure.

Two questions, because they have different answers: of two equal cards each fits perfectly, so somebody can, but which
is meant is a coin's throw. Both are a logistic function of

- **fit** of the best card, and its **margin** over the second (only for the second question),
- **phrases**, as L = ln(1 + phrases): a card with ten examples fits everything better than one with none,
- **shared**, times L: the share of the intent's words, weighed by rarity, that the card has too. A card that has said
  a lot and still never used these words is probably not meant.

The constants are a start: what a fit means differs between one mesh and another. So each result is shifted by what
became of earlier picks: a step of logistic regression per outcome, bounded (SHIFT_LIMIT), and fading with every step
(DECAY), so that a mesh that has changed is learnt again.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

SOMEBODY_FIT, SOMEBODY_SHARED, SOMEBODY_PHRASES, SOMEBODY = 5.9, 0.34, -0.7, -2.2
RIGHT_FIT, RIGHT_MARGIN, RIGHT_SHARED, RIGHT_PHRASES, RIGHT = 5.2, 4.9, 0.45, -0.77, -2.9
"""Rounded from what ``python -m tests.benchmarks.fit_routing`` reads off a set of this project's own, with 0, 5 and 10
examples per card. SOMEBODY at even odds: at .5 the evidence speaks for neither. RIGHT where two of three queries have a
card; where it is another share, or queries are easier, the level is off (docs/routing.md says by how much): hence the
shifts."""
STEP = 0.1
"""Of one outcome: some ten in a row move a probability of .5 to .6."""
DECAY = 0.999
SHIFT_LIMIT = 3.0


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the probabilities are read off."""

    fit: float
    margin: float
    shared: float = 0.0
    """0..1."""
    phrases: int = 0


class Calibration:
    """Probabilities, and what was learnt of how good they are."""

    def __init__(self, right_shift: float = 0.0, somebody_shift: float = 0.0) -> None:
        self.right_shift = _bounded(right_shift)
        self.somebody_shift = _bounded(somebody_shift)

    def __repr__(self) -> str:
        return f"<Calibration right {self.right_shift:+.2f} somebody {self.somebody_shift:+.2f}>"

    @property
    def shifts(self) -> tuple[float, float]:
        """What was learnt, for another :class:`Calibration` to begin with."""
        return self.right_shift, self.somebody_shift

    def restore(self, right_shift: float, somebody_shift: float) -> None:
        """Go on from :attr:`shifts` of an earlier run."""
        self.right_shift, self.somebody_shift = _bounded(right_shift), _bounded(somebody_shift)

    def somebody(self, seen: Evidence) -> float:
        """The probability that any card can do what was asked."""
        said = math.log1p(seen.phrases)
        value = SOMEBODY + SOMEBODY_FIT * seen.fit + (SOMEBODY_SHARED * seen.shared + SOMEBODY_PHRASES) * said
        return _sigmoid(value + self.somebody_shift)

    def right(self, seen: Evidence) -> float:
        """The probability that the best card is the one that was meant."""
        said = math.log1p(seen.phrases)
        value = RIGHT + RIGHT_FIT * seen.fit + RIGHT_MARGIN * seen.margin
        return _sigmoid(value + (RIGHT_SHARED * seen.shared + RIGHT_PHRASES) * said + self.right_shift)

    def learn(self, seen: Evidence, *, right: bool, somebody: bool | None = None) -> None:
        """The best card of an earlier match was right, or not; *somebody*: another one could (None: not known)."""
        self.right_shift = _bounded(DECAY * self.right_shift + STEP * (right - self.right(seen)))
        if right or somebody is not None:
            error = (right or bool(somebody)) - self.somebody(seen)
            self.somebody_shift = _bounded(DECAY * self.somebody_shift + STEP * error)


def _bounded(shift: float) -> float:
    return max(-SHIFT_LIMIT, min(SHIFT_LIMIT, shift)) if math.isfinite(shift) else 0.0


def _sigmoid(value: float) -> float:
    return 1.0 / (1.0 + math.exp(-max(-30.0, min(30.0, value))))
