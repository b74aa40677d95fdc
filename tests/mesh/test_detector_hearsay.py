"""The failure detector and what others state: who is believed, when, and what is passed on."""

from __future__ import annotations

from math import inf

import pytest

from atmosphere.mesh import hearsay
from atmosphere.mesh.detector import Action, Alive, Dead, Detector, Evidence, Refute, Statement, Suspect, Tell
from tests.mesh.detectors import LAN, ME, OTHERS, REFUSED, SUBJECT, Bench, silent_after, tick
from transports.peer_id import PeerId


@pytest.mark.parametrize(
    ("witnesses", "evidence", "suspect", "dead"),
    [
        (1, Evidence.SILENT, None, 7.0),  # one alone cannot suspect; 10 s after it heard the last, 3 s before
        (1, Evidence.REFUSED, None, 7.0),
        (2, Evidence.SILENT, 0.0, 4.5),  # 7.5 s
        (3, Evidence.SILENT, 0.0, 3.5),  # 6.04 s
        (2, Evidence.REFUSED, 0.0, 0.0),
    ],
)
def test_statements_about_a_stranger(
    witnesses: int, evidence: Evidence, suspect: float | None, dead: float
) -> None:
    detector = Detector(ME, LAN, lambda: 0.0)
    detector.tick(0.0, lambda peer: -inf)
    log: list[tuple[float, Action]] = []
    for witness in OTHERS[:witnesses]:
        log += [(0.0, action) for action in detector.stated(Statement(SUBJECT, (1, 1), evidence), witness, 0.0)]
    log += tick(detector, 0.5, 20.0)
    assert [now for now, action in log if isinstance(action, Suspect)] == ([] if suspect is None else [suspect])
    assert [now for now, action in log if isinstance(action, Dead)] == [dead]
    assert not any(isinstance(action, Tell) for _, action in log)  # hearsay is not told on


def test_one_liar_may_repeat_itself_as_often_as_it_likes() -> None:
    detector = Detector(ME, LAN, lambda: 0.0)
    for number in range(5):
        assert detector.stated(Statement(SUBJECT, (1, number), Evidence.REFUSED), OTHERS[0], number / 10) == []


def test_a_later_beacon_refutes_and_an_old_statement_is_void() -> None:
    detector = Detector(ME, LAN, lambda: 0.0)
    detector.proof(SUBJECT, (1, 5), 0.0)
    statement = Statement(SUBJECT, (1, 5), Evidence.SILENT)
    assert detector.stated(statement, OTHERS[0], 1.0) == []
    assert [type(action) for action in detector.stated(statement, OTHERS[1], 1.0)] == [Suspect]
    assert detector.proof(SUBJECT, (1, 5), 1.1) == []  # a repetition proves nothing
    assert detector.proof(SUBJECT, (1, 6), 1.2) == [Alive(SUBJECT)]
    assert not detector.worth_passing(statement, OTHERS[2])
    assert detector.stated(statement, OTHERS[2], 1.3) == detector.stated(statement, OTHERS[3], 1.3) == []
    assert tick(detector, 2.0, 30.0) == []


def test_a_beacon_that_was_under_way_when_the_connection_broke_proves_nothing() -> None:
    detector = Detector(ME, LAN, lambda: 0.0)
    detector.watch(SUBJECT, 0.0)
    detector.proof(SUBJECT, (1, 5), 0.0)
    detector.lost(SUBJECT, 1.0)
    assert detector.dialled(SUBJECT, True, 1.0) == [Tell(Statement(SUBJECT, (1, 5), Evidence.REFUSED))]
    # it would void what was told: that is told again, for the later beacon
    assert detector.proof(SUBJECT, (1, 6), 1.5) == [Tell(Statement(SUBJECT, (1, 6), Evidence.REFUSED))]
    assert detector.proof(SUBJECT, (2, 1), 1.6) == [Alive(SUBJECT)]  # it has been started again


def test_an_accusation_is_refuted_once_a_second() -> None:
    detector = Detector(ME, LAN, lambda: 0.0)
    detector.proof(ME, (1, 7), 0.0)
    statement = Statement(ME, (1, 7), Evidence.SILENT)
    assert detector.stated(statement, OTHERS[0], 1.0) == [Refute()]
    assert detector.stated(statement, OTHERS[1], 1.5) == []
    assert detector.stated(statement, OTHERS[1], 2.1) == [Refute()]
    detector.proof(ME, (1, 8), 3.0)
    assert detector.stated(statement, OTHERS[2], 5.0) == []
    assert detector.statistics().faults == 2


def test_what_is_heard_here_outweighs_what_others_say() -> None:
    detector = Detector(ME, LAN, lambda: 0.0)
    detector.watch(SUBJECT, 0.0)
    detector.tick(1.0, lambda peer: 0.9)
    for witness in OTHERS[:5]:
        assert detector.stated(Statement(SUBJECT, (0, 0), Evidence.REFUSED), witness, 1.2) == []
    assert detector.statistics().suspicions == 0


def test_three_witnesses_are_enough_for_all() -> None:
    """Who has heard three says nothing itself, and passes nothing on."""
    bench = Bench(0, lives=silent_after(0.5))
    bench.run(2.5)
    for witness in OTHERS[:3]:
        statement = Statement(SUBJECT, (0, 0), Evidence.SILENT)
        assert bench.detector.worth_passing(statement, witness)
        bench.do(bench.detector.stated(statement, witness, 2.5), 2.5)
    assert not bench.detector.worth_passing(Statement(SUBJECT, (0, 0), Evidence.SILENT), OTHERS[3])
    bench.run(10.0)
    assert bench.told() == []
    assert bench.times(Dead) == [6.0]


def test_who_knows_already_still_passes_on_what_others_need() -> None:
    bench = Bench(3, refuses=True, say=lambda now: REFUSED)
    bench.do(bench.detector.lost(SUBJECT, 0.1), 0.1)
    bench.run(2.0)
    assert len(bench.times(Dead)) == 1
    statement = Statement(SUBJECT, (0, 0), Evidence.REFUSED)
    worth = []
    for witness in OTHERS[:5]:
        worth.append(bench.detector.worth_passing(statement, witness))
        assert bench.detector.stated(statement, witness, 2.0) == []
    assert worth == [True, True, True, False, False]


def test_memory_and_statements_are_bounded() -> None:
    detector = Detector(ME, LAN, lambda: 0.0)
    for number in range(5_000):
        peer = PeerId.from_public_key(number.to_bytes(32, "big"))
        for witness in OTHERS[:2]:
            detector.stated(Statement(peer, (1, 1), Evidence.REFUSED), witness, 0.0)
    statistics = detector.statistics()
    assert statistics.suspicions + statistics.dead <= hearsay.STATED_BURST
    assert statistics.ignored == 10_000 - hearsay.STATED_BURST
    for number in range(hearsay.MAX_ORDERS + 100):
        detector.proof(PeerId.from_public_key(number.to_bytes(32, "big")), (1, 1), 0.0)
    assert len(detector._hearsay) == hearsay.MAX_ORDERS
