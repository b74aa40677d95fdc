"""The failure detector on its own links: what it says when. Times are exact; each row of a table is a rule."""

from __future__ import annotations

from math import inf

import pytest

from atmosphere.mesh.detector import Action, Alive, Ask, Dead, Detector, Evidence, Ping, Statement, Suspect
from atmosphere.mesh.detector_links import PINGED
from atmosphere.mesh.detector_settings import lan, simulation, wan
from protocols.probe.messages import ProbeOutcome
from tests.mesh.detectors import ALIVE, LAN, ME, OTHERS, REFUSED, SILENT, SUBJECT, UNKNOWN, Bench, silent_after, stalled
from transports.peer_id import PeerId


@pytest.mark.parametrize(
    ("others", "say", "suspect", "told", "dead"),
    [
        (0, None, 2.0, 4.0, 10.0),  # two nodes: 10 s from the last proof, which was at 0
        (1, SILENT, 2.5, 4.0, 8.5),  # the first ping left at 1.0; 7.5 s after it with one that agrees
        (2, SILENT, 2.5, 4.0, 7.5),
        (3, SILENT, 2.5, 4.0, 6.0),  # all three asked agree: 5 s after the first ping
        (8, SILENT, 2.5, 4.0, 6.0),
        (8, UNKNOWN, 2.5, 4.0, 10.0),  # nobody can say
    ],
)
def test_silence(others: int, say: ProbeOutcome | None, suspect: float, told: float, dead: float) -> None:
    bench = Bench(others, lives=silent_after(0.5), say=lambda now: say)
    bench.run(20.0)
    assert bench.times(Suspect) == [pytest.approx(suspect, abs=0.3)]
    assert bench.told() == [(told, Evidence.SILENT)]
    assert bench.times(Dead) == [dead]
    assert bench.times(Alive) == []


@pytest.mark.parametrize("others", [0, 1, 8])
@pytest.mark.parametrize("seconds", [1.0, 2.0, 3.0])
def test_a_stall_of_three_seconds_is_no_death(others: int, seconds: float) -> None:
    bench = Bench(others, lives=stalled(4.9, seconds), say=lambda now: SILENT if 4.9 <= now < 4.9 + seconds else ALIVE)
    answers_the_waiting_ping = 4.9 + seconds
    bench.run(30.0, heard=lambda peer: answers_the_waiting_ping if bench.now >= answers_the_waiting_ping else -inf)
    assert bench.times(Dead) == []
    assert bench.told() == []
    assert len(bench.times(Suspect)) == len(bench.times(Alive)) <= 1


def test_a_peer_that_was_stopped_for_a_minute_is_back_with_its_first_bytes() -> None:
    bench = Bench(3, lives=silent_after(0.5), say=lambda now: SILENT)
    bench.run(60.0)
    assert bench.times(Dead) == [6.0]
    bench.run(62.0, heard=lambda peer: 60.2 if peer == SUBJECT and bench.now > 60.2 else -inf)
    assert bench.times(Alive) == [60.5]


def test_a_killed_process_is_dead_once_a_second_witness_was_refused() -> None:
    bench = Bench(3, refuses=True, say=lambda now: REFUSED)
    bench.run(2.0)
    bench.do(bench.detector.lost(SUBJECT, 2.1), 2.1)
    bench.run(4.0)
    assert bench.times(Suspect) == [2.1]
    assert bench.told() == [(pytest.approx(2.101), Evidence.REFUSED)]
    assert bench.times(Dead) == [pytest.approx(2.1 + LAN.ask_timeout_s)]  # with the first answer of those asked


def test_a_statement_is_a_second_witness() -> None:
    bench = Bench(0, refuses=True)
    bench.do(bench.detector.lost(SUBJECT, 0.1), 0.1)
    bench.do(bench.detector.dialled(SUBJECT, True, 0.101), 0.101)
    assert bench.times(Dead) == []
    bench.do(bench.detector.stated(Statement(SUBJECT, (0, 0), Evidence.REFUSED), OTHERS[0], 0.2), 0.2)
    assert bench.times(Dead) == [0.2]


def test_of_two_nodes_the_refused_one_waits_ten_seconds() -> None:
    bench = Bench(0, refuses=True)
    bench.do(bench.detector.lost(SUBJECT, 0.0), 0.0)
    bench.run(20.0)
    assert bench.times(Dead) == [10.0]


