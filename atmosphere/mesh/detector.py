"""The failure detector: SWIM with Lifeguard's local health, on a partial mesh. Pure: no I/O, no clock of its own.

A node watches only its connected neighbours; all others it knows by the statements of theirs. What it decides comes
back as actions; what became of a ping, an ask or a dial is reported to it. It guarantees:

- a doubt ends with the first proof of life: bytes, a pong, a later beacon, an indirect ping that was answered;
- no neighbour is declared dead of which bytes came within ``fresh_s``, whatever others state;
- death takes at most ``dead_max_s`` from the last proof where this node is healthy, ``dead_min_s`` from the first
  unanswered ping where others confirm it, and no wait where two witnesses were refused a connection;
- what this node sleeps or is stopped for does not count: its own time stands still meanwhile;
- pings, asks and statements per second are bounded whatever the size of the mesh, and so is memory.

Sources: Das, Gupta, Motivala, "SWIM" (DSN 2002); Dadgar, Phillips, Currey, "Lifeguard" (DSN-W 2018).

Of gossip: ask :meth:`Detector.worth_passing` for the verdict, then hand the statement to :meth:`Detector.stated`. What
a node says of itself counts more than what others say: two witnesses that lie together can take a stranger's routes
away, until its refutation comes by, and not often; see witnesses.py.
"""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from dataclasses import dataclass
from math import inf

from atmosphere.mesh.detector_actions import (
    Action,
    Alive,
    Ask,
    Dead,
    Dial,
    Evidence,
    Order,
    Ping,
    Refute,
    Statement,
    Suspect,
    Tell,
)
from atmosphere.mesh.detector_beliefs import Beliefs
from atmosphere.mesh.detector_links import PINGED, Link, Links
from atmosphere.mesh.detector_settings import DetectorSettings
from atmosphere.mesh.hearsay import Hearsay
from atmosphere.mesh.local_health import LocalHealth
from atmosphere.mesh.suspicion import WITNESSES, Suspicion, enough
from atmosphere.mesh.witnesses import Witnesses
from protocols.probe.messages import ProbeOutcome
from transports.peer_id import PeerId

__all__ = [
    "Action", "Alive", "Ask", "Dead", "Detector", "DetectorStatistics", "Dial", "Evidence", "Order", "Ping", "Refute",
    "Statement", "Suspect", "Tell",
]

ASKED = 12
"""Indirect pings asked for per tick."""


@dataclass(frozen=True, slots=True)
class DetectorStatistics:
    """Sizes now, and counts since the start."""

    watched: int
    suspicions: int
    dead: int
    faults: int
    pings: int
    asks: int
    tells: int
    suspected: int
    died: int
    ignored: int
    """Statements beyond the budget."""


