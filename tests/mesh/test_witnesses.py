"""Whose word counts when it says that others failed."""

from __future__ import annotations

import pytest

from atmosphere.mesh.detector import Action, Detector, Evidence, Refute, Statement, Suspect
from atmosphere.mesh.detector_settings import lan
from atmosphere.mesh.witnesses import (
    ABOUT_ALL,
    ANSWER_S,
    HALF_LIFE_S,
    MAX_OPEN,
    MAX_SUBJECTS,
    MAX_WITNESSES,
    Witnesses,
)
from transports.peer_id import PeerId

PEERS = [PeerId.from_public_key(number.to_bytes(32, "big")) for number in range(1, 2 * MAX_WITNESSES)]
ME, LIAR, SECOND_LIAR, HONEST, *SUBJECTS = PEERS
SILENT, REFUSED = Evidence


def refute(witnesses: Witnesses, witness: PeerId, subject: PeerId, number: int, own: float, evidence: Evidence) -> None:
    witnesses.accused(Statement(subject, (1, number), evidence), witness, (1, number), own)
    witnesses.answered(subject, (1, number + 1), own + 0.3)


def test_who_is_refuted_by_several_is_not_believed_for_a_while() -> None:
    witnesses = Witnesses()
    refuted = 0
    while witnesses.trusted(LIAR, 0.0):
        refute(witnesses, LIAR, SUBJECTS[refuted], 1, 0.0, REFUSED)
        refuted += 1
    assert refuted == 3
    assert not witnesses.believed(LIAR, SUBJECTS[9], 1.0)
    assert witnesses.believed(HONEST, SUBJECTS[9], 1.0)
    assert not witnesses.trusted(LIAR, HALF_LIFE_S - 1), "it is not believed again as soon as a little has faded"
    assert witnesses.trusted(LIAR, 2 * HALF_LIFE_S)


def test_silence_weighs_less_than_refusals() -> None:
    witnesses = Witnesses()
    for subject in SUBJECTS[:9]:
        refute(witnesses, HONEST, subject, 1, 0.0, SILENT)
    assert witnesses.trusted(HONEST, 1.0)
    refute(witnesses, HONEST, SUBJECTS[9], 1, 0.0, SILENT)
    assert not witnesses.trusted(HONEST, 0.3)


@pytest.mark.parametrize("evidence", Evidence)
def test_one_subject_cannot_silence_its_neighbour_but_about_itself(evidence: Evidence) -> None:
    """It drops its links on purpose, and then it speaks up: as often as it likes."""
    witnesses = Witnesses()
    for number in range(100):
        refute(witnesses, HONEST, SUBJECTS[0], number, float(number), evidence)
    assert not witnesses.believed(HONEST, SUBJECTS[0], 100.0)
    assert witnesses.believed(HONEST, SUBJECTS[1], 100.0)
    assert witnesses.trusted(HONEST, 100.0)
    assert witnesses.believed(HONEST, SUBJECTS[0], 100.0 + 2 * HALF_LIFE_S)


@pytest.mark.parametrize(("order", "after", "agrees"), [
    ((2, 1), 0.3, False),  # a restart: it was dead
    ((1, 1), 0.3, False),  # no later beacon
    ((1, 2), ANSWER_S + 0.1, False),  # a partition has ended
    ((1, 2), 0.3, True),  # this node has found the same
])
def test_what_is_no_refutation(order: tuple[int, int], after: float, agrees: bool) -> None:
    witnesses = Witnesses()
    for subject in SUBJECTS[:20]:
        witnesses.accused(Statement(subject, (1, 1), REFUSED), HONEST, (1, 1), 0.0)
        witnesses.answered(subject, order, after, agrees=agrees)
        assert subject not in witnesses
    assert witnesses.trusted(HONEST, 0.5)


def test_who_says_what_has_been_refuted_is_refuted_too_and_once() -> None:
    """Of several that lie together some are heard after the answer to the others, and more than one time."""
    witnesses = Witnesses()
    for subject in SUBJECTS[:3]:
        refute(witnesses, LIAR, subject, 1, 0.0, REFUSED)
        for _ in range(4):
            witnesses.accused(Statement(subject, (1, 1), REFUSED), SECOND_LIAR, (1, 2), 0.5)
        witnesses.accused(Statement(subject, (1, 1), REFUSED), HONEST, (1, 2), 0.5 + ANSWER_S)
        assert witnesses.believed(SECOND_LIAR, subject, 0.5) == (subject != SUBJECTS[2])
    assert not witnesses.trusted(SECOND_LIAR, 0.5)
    assert witnesses.trusted(HONEST, 0.5 + ANSWER_S)


def test_memory_is_bounded() -> None:
    witnesses = Witnesses()
    for subject in PEERS:
        witnesses.accused(Statement(subject, (1, 1), REFUSED), LIAR, (1, 1), 0.0)
    assert sum(peer in witnesses for peer in PEERS) == MAX_OPEN
    for witness in PEERS:
        refute(witnesses, witness, SUBJECTS[0], 1, 1.0, REFUSED)
    assert len(witnesses) == MAX_WITNESSES
    for number, subject in enumerate(SUBJECTS[:200]):
        refute(witnesses, LIAR, subject, 1, 2.0 + number, REFUSED)
    assert len(witnesses._points[LIAR]) == MAX_SUBJECTS
    witnesses.forget(LIAR)
    assert witnesses.trusted(LIAR, 300.0)
    assert ABOUT_ALL < MAX_SUBJECTS


def accuse(detector: Detector, subject: PeerId, number: int, now: float) -> list[Action]:
    statement = Statement(subject, (1, number), REFUSED)
    return [action for liar in (LIAR, SECOND_LIAR) for action in detector.stated(statement, liar, now)]


def test_two_that_lie_together_take_out_three_nodes_and_then_nobody() -> None:
    detector = Detector(ME, lan(), lambda: 0.0)
    taken_out = []
    for number, subject in enumerate(SUBJECTS[:20]):
        now = 2.0 * number
        detector.tick(now, lambda peer: 0.0)
        detector.proof(subject, (1, 1), now)
        if any(isinstance(action, Suspect) for action in accuse(detector, subject, 1, now)):
            taken_out.append(subject)
        detector.proof(subject, (1, 2), now + 0.3)
    assert taken_out == SUBJECTS[:3]
    assert not detector.trusts(LIAR)
    assert not detector.worth_passing(Statement(SUBJECTS[30], (1, 1), REFUSED), LIAR)
    assert detector.trusts(HONEST)


def test_two_that_turn_on_one_node_take_it_out_twice() -> None:
    detector = Detector(ME, lan(), lambda: 0.0)
    detector.proof(SUBJECTS[0], (1, 1), 0.0)
    taken_out = 0
    for number in range(1, 20):
        detector.tick(float(number), lambda peer: 0.0)
        taken_out += any(isinstance(each, Suspect) for each in accuse(detector, SUBJECTS[0], number, float(number)))
        detector.proof(SUBJECTS[0], (1, number + 1), number + 0.3)
    assert taken_out == 2


def test_who_accuses_this_node_is_answered_always_and_believed_no_more() -> None:
    detector = Detector(ME, lan(), lambda: 0.0)
    for number in range(1, 6):
        now = 2.0 * number
        detector.tick(now, lambda peer: 0.0)
        assert detector.stated(Statement(ME, (1, number), REFUSED), LIAR, now) == [Refute()]
        detector.proof(ME, (1, number + 1), now + 0.1)
    assert not detector.worth_passing(Statement(ME, (1, 9), REFUSED), LIAR)
