"""From the fit of the best card to probabilities: that anybody can, and that this one is meant. Pure.

Two questions, because they have different answers: of two equal cards each fits perfectly, so somebody can, but which
is meant is a coin's throw.

    somebody = sigmoid(SOMEBODY[0] * fit + SOMEBODY[1] + shift)
    right    = sigmoid(RIGHT[0] * fit + RIGHT[1] * margin + RIGHT[2] + shift)

The constants are a start: what a fit means differs between one mesh and another, most of all by how many examples the
cards have. So each shift follows what became of earlier picks: a step of logistic regression per outcome, bounded
(SHIFT_LIMIT), and fading with every step (DECAY), so that a mesh that has changed is learnt again.
"""

from __future__ import annotations

import math

SOMEBODY = (9.0, -4.4)
RIGHT = (5.2, 3.8, -4.8)
"""Fitted by logistic regression on two public intent sets with a third of the cards taken away, and rounded."""
STEP = 0.1
"""Of one outcome: some ten in a row move a probability of .5 to .6."""
DECAY = 0.999
SHIFT_LIMIT = 3.0


class Calibration:
    """Probabilities, and what was learnt of how good they are."""

    def __init__(self, right_shift: float = 0.0, somebody_shift: float = 0.0) -> None:
        self.right_shift = _bounded(right_shift)
        self.somebody_shift = _bounded(somebody_shift)

    def __repr__(self) -> str:
        return f"<Calibration right {self.right_shift:+.2f} somebody {self.somebody_shift:+.2f}>"

    def judge(self, fit: float, margin: float) -> tuple[float, float]:
        """The probabilities that somebody can, and that the best card is right. *margin*: to the second card."""
        return self._somebody(fit), self._right(fit, margin)

    def learn(self, fit: float, margin: float, *, right: bool, somebody: bool | None = None) -> None:
        """The best card of an earlier match was right, or not; *somebody*: another one could (None: not known)."""
        error = float(right) - self._right(fit, margin)
        self.right_shift = _bounded(DECAY * self.right_shift + STEP * error)
        if right or somebody is not None:
            error = float(right or bool(somebody)) - self._somebody(fit)
            self.somebody_shift = _bounded(DECAY * self.somebody_shift + STEP * error)

    def _somebody(self, fit: float) -> float:
        return _sigmoid(SOMEBODY[0] * fit + SOMEBODY[1] + self.somebody_shift)

    def _right(self, fit: float, margin: float) -> float:
        return _sigmoid(RIGHT[0] * fit + RIGHT[1] * margin + RIGHT[2] + self.right_shift)


def _bounded(shift: float) -> float:
    return max(-SHIFT_LIMIT, min(SHIFT_LIMIT, shift)) if math.isfinite(shift) else 0.0


def _sigmoid(value: float) -> float:
    return 1.0 / (1.0 + math.exp(-max(-30.0, min(30.0, value))))
