"""A thousand real detectors in a world of lossy messages, stopped processes and deaths. Deterministic by its seed.

Ticks come node by node in a fixed order of phases; whatever takes time is an event on a heap. A ping that succeeds is
reported when it is sent, stamped with the time at which its answer comes (at most two latencies later): that makes an
hour of a thousand nodes affordable and hides nothing, as no limit is shorter. Messages to a stopped process wait for
it; a ping that waited is answered when it goes on. Gossip reaches every node one ``hop_s`` per hop later: its many
paths make up for lost copies.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from heapq import heappop, heappush
from math import ceil, inf

import numpy as np

from atmosphere.mesh.detector import (
    Action,
    Ask,
    Dead,
    Detector,
    Dial,
    Ping,
    Refute,
    Statement,
    Suspect,
    Tell,
)
from atmosphere.mesh.detector_settings import DetectorSettings, simulation
from protocols.probe.messages import ProbeOutcome
from simulations.detector.conditions import Conditions, Spell, fates, long_stall, mesh, rings
from simulations.detector.report import Result
from transports.peer_id import PeerId

BLOCK = 1 << 16
EVERYWHERE = 0.99
WATCHED_S = 20.0
"""Nodes that were stopped or dead themselves within so long of a death are not asked when they knew of it."""


def _draws(rng: np.random.Generator) -> Iterator[float]:
    while True:
        yield from rng.random(BLOCK).tolist()


class _Body:
    """One node: its detector, and what the network does to it."""

    __slots__ = ("awake", "detector", "epoch", "heard", "inbox", "owed", "peer", "refuses", "rings", "sequence", "up")

    def __init__(self, detector: Detector, peer: PeerId, far: list[list[int]]) -> None:
        self.detector = detector
        self.peer = peer
        self.rings = far
        self.up = self.awake = True
        self.refuses = False
        self.epoch = self.sequence = 1
        self.heard: dict[PeerId, float] = {}
        self.inbox: list[Callable[[float], None]] = []
        """What came while it was stopped."""
        self.owed: set[int] = set()
        """Whose pings it has not answered yet."""


class World:
    """Build it, :meth:`run` it once."""

    def __init__(self, conditions: Conditions, settings: DetectorSettings | None = None) -> None:
        self.conditions = conditions
        self.settings = settings or simulation()
        self._draw = _draws(np.random.default_rng([conditions.seed, 4])).__next__
        self._neighbours = mesh(conditions)
        self._low, self._span = conditions.latency_s[0], conditions.latency_s[1] - conditions.latency_s[0]
        peers = [PeerId.from_public_key(number.to_bytes(32, "big")) for number in range(conditions.nodes)]
        self._bodies = [
            _Body(self._new_detector(peer), peer, rings(self._neighbours, number)) for number, peer in enumerate(peers)
        ]
        self._number = {body.peer: number for number, body in enumerate(self._bodies)}
        self._heap: list[tuple[float, int, Callable[[float], None]]] = []
        self._events = 0
        self._spells = fates(conditions)
        self._excused = long_stall(self._spells, self.settings.dead_min_s, self.settings.dead_max_s, conditions.nodes)
        self._known: dict[int, tuple[float, dict[int, float]]] = {}
        """Per dead node: when it died, and who has declared it dead when."""
        self.result = Result(conditions.nodes, conditions.node_hours)
        for number in range(conditions.nodes):
            self._start(number, 0.0)

    def _new_detector(self, peer: PeerId) -> Detector:
        return Detector(peer, self.settings, self._draw)

    def run(self) -> Result:
        """Live through it."""
        for spell in self._spells:
            self._at(spell.begin, partial(self._end if spell.death else self._stop, spell))
        tick_s = self.settings.tick_s
        phases = sorted((self._draw() * tick_s, number) for number in range(self.conditions.nodes))
        order = [(phase, number, self._bodies[number]) for phase, number in phases]
        heap = self._heap
        for step in range(int(self.conditions.duration_s / tick_s)):
            base = step * tick_s
            for phase, number, body in order:
                now = base + phase
                while heap and heap[0][0] <= now:
                    at, _, event = heappop(heap)
                    event(at)
                if body.awake:
                    actions = body.detector.tick(now, body.heard.__getitem__)
                    if actions:
                        self._perform(number, actions, now)
        return self.result

    # -- fates ----------------------------------------------------------------------------------------------------

    def _at(self, when: float, event: Callable[[float], None]) -> None:
        self._events += 1
        heappush(self._heap, (when, self._events, event))

    def _start(self, number: int, now: float) -> None:
        """A node begins, and its neighbours connect."""
        body = self._bodies[number]
        body.detector = self._new_detector(body.peer)
        for other in self._neighbours[number]:
            friend = self._bodies[other]
            body.heard[friend.peer] = -inf
            if number < other and now == 0.0:
                continue  # connected when the other one starts
            if friend.up:
                body.detector.watch(friend.peer, now)
                friend.heard[body.peer] = now
                self._when_awake(other, now, partial(self._connected, other, number))

    def _connected(self, observer: int, other: int, now: float) -> None:
        body = self._bodies[observer]
        self._perform(observer, body.detector.watch(self._bodies[other].peer, now), now)

    def _stop(self, spell: Spell, now: float) -> None:
        self._bodies[spell.node].awake = False
        self._at(spell.end, partial(self._go_on, spell.node))

    def _go_on(self, number: int, now: float) -> None:
        """A stopped process goes on: it reads what has come, answers, and ticks when its next tick is due."""
        body = self._bodies[number]
        body.awake = True
        for other in sorted(body.owed):
            body.heard[self._bodies[other].peer] = now
            self._message()
            if self._draw() >= self.conditions.loss:
                self._bodies[other].heard[body.peer] = now + self._latency()
        body.owed.clear()
        inbox, body.inbox = body.inbox, []
        for event in inbox:
            event(now)

    def _end(self, spell: Spell, now: float) -> None:
        body = self._bodies[spell.node]
        body.up = body.awake = False
        body.refuses = spell.refuses
        body.inbox.clear()
        body.owed.clear()
        self._known[spell.node] = now, {}
        self.result.deaths += 1
        if spell.refuses:
            for other in self._neighbours[spell.node]:
                if self._draw() >= self.conditions.loss:
                    self._at(now + self._latency(), partial(self._reset, other, body.peer))
        self._at(spell.end, partial(self._return, spell))

    def _return(self, spell: Spell, now: float) -> None:
        self._count_death(spell)
        body = self._bodies[spell.node]
        body.up = body.awake = True
        body.refuses = False
        body.epoch, body.sequence = body.epoch + 1, 1
        self._start(spell.node, now)
        self._beacon(spell.node, now)

    def _count_death(self, spell: Spell) -> None:
        died, known = self._known.pop(spell.node)
        near = [known[other] - died for other in self._neighbours[spell.node] if other in known]
        if near:
            self.result.first.append(min(near))
            if spell.refuses:
                self.result.first_refused.append(min(near))
        else:
            self.result.missed += 1
        disturbed = {other.node for other in self._spells if other.begin < died + WATCHED_S and other.end > died}
        times = sorted(known.get(number, inf) for number in range(len(self._bodies)) if number not in disturbed)
        took = times[ceil(EVERYWHERE * len(times)) - 1] - died
        self.result.everywhere.append(took)
        if spell.refuses:
            self.result.everywhere_refused.append(took)

    # -- messages -------------------------------------------------------------------------------------------------

    def _latency(self) -> float:
        return self._low + self._span * self._draw()

    def _message(self) -> None:
        self.result.probes += 1

    def _when_awake(self, number: int, now: float, event: Callable[[float], None]) -> None:
        body = self._bodies[number]
        if body.awake:
            event(now)
        elif body.up:
            body.inbox.append(event)

    def _perform(self, number: int, actions: list[Action], now: float) -> None:
        for action in actions:
            kind = type(action)
            if kind is Ping:
                self._ping(number, action, now)  # type: ignore[arg-type]
            elif isinstance(action, Ask):
                self._ask(number, action, now)
            elif isinstance(action, Dial):
                self._dial(number, action, now)
            elif isinstance(action, Tell):
                self._tell(number, action.statement, now)
            elif isinstance(action, Suspect):
                self._suspected(number, action.peer, now)
            elif isinstance(action, Dead):
                self._declared(number, action.peer, now)
            elif isinstance(action, Refute):
                self._beacon(number, now)

    def _ping(self, number: int, ping: Ping, now: float) -> None:
        body, draw, loss = self._bodies[number], self._draw, self.conditions.loss
        result = self.result
        result.probes += 1
        if draw() >= loss:
            there = self._bodies[self._number[ping.peer]]
            if there.awake:
                arrives = now + self._low + self._span * draw()
                there.heard[body.peer] = arrives
                result.probes += 1
                if draw() >= loss:
                    actions = body.detector.pong(ping.peer, arrives + self._low + self._span * draw())
                    if actions:
                        self._perform(number, actions, now)
                    return
            elif there.up:
                there.owed.add(number)
            elif there.refuses and draw() >= loss:
                self._at(now + 2 * self._latency(), partial(self._reset, number, ping.peer))
                return
        self._at(now + ping.timeout_s, partial(self._missed, number, ping.peer))

    def _report(self, number: int, now: float, report: Callable[[Detector, float], list[Action]]) -> None:
        """Tell a node's detector what became of something, once the node is awake, and do what it wants then."""
        self._when_awake(number, now, lambda at: self._perform(number, report(self._bodies[number].detector, at), at))

    def _missed(self, number: int, peer: PeerId, now: float) -> None:
        self._report(number, now, lambda detector, at: detector.missed(peer, at))

    def _reset(self, number: int, peer: PeerId, now: float) -> None:
        self._report(number, now, lambda detector, at: detector.lost(peer, at))

    def _dial(self, number: int, dial: Dial, now: float) -> None:
        """The world itself connects a node that comes back; until then a dial only finds out whether it is refused."""
        there = self._bodies[self._number[dial.peer]]
        self._message()
        answered = there.refuses and self._draw() >= self.conditions.loss and self._draw() >= self.conditions.loss
        when = now + (2 * self._latency() if answered else dial.timeout_s)
        self._at(when, partial(self._dialled, number, dial.peer, answered))

    def _dialled(self, number: int, peer: PeerId, refused: bool, now: float) -> None:
        self._report(number, now, lambda detector, at: detector.dialled(peer, refused, at))

    def _ask(self, number: int, ask: Ask, now: float) -> None:
        """Four messages, any of which may be lost."""
        loss, draw = self.conditions.loss, self._draw
        via, subject = self._bodies[self._number[ask.via]], self._bodies[self._number[ask.subject]]
        self._message()
        outcome: ProbeOutcome | None = None
        when = now + ask.timeout_s
        if draw() >= loss and via.awake:
            via.heard[self._bodies[number].peer] = now + self._latency()
            self._message()
            took = 2 * self._latency()
            if draw() < loss or not (subject.awake or subject.refuses):
                outcome = ProbeOutcome.SILENT
            else:
                self._message()
                lost = draw() < loss
                outcome = ProbeOutcome.SILENT if lost else (
                    ProbeOutcome.REFUSED if subject.refuses else ProbeOutcome.ALIVE)
            self._message()
            if draw() < loss:
                outcome = None
            elif outcome is not ProbeOutcome.SILENT:
                when = now + took + 2 * self._latency()
        self._at(when, partial(self._answered, number, ask, outcome))

    def _answered(self, number: int, ask: Ask, outcome: ProbeOutcome | None, now: float) -> None:
        self._report(number, now, lambda detector, at: detector.answered(ask.via, ask.subject, outcome, at))

    # -- gossip ---------------------------------------------------------------------------------------------------

    def _flood(self, number: int, now: float, receive: Callable[[int, float], None]) -> None:
        self.result.gossip += len(self._neighbours[number])
        for hops, far in enumerate(self._bodies[number].rings, 1):
            self._at(now + hops * self.conditions.hop_s, partial(self._arrive, far, receive))

    def _arrive(self, numbers: list[int], receive: Callable[[int, float], None], now: float) -> None:
        for number in numbers:
            body = self._bodies[number]
            if body.awake:
                receive(number, now)
            elif body.up:
                body.inbox.append(partial(receive, number))

    def _tell(self, number: int, statement: Statement, now: float) -> None:
        self._flood(number, now, partial(self._hear_statement, statement, self._bodies[number].peer))

    def _hear_statement(self, statement: Statement, witness: PeerId, number: int, now: float) -> None:
        detector = self._bodies[number].detector
        if detector.worth_passing(statement, witness):
            self.result.gossip += len(self._neighbours[number]) - 1
            actions = detector.stated(statement, witness, now)
            if actions:
                self._perform(number, actions, now)

    def _beacon(self, number: int, now: float) -> None:
        body = self._bodies[number]
        body.sequence += 1
        order = body.epoch, body.sequence
        body.detector.proof(body.peer, order, now)
        self._flood(number, now, partial(self._hear_beacon, body.peer, order))

    def _hear_beacon(self, peer: PeerId, order: tuple[int, int], number: int, now: float) -> None:
        self.result.gossip += len(self._neighbours[number]) - 1
        self._perform(number, self._bodies[number].detector.proof(peer, order, now), now)

    # -- what came of it ------------------------------------------------------------------------------------------

    def _is_excused(self, subject: int, now: float) -> bool:
        return any(begin <= now <= end for begin, end in self._excused[subject])

    def _declared(self, number: int, peer: PeerId, now: float) -> None:
        subject = self._number[peer]
        near = subject in self._neighbours[number]
        if not self._bodies[subject].up:
            self._known[subject][1].setdefault(number, now)
        elif self._is_excused(subject, now):
            self.result.stalled_deaths += near
        elif near:
            self.result.false_deaths += 1
        else:
            self.result.false_elsewhere += 1

    def _suspected(self, number: int, peer: PeerId, now: float) -> None:
        subject = self._number[peer]
        body = self._bodies[subject]
        if body.awake and subject in self._neighbours[number] and not self._is_excused(subject, now):
            self.result.false_suspicions += 1