class Detector:
    """Who of the others is alive, as seen from *me*."""

    def __init__(self, me: PeerId, settings: DetectorSettings, draw: Callable[[], float]) -> None:
        """*draw*: uniform in [0, 1); chooses who is asked."""
        self._me = me
        self._settings = settings
        self._draw = draw
        self._health = LocalHealth(settings.tick_s, settings.recover_s)
        self._links = Links(settings, self._health)
        self._beliefs = Beliefs()
        self._hearsay = Hearsay()
        self._witnesses = Witnesses()
        self._asks_left = ASKED
        self._refuted = -inf
        self._asks = self._tells = 0

    def __repr__(self) -> str:
        return f"<Detector watching {len(self._links)}, {len(self._beliefs.doubted)} doubted, {self._health!r}>"

    def statistics(self) -> DetectorStatistics:
        beliefs = self._beliefs
        return DetectorStatistics(
            len(self._links), len(beliefs.doubted), len(beliefs.dead), self._health.faults, self._links.pings,
            self._asks, self._tells, beliefs.suspected, beliefs.died, self._hearsay.ignored,
        )

    @property
    def settings(self) -> DetectorSettings:
        return self._settings

    def doubts(self, peer: PeerId) -> bool:
        """Whether *peer* is suspected or declared dead now."""
        found = self._beliefs.get(peer)
        return found is not None and found.acted_on

    def trusts(self, witness: PeerId) -> bool:
        """Whether what *witness* says of others counts now."""
        return self._witnesses.trusted(witness, self._health.own)

    def start_from(self, orders: MutableMapping[PeerId, Order]) -> None:
        """Know the last beacons of the others and of this node by *orders*, and keep them there."""
        self._hearsay.start_from(orders)

    # -- time -----------------------------------------------------------------------------------------------------

    def tick(self, now: float, heard: Callable[[PeerId], float]) -> list[Action]:
        """To be called every ``tick_s``. *heard*: when the last bytes of a neighbour's connection came (-inf: none)."""
        own = self._health.tick(now)
        links, beliefs = self._links, self._beliefs
        links.pings_left, self._asks_left = PINGED, ASKED
        if own < links.due and not beliefs.doubted:
            return []
        actions: list[Action] = []
        for suspicion in list(beliefs.doubted.values()):
            actions += self._review(suspicion, own, heard)
        links.look(own, heard, beliefs, actions)
        return actions

    def _review(self, suspicion: Suspicion, own: float, heard: Callable[[PeerId], float]) -> list[Action]:
        """A running doubt, once per tick: bytes end it, time decides it, meanwhile it is pursued."""
        peer = suspicion.subject
        link = self._links.get(peer)
        if link is not None:
            link.heard = max(link.heard, self._health.seen(heard(peer)))
            link.proof = max(link.proof, link.heard)
            suspicion.proof = max(suspicion.proof, link.proof)
            if link.heard > suspicion.since:
                return self._beliefs.clear(peer)
        actions = self._suspect_silent(suspicion, own) if suspicion.missed else []
        death = self._judge(suspicion, own)
        if death:
            return actions + death
        if suspicion.own is None and not suspicion.missed:
            return actions  # known by statements only: others pursue it
        actions += self._tell(suspicion, own)
        if own - suspicion.asked_at >= self._settings.ping_s + self._ask_timeout_s:
            actions += self._ask(suspicion, own)
        if link is None and suspicion.own is not None and own >= suspicion.dialling_until:
            actions += self._dial(suspicion, own)
        return actions

    # -- who is watched -------------------------------------------------------------------------------------------

    def watch(self, peer: PeerId, now: float) -> list[Action]:
        """An admitted connection to *peer* is there: the best proof of life."""
        self._links.watch(peer, self._health.at(now))
        return self._beliefs.clear(peer)

    def unwatch(self, peer: PeerId, now: float) -> None:
        """The peer left or was expelled, or the connection was ended on purpose: that says nothing about its health."""
        self._links.pop(peer, None)
        self._beliefs.doubted.pop(peer, None)
        for suspicion in self._beliefs.doubted.values():
            suspicion.pending.discard(peer)

    def forget(self, peer: PeerId) -> None:
        """Nothing is known of *peer* any more."""
        self._links.pop(peer, None)
        self._beliefs.forget(peer)
        self._hearsay.forget(peer)
        self._witnesses.forget(peer)

    # -- what was seen here ---------------------------------------------------------------------------------------

    def lost(self, peer: PeerId, now: float) -> list[Action]:
        """The last connection of *peer* ended without a goodbye."""
        link = self._links.pop(peer, None)
        if link is None or peer in self._beliefs.dead:
            return []
        own = self._health.at(now)
        suspicion = self._doubt(peer, own, own)
        suspicion.proof = max(suspicion.proof, link.proof)
        suspicion.lost_at = own
        actions = self._beliefs.suspect(suspicion, "its connection was lost", Evidence.SILENT)
        return actions + self._dial(suspicion, own) + self._ask(suspicion, own)

    def failed(self, peer: PeerId, reason: str, now: float) -> list[Action]:
        """A stream in use broke or timed out."""
        link = self._links.get(peer)
        if link is None or self.doubts(peer):
            return []
        own = self._health.at(now)
        suspicion = self._doubt(peer, own, own)
        actions = self._beliefs.suspect(suspicion, reason, Evidence.SILENT)
        if link.pinged is None:
            self._links.ping(link, own, actions)
        return actions + self._ask(suspicion, own)

    def pong(self, peer: PeerId, now: float) -> list[Action]:
        """The ping was answered."""
        link = self._links.get(peer)
        if link is None:
            return []
        own = self._health.at(now)
        link.pinged = None
        link.heard = link.proof = own
        link.next = own + self._settings.ping_s
        beliefs = self._beliefs
        return beliefs.clear(peer) if beliefs.doubted or beliefs.dead else []

    def missed(self, peer: PeerId, now: float) -> list[Action]:
        """The ping was not answered in time."""
        link = self._links.get(peer)
        if link is None or link.pinged is None:
            return []
        own, sent = self._health.at(now), link.pinged
        link.pinged = None
        if self._health.stalled_since(sent, now):
            self._links.put_off(link, own)  # who was stopped could not hear the answer: ping again
            return []
        if peer in self._beliefs.dead:
            return []
        suspicion = self._doubt(peer, own, sent)
        suspicion.missed += 1
        if suspicion.missed > 1:
            self._links.put_off(link, max(own, sent + self._settings.ping_s))
            return self._suspect_silent(suspicion, own)
        actions = [] if suspicion.suspected else self._ask(suspicion, own)
        self._links.ping(link, own, actions)
        return actions

    def dialled(self, peer: PeerId, refused: bool, now: float) -> list[Action]:
        """The dial failed. *refused*: every address answered that nobody listens there."""
        suspicion = self._beliefs.doubted.get(peer)
        if suspicion is None or peer in self._links:
            return []
        own = self._health.at(now)
        suspicion.dialling_until = own + self._settings.dial_s
        if not refused or suspicion.own is Evidence.REFUSED:
            return []
        suspicion.own = Evidence.REFUSED
        return self._tell(suspicion, own) + self._judge(suspicion, own)

    def answered(self, via: PeerId, subject: PeerId, outcome: ProbeOutcome | None, now: float) -> list[Action]:
        """What *via* found out about *subject*; None: *via* did not answer."""
        suspicion = self._beliefs.doubted.get(subject)
        if suspicion is None or via not in suspicion.pending:
            return []
        own, link = self._health.at(now), self._links.get(subject)
        suspicion.answer(via, outcome)
        if outcome is ProbeOutcome.ALIVE and len(suspicion.alive) >= self._vouchers(link, own):
            if link is not None:
                self._links.vouch(link, own)
            return self._beliefs.clear(subject)
        actions: list[Action] = []
        if not suspicion.pending:
            if not suspicion.heard_in_round:
                self._health.fault(own)  # they are all silent: it may be this node that hears nothing
            actions += self._suspect_silent(suspicion, own)
        if link is None:  # of a neighbour only a tick knows what was heard
            actions += self._judge(suspicion, own)
        return actions

    def _vouchers(self, link: Link | None, own: float) -> int:
        """Vias that must say ALIVE: after a long silence here, one that lies is not enough where there are more."""
        if link is None or own - link.heard < self._settings.dead_max_s:
            return 1
        return max(1, min(WITNESSES, len(self._links) - 1))

    # -- what others say ------------------------------------------------------------------------------------------

    def worth_passing(self, statement: Statement, witness: PeerId) -> bool:
        """Whether *statement* is news: not refuted, not a repetition, not said by enough others already, and of
        somebody whose word counts."""
        subject = statement.subject
        if witness == subject or statement.order < self._hearsay.order(subject):
            return False
        if not self._witnesses.believed(witness, subject, self._health.own):
            return False
        known = self._beliefs.get(subject)
        if known is None:
            return True
        said = known.stated.get(witness)
        return (said is None or said < statement.evidence) and not enough(known.stated, statement.evidence)

    def stated(self, statement: Statement, witness: PeerId, now: float) -> list[Action]:
        """*witness* says that it believes somebody failed."""
        own, subject = self._health.at(now), statement.subject
        if witness != subject and self._witnesses.believed(witness, subject, own):
            self._witnesses.accused(statement, witness, self._hearsay.order(subject), own)
        if subject == self._me:
            return self._accused(statement, own)
        if not self.worth_passing(statement, witness) or not self._hearsay.within_budget(own):
            return []
        dead = self._beliefs.dead.get(subject)
        if dead is not None:
            dead.state(witness, statement.evidence)  # others may still have to hear of it through this node
            return []
        link = self._links.get(subject)
        if link is not None and own - link.heard < self._settings.fresh_s:
            return []
        suspicion = self._doubt(subject, own, own)
        if link is None and suspicion.own is None and not suspicion.stated:
            suspicion.proof = own - self._settings.tell_after_s  # for so long the witness has heard nothing
        suspicion.state(witness, statement.evidence)
        actions: list[Action] = []
        if link is not None:
            if link.pinged is None:
                self._links.ping(link, own, actions)
            return actions
        if suspicion.witnesses >= WITNESSES and not suspicion.suspected:
            actions += self._beliefs.suspect(suspicion, f"{len(suspicion.stated)} others hear nothing of it", None)
        return actions + self._judge(suspicion, own)

    def _accused(self, statement: Statement, own: float) -> list[Action]:
        """Somebody believes that this node failed: perhaps it is not well, but it lives."""
        if statement.order < self._hearsay.order(self._me) or own - self._refuted < self._settings.refute_s:
            return []
        self._refuted = own
        self._health.fault(own)
        return [Refute()]

    def proof(self, peer: PeerId, order: Order | None, now: float) -> list[Action]:
        """A beacon of *peer* with *order*, or (None) something else that only a living peer sends.

        A beacon that is not later than the last one proves nothing. For *me*: the beacon that this node has just said.
        """
        if order is not None:
            known = self._hearsay.renew(peer, order)
            if order <= known:
                return []
            doubt = self._beliefs.get(peer)
            if peer in self._witnesses:
                agrees = doubt is not None and doubt.own is not None
                self._witnesses.answered(peer, order, self._health.at(now), agrees=agrees)
            same_life = order[0] == known[0]
            if doubt is not None and same_life and doubt.settling(self._health.at(now), self._settings.settle_s):
                doubt.order = order
                return [] if doubt.told is None or doubt.own is None else self._say(doubt, doubt.own)
        return self._beliefs.clear(peer)

    # -- decisions ------------------------------------------------------------------------------------------------

    def _doubt(self, peer: PeerId, own: float, since: float) -> Suspicion:
        """The doubt about *peer*, begun now if there is none."""
        link = self._links.get(peer)
        proof = own if link is None else link.proof
        return self._beliefs.doubt(peer, self._hearsay.order(peer), proof=proof, since=since)

    def _suspect_silent(self, suspicion: Suspicion, own: float) -> list[Action]:
        """Suspect a neighbour whose silence nobody explains."""
        if suspicion.suspected or not suspicion.unanswered(own, self._ask_timeout_s):
            return []
        return self._beliefs.suspect(suspicion, "it does not answer", Evidence.SILENT)

    def _judge(self, suspicion: Suspicion, own: float) -> list[Action]:
        """Declare it dead if it is time."""
        link = self._links.get(suspicion.subject)
        reason = suspicion.verdict(own, self._settings, self._health.scale, connected=link is not None)
        if reason is None:
            return []
        if link is not None:
            self._links.put_off(link, own)  # its first bytes are looked for at once
        return self._beliefs.die(suspicion, reason, own)

    # -- what is sent ---------------------------------------------------------------------------------------------

    @property
    def _ask_timeout_s(self) -> float:
        return self._settings.ask_timeout_s * self._health.scale

    def _ask(self, suspicion: Suspicion, own: float) -> list[Action]:
        """A round of indirect pings through others that are above doubt."""
        subject, beliefs = suspicion.subject, self._beliefs
        vias = [p for p in self._links if p != subject and p not in beliefs.doubted and p not in beliefs.dead]
        count = min(self._settings.indirect, len(vias), self._asks_left)
        if vias and not count:
            return []  # in the next tick
        chosen = [vias.pop(int(self._draw() * len(vias))) for _ in range(count)]
        suspicion.ask(set(chosen), own)
        self._asks_left -= count
        self._asks += count
        timeout_s = self._ask_timeout_s
        return [Ask(via, subject, timeout_s) for via in chosen]

    def _dial(self, suspicion: Suspicion, own: float) -> list[Action]:
        timeout_s = self._settings.dial_timeout_s
        suspicion.dialling_until = own + timeout_s + self._settings.dial_s
        return [Dial(suspicion.subject, timeout_s)]

    def _tell(self, suspicion: Suspicion, own: float) -> list[Action]:
        """Say what this node has seen, once it should."""
        evidence = suspicion.to_tell(own, self._settings.tell_after_s)
        if evidence is None:
            return []
        suspicion.told = evidence
        return self._say(suspicion, evidence)

    def _say(self, suspicion: Suspicion, evidence: Evidence) -> list[Action]:
        self._tells += 1
        return [Tell(Statement(suspicion.subject, suspicion.order, evidence))]
