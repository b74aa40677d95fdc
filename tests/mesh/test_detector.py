"""The failure detector: what it says when. Times are exact; each row of a table is a rule."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atmosphere.mesh import hearsay
from atmosphere.mesh.detector import (
    Action,
    Alive,
    Ask,
    Dead,
    Detector,
    Dial,
    Evidence,
    Ping,
    Refute,
    Statement,
    Suspect,
    Tell,
)
from atmosphere.mesh.detector_links import PINGED
from atmosphere.mesh.detector_settings import lan, simulation, wan
from protocols.probe.messages import ProbeOutcome
from transports.peer_id import PeerId

LAN = lan()
PEERS = [PeerId.from_public_key(bytes([number]) * 32) for number in range(1, 60)]
ME, SUBJECT, *OTHERS = PEERS
ALIVE, SILENT, REFUSED, UNKNOWN = ProbeOutcome


@dataclass
class Bench:
    """Drives a detector: the subject answers while *lives* says so, the others always; vias say what *say* says."""

    others: int = 0
    lives: Callable[[float], bool] = lambda now: True
    say: Callable[[float], ProbeOutcome | None] = lambda now: None
    refuses: bool = False
    log: list[tuple[float, Action]] = field(default_factory=list)
    reports: list[tuple[float, Callable[[float], list[Action]]]] = field(default_factory=list)
    now: float = 0.0

    def __post_init__(self) -> None:
        self.detector = Detector(ME, LAN, lambda: 0.0)
        for peer in (SUBJECT, *OTHERS[: self.others]):
            self.detector.watch(peer, 0.0)

    def do(self, actions: list[Action], now: float) -> None:
        for action in actions:
            self.log.append((now, action))
            match action:
                case Ping(peer, timeout_s):
                    if peer != SUBJECT or self.lives(now):
                        self.do(self.detector.pong(peer, now), now)
                    else:
                        self.later(now + timeout_s, lambda at, peer=peer: self.detector.missed(peer, at))
                case Ask(via, subject, timeout_s):
                    outcome = self.say(now)
                    self.later(now + timeout_s,
                               lambda at, v=via, s=subject, o=outcome: self.detector.answered(v, s, o, at))
                case Dial(peer, timeout_s):
                    wait = 0.001 if self.refuses else timeout_s
                    self.later(now + wait, lambda at, peer=peer: self.detector.dialled(peer, self.refuses, at))

    def later(self, when: float, report: Callable[[float], list[Action]]) -> None:
        self.reports.append((when, report))

    def run(self, until: float, heard: Callable[[PeerId], float] = lambda peer: -inf) -> None:
        while self.now < until:
            self.do(self.detector.tick(self.now, heard), self.now)
            self.now += LAN.tick_s
            while due := [entry for entry in self.reports if entry[0] <= self.now]:
                entry = min(due, key=lambda entry: entry[0])
                self.reports.remove(entry)
                self.do(entry[1](entry[0]), entry[0])

    def times(self, kind: type, peer: PeerId = SUBJECT) -> list[float]:
        return [now for now, action in self.log if type(action) is kind and getattr(action, "peer", peer) == peer]

    def told(self) -> list[tuple[float, Evidence]]:
        return [(now, action.statement.evidence) for now, action in self.log if isinstance(action, Tell)]


def silent_after(death: float) -> Callable[[float], bool]:
    return lambda now: now < death


def stalled(begin: float, seconds: float) -> Callable[[float], bool]:
    return lambda now: not begin <= now < begin + seconds


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


def tick(detector: Detector, begin: float, end: float) -> list[tuple[float, Action]]:
    """Ticks alone, nothing is heard."""
    count = int((end - begin) / LAN.tick_s)
    ticks = [begin + number * LAN.tick_s for number in range(count + 1)]
    return [(now, action) for now in ticks for action in detector.tick(now, lambda peer: -inf)]


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


def test_presets_keep_the_promised_limits() -> None:
    for preset in (lan(), wan(), simulation()):
        assert preset.dead_max_s == 10.0
        assert preset.dead_min_s == 5.0
        assert preset.ping_s + preset.ping_timeout_s + preset.tick_s <= preset.fresh_s
        assert preset.tell_after_s < preset.dead_min_s


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["tick", "tick", "tick", "hear", "lost", "watch", "unwatch", "failed", "pong", "missed",
                         "dialled", "answered", "stated", "proof", "forget", "stall"]),
        st.integers(1, 5), st.integers(1, 5), st.integers(0, 4),
    ),
    max_size=150,
)


@settings(deadline=None, max_examples=150)
@given(EVENTS)
def test_invariants(events: list[tuple[str, int, int, int]]) -> None:
    """Whatever happens in whatever order: no death within 2 s of bytes, one action of a kind per peer, sound states."""
    detector = Detector(ME, LAN, lambda: 0.5)
    now, heard = 0.0, dict.fromkeys(PEERS[:8], -inf)
    connected: set[PeerId] = set()
    believed: dict[PeerId, type] = {}
    for kind, one, other, number in events:
        peer, via = PEERS[one], PEERS[other]
        actions: list[Action] | None = []
        match kind:
            case "tick":
                now += LAN.tick_s
                actions = detector.tick(now, heard.__getitem__)
            case "stall":
                now += 7.0
            case "hear":
                heard[peer] = now if peer in connected else -inf
            case "watch":
                connected.add(peer)
                heard[peer] = now
                actions = detector.watch(peer, now)
            case "lost":
                connected.discard(peer)
                actions = detector.lost(peer, now)
            case "unwatch":
                connected.discard(peer)
                believed.pop(peer, None)
                detector.unwatch(peer, now)
            case "forget":
                connected.discard(peer)
                believed.pop(peer, None)
                detector.forget(peer)
            case "failed":
                actions = detector.failed(peer, "broke", now)
            case "pong":
                actions = detector.pong(peer, now)
                heard[peer] = now if peer in connected else -inf
            case "missed":
                actions = detector.missed(peer, now)
            case "dialled":
                actions = detector.dialled(peer, number % 2 == 0, now)
            case "answered":
                actions = detector.answered(via, peer, ProbeOutcome(number) if number else None, now)
            case "stated":
                evidence = Evidence.REFUSED if number % 2 else Evidence.SILENT
                actions = detector.stated(Statement(peer, (1, number), evidence), via, now)
            case "proof":
                actions = detector.proof(peer, (1, number) if number else None, now)
        told = [(type(action), getattr(action, "peer", None), getattr(action, "via", None)) for action in actions]
        assert len(told) == len(set(told))
        assert sum(isinstance(action, Ping) for action in actions) <= PINGED
        for action in actions:
            match action:
                case Dead(dead, _):
                    assert not (dead in connected and now - heard[dead] < 2.0)
                    assert believed.get(dead) is not Dead
                    believed[dead] = Dead
                case Suspect(suspect, _):
                    assert suspect not in believed
                    believed[suspect] = Suspect
                case Alive(alive):
                    assert believed.pop(alive) in (Suspect, Dead)
                case Ping(pinged, _):
                    assert pinged in connected
                case Ask(asked, subject, _):
                    assert asked in connected
                    assert asked != subject
    assert len(detector._links) == len(connected)
