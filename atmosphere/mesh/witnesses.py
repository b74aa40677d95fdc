"""Whose word counts when it says that others failed. Pure; the caller brings the time.

An accusation is *refuted* when its subject says a later beacon of the same life within ``ANSWER_S``. Honest nodes are
refuted, too: a link of theirs is bad, or their own line. So points fade, and what is held against a witness is held
against it twice over only:

- about a subject that has refuted it twice lately its word does not count;
- once several subjects have refuted it lately, its word counts about nobody, until half of that has faded: a minute
  or two, as what does not count is not held against it either.

One subject alone is never enough for the second: who drops its links on purpose and then speaks up cannot silence its
neighbours. Death is not held against anybody, nor is a restart, nor an accusation from the other side of a partition,
which is answered long after it was made.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from atmosphere.mesh.detector_actions import Evidence, Order, Statement
from transports.peer_id import PeerId

ANSWER_S = 5.0
"""A refutation takes two ways through gossip, and the subject says one a second at most."""
POINTS: Mapping[Evidence, float] = MappingProxyType({Evidence.SILENT: 0.25, Evidence.REFUSED: 1.0})
"""Of one refuted accusation. Silence is easily a fault of the way between the two; it takes no route out so quickly."""
OF_ONE_SUBJECT = 1.0
"""What the refutations of one subject add to the whole at most."""
ABOUT_ONE = 1.5
"""Points with one subject from which on the witness does not count about that one."""
ABOUT_ALL = 2.5
"""Points from which on it does not count at all: of three nodes it said wrongly that they refuse connections, or of
ten that they are silent, more than a node has links."""
HALF_LIFE_S = 60.0
MAX_WITNESSES = 1024
MAX_SUBJECTS = 32
"""Of one witness; a node accuses its neighbours, and has about as many at most. Beyond, the oldest goes."""
MAX_OPEN = 1024
"""Subjects accused and not heard of since, and as many that have answered; the oldest goes."""
MAX_OPEN_EACH = 16
"""Accusers of one of them."""


@dataclass(frozen=True, slots=True)
class _Accusation:
    order: Order
    evidence: Evidence
    at: float


@dataclass(frozen=True, slots=True)
class _Answer:
    order: Order
    at: float
    charged: set[PeerId] = field(default_factory=set)


class Witnesses:
    """Accusations that wait for an answer, and what became of earlier ones. Times are the observer's own, seconds."""

    def __init__(self) -> None:
        self._open: OrderedDict[PeerId, dict[PeerId, _Accusation]] = OrderedDict()
        self._answers: OrderedDict[PeerId, _Answer] = OrderedDict()
        self._points: OrderedDict[PeerId, OrderedDict[PeerId, tuple[float, float]]] = OrderedDict()
        self._out: set[PeerId] = set()
        """Of those: whose word has not counted since; looked at when it is asked for."""

    def __repr__(self) -> str:
        return f"<Witnesses, {len(self._points)} refuted, {len(self._open)} subjects accused>"

    def __len__(self) -> int:
        """Witnesses with points, faded ones included."""
        return len(self._points)

    def accused(self, statement: Statement, witness: PeerId, known: Order, own: float) -> None:
        """*witness* says so; *known* is the last beacon of the subject. It may come after the answer to others."""
        if statement.order < known:
            answer = self._answers.get(statement.subject)
            if answer is not None:
                self._settle(_Accusation(statement.order, statement.evidence, own), witness, statement.subject, answer)
            return
        accusers = self._open.setdefault(statement.subject, {})
        if witness in accusers or len(accusers) < MAX_OPEN_EACH:
            accusers[witness] = _Accusation(statement.order, statement.evidence, own)
        if len(self._open) > MAX_OPEN:
            self._open.popitem(last=False)

    def __contains__(self, subject: PeerId) -> bool:
        """Whether *subject* has been accused and not heard of since."""
        return subject in self._open

    def answered(self, subject: PeerId, order: Order, own: float, *, agrees: bool = False) -> None:
        """A beacon of *subject* has come. *agrees*: this node has found the same as its accusers, who had a reason."""
        accusers = self._open.pop(subject, {})
        if agrees:
            return
        answer = self._answers[subject] = _Answer(order, own)
        self._answers.move_to_end(subject)
        if len(self._answers) > MAX_OPEN:
            self._answers.popitem(last=False)
        for witness, said in accusers.items():
            self._settle(said, witness, subject, answer)

    def _settle(self, said: _Accusation, witness: PeerId, subject: PeerId, answer: _Answer) -> None:
        """What *witness* said has been answered, before or after it came here: once."""
        refuted = said.order[0] == answer.order[0] and said.order < answer.order
        if not refuted or abs(answer.at - said.at) > ANSWER_S:
            return
        if witness not in answer.charged and len(answer.charged) < MAX_OPEN_EACH:
            answer.charged.add(witness)
            self._charge(witness, subject, POINTS[said.evidence], max(answer.at, said.at))

    def forget(self, peer: PeerId) -> None:
        """Nothing is known of *peer* any more."""
        self._open.pop(peer, None)
        self._answers.pop(peer, None)
        self._points.pop(peer, None)
        self._out.discard(peer)

    def believed(self, witness: PeerId, subject: PeerId, own: float) -> bool:
        """Whether the word of *witness* about *subject* counts now."""
        against = self._points.get(witness)
        if against is None:
            return True
        return _faded(against.get(subject, (0.0, own)), own) < ABOUT_ONE and self.trusted(witness, own)

    def trusted(self, witness: PeerId, own: float) -> bool:
        """Whether the word of *witness* counts at all."""
        if witness in self._out and self._sum(witness, own) < ABOUT_ALL / 2:
            self._out.discard(witness)
        return witness not in self._out

    def _charge(self, witness: PeerId, subject: PeerId, points: float, own: float) -> None:
        against = self._points.setdefault(witness, OrderedDict())
        self._points.move_to_end(witness)
        before = _faded(against.pop(subject, (0.0, own)), own)
        against[subject] = min(before + points, 2 * ABOUT_ONE), own
        if len(against) > MAX_SUBJECTS:
            against.popitem(last=False)
        if self._sum(witness, own) >= ABOUT_ALL:
            self._out.add(witness)
        if len(self._points) > MAX_WITNESSES:
            self._out.discard(self._points.popitem(last=False)[0])

    def _sum(self, witness: PeerId, own: float) -> float:
        return sum(min(_faded(entry, own), OF_ONE_SUBJECT) for entry in self._points[witness].values())


def _faded(entry: tuple[float, float], own: float) -> float:
    points, at = entry
    return float(points * 0.5 ** (max(0.0, own - at) / HALF_LIFE_S))