def test_a_lost_connection_that_is_there_again_is_a_proof_of_life() -> None:
    bench = Bench(2)
    bench.do(bench.detector.lost(SUBJECT, 0.1), 0.1)
    bench.do(bench.detector.watch(SUBJECT, 0.3), 0.3)
    bench.run(20.0)
    assert bench.times(Suspect) == [0.1]
    assert bench.times(Alive) == [0.3]
    assert bench.times(Dead) == []


def test_a_broken_stream_is_a_suspicion_at_once_and_a_pong_ends_it() -> None:
    bench = Bench(3, lives=silent_after(-1.0))
    bench.do(bench.detector.failed(SUBJECT, "a call broke", 0.2), 0.2)
    assert [type(action) for _, action in bench.log] == [Suspect, Ping, Ask, Ask, Ask]
    assert bench.detector.pong(SUBJECT, 0.4) == [Alive(SUBJECT)]


def test_one_of_three_asked_that_hears_it_prevents_the_suspicion() -> None:
    answers = iter([SILENT, ALIVE, SILENT] * 100)
    bench = Bench(3, lives=silent_after(0.5), say=lambda now: next(answers))
    bench.run(9.0)
    assert bench.times(Suspect) == []


def test_after_a_long_silence_here_one_that_vouches_is_not_enough() -> None:
    """A liar among three cannot keep a dead node alive."""
    bench = Bench(3, lives=silent_after(0.5))

    def answered(via: PeerId, subject: PeerId, outcome: ProbeOutcome | None, now: float) -> list[Action]:
        return real(via, subject, ALIVE if via == OTHERS[0] else SILENT, now)

    real = bench.detector.answered
    bench.detector.answered = answered  # type: ignore[method-assign]
    bench.run(40.0)
    assert bench.times(Suspect)[0] < 15.0
    assert bench.times(Dead)[0] < 20.0


@pytest.mark.parametrize("seconds", [3.0, 20.0, 3600.0])
def test_what_the_observer_sleeps_does_not_count(seconds: float) -> None:
    """Its pings time out the moment it goes on: nobody is suspected for that."""
    detector = Detector(ME, LAN, lambda: 0.0)
    for peer in (SUBJECT, *OTHERS[:3]):
        detector.watch(peer, 0.0)
    pinged = [action for now in (0.0, 0.5, 1.0) for action in detector.tick(now, lambda peer: 0.0)]
    assert len(pinged) == 4
    woken = 1.2 + seconds
    for peer in (SUBJECT, *OTHERS[:3]):
        assert detector.missed(peer, woken) == []
    actions = detector.tick(woken, lambda peer: 0.0)
    assert {type(action) for action in actions} == {Ping}
    assert detector.statistics().faults == 1
    # the others answer, the subject does not: it is given its time anew
    for peer in OTHERS[:3]:
        detector.pong(peer, woken + 0.1)
    assert [type(action) for action in detector.missed(SUBJECT, woken + 0.75)] == [Ask, Ask, Ask, Ping]


def test_an_observer_that_hears_nobody_waits_longer() -> None:
    """No via answers either: the trouble may be here (Lifeguard's missing nacks)."""
    deaf = Bench(3, lives=silent_after(0.5), say=lambda now: None)
    deaf.run(40.0)
    hearing = Bench(3, lives=silent_after(0.5), say=lambda now: UNKNOWN)
    hearing.run(40.0)
    assert hearing.times(Dead) == [10.0]
    assert 10.0 < deaf.times(Dead)[0] <= 30.0


def test_pings_are_bounded_per_tick_and_take_turns() -> None:
    detector = Detector(ME, LAN, lambda: 0.0)
    for peer in OTHERS[:40]:
        detector.watch(peer, 0.0)
    pinged: list[PeerId] = []
    for number in range(2, 6):
        batch = [a.peer for a in detector.tick(number * LAN.tick_s, lambda peer: 0.0) if isinstance(a, Ping)]
        assert len(batch) <= PINGED
        for peer in batch:
            detector.pong(peer, number * LAN.tick_s)
        pinged += batch
    assert set(pinged) == set(OTHERS[:40])


def test_a_busy_link_is_not_pinged() -> None:
    detector = Detector(ME, LAN, lambda: 0.0)
    detector.watch(SUBJECT, 0.0)
    for number in range(1, 100):
        now = number * LAN.tick_s
        assert detector.tick(now, lambda peer, now=now: now - 0.1) == []


def test_presets_keep_the_promised_limits() -> None:
    for preset in (lan(), wan(), simulation()):
        assert preset.dead_max_s == 10.0
        assert preset.dead_min_s == 5.0
        assert preset.ping_s + preset.ping_timeout_s + preset.tick_s <= preset.fresh_s
        assert preset.tell_after_s < preset.dead_min_s
