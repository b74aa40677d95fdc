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
away, until its refutation comes by.
"""

from __future__ import annotations

from collections.abc import Callable
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
from atmosphere.mesh.detector_settings import DetectorSettings
from atmosphere.mesh.local_health import LocalHealth
from atmosphere.mesh.suspicion import REFUSALS, WITNESSES, Suspicion, enough
from protocols.probe.messages import ProbeOutcome
from transports.peer_id import PeerId

__all__ = [
    "Action", "Alive", "Ask", "Dead", "Detector", "DetectorStatistics", "Dial", "Evidence", "Order", "Ping", "Refute",
    "Statement", "Suspect", "Tell",
]

PINGED = 12
"""Pings per tick: the upper degree of the mesh. Beyond, whoever has waited longest comes first."""
ASKED = 12
"""Indirect pings asked for per tick."""
MAX_SUSPICIONS = 1024
MAX_DEAD = 4096
MAX_ORDERS = 10_000
STATED_PER_S = 20.0
STATED_BURST = 500.0
"""Statements taken in: a burst for a partition of a large mesh, the rate for ever. Beyond, they are ignored."""
_NEVER: Order = (0, 0)


@dataclass(slots=True)
class _Link:
    """A connected neighbour. Times are the own ones."""

    peer: PeerId
    heard: float
    """The last bytes."""
    proof: float
    """The last proof of life, heard here or by somebody asked."""
    next: float
    """Not looked at before."""
    pinged: float | None = None
    """Since when a ping is under way."""


@dataclass(frozen=True, slots=True)
class _Death:
    at: float
    evidence: Evidence | None
    told: Evidence | None
    lost: bool
    stated: dict[PeerId, Evidence]
    """Who else has said so: others may still have to hear of them through this node."""


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
        self._links: dict[PeerId, _Link] = {}
        self._suspicions: dict[PeerId, Suspicion] = {}
        self._dead: dict[PeerId, _Death] = {}
        self._orders: dict[PeerId, Order] = {}
        self._due = -inf
        self._pings_left, self._asks_left = PINGED, ASKED
        self._statements_left, self._counted_at = STATED_BURST, 0.0
        self._refuted = -inf
        self._pings = self._asks = self._tells = self._suspected = self._died = self._ignored = 0

    def __repr__(self) -> str:
        return f"<Detector watching {len(self._links)}, {len(self._suspicions)} doubted, {self._health!r}>"

    def statistics(self) -> DetectorStatistics:
        return DetectorStatistics(
            len(self._links), len(self._suspicions), len(self._dead), self._health.faults, self._pings, self._asks,
            self._tells, self._suspected, self._died, self._ignored,
        )

    @property
    def settings(self) -> DetectorSettings:
        return self._settings

    def doubts(self, peer: PeerId) -> bool:
        """Whether *peer* is suspected or declared dead now."""
        suspicion = self._suspicions.get(peer)
        return peer in self._dead or (suspicion is not None and suspicion.suspected)

    # -- time -----------------------------------------------------------------------------------------------------

    def tick(self, now: float, heard: Callable[[PeerId], float]) -> list[Action]:
        """To be called every ``tick_s``. *heard*: when the last bytes of a neighbour's connection came (-inf: none)."""
        own = self._health.tick(now)
        self._pings_left, self._asks_left = PINGED, ASKED
        if own < self._due and not self._suspicions:
            return []
        actions: list[Action] = []
        for suspicion in list(self._suspicions.values()):
            self._review(suspicion, own, heard, actions)
        seen, ping_s, dead = self._health.seen, self._settings.ping_s, self._dead
        due: list[_Link] = []
        soonest = own + ping_s
        for link in self._links.values():
            if link.next <= own:
                last = seen(heard(link.peer))
                if last > link.heard:
                    link.heard = last
                    if last > link.proof:
                        link.proof = last
                if dead and link.peer in dead:
                    if link.heard > dead[link.peer].at:
                        self._clear(link.peer, actions)
                    soonest = own  # looked at in every tick, pinged no more
                    continue
                link.next = link.proof + ping_s
                if link.next <= own:
                    due.append(link)
                    continue
            if link.next < soonest:
                soonest = link.next
        if due:
            if len(due) > PINGED:
                due.sort(key=lambda link: link.proof)
            for link in due:
                self._ping(link, own, actions)
                if link.next < soonest:
                    soonest = link.next
        self._due = soonest
        return actions

    def _review(
        self, suspicion: Suspicion, own: float, heard: Callable[[PeerId], float], actions: list[Action]
    ) -> None:
        """A running doubt, once per tick: bytes end it, time decides it, meanwhile it is pursued."""
        settings, peer = self._settings, suspicion.subject
        link = self._links.get(peer)
        if link is not None:
            link.heard = max(link.heard, self._health.seen(heard(peer)))
            link.proof = max(link.proof, link.heard)
            suspicion.proof = max(suspicion.proof, link.proof)
            if link.heard > suspicion.since:
                self._clear(peer, actions)
                return
        self._judge(suspicion, own, actions, ticked=True)
        if peer not in self._suspicions:
            return
        self._tell(suspicion, own, actions)
        if suspicion.own is None and not suspicion.missed:
            return  # known by statements only: others pursue it
        if own - suspicion.asked_at >= settings.ping_s + settings.ask_timeout_s * self._health.scale:
            self._ask(suspicion, own, actions)
        if link is None and suspicion.own is not None and own >= suspicion.dialling_until:
            self._dial(suspicion, own, actions)

    # -- who is watched -------------------------------------------------------------------------------------------

    def watch(self, peer: PeerId, now: float) -> list[Action]:
        """An admitted connection to *peer* is there: the best proof of life."""
        own = self._health.at(now)
        self._links[peer] = _Link(peer, own, own, own + self._settings.ping_s)
        self._due = min(self._due, own + self._settings.ping_s)
        actions: list[Action] = []
        self._clear(peer, actions)
        return actions

    def unwatch(self, peer: PeerId, now: float) -> None:
        """The peer left or was expelled, or the connection was ended on purpose: that says nothing about its health."""
        self._links.pop(peer, None)
        self._suspicions.pop(peer, None)
        for suspicion in self._suspicions.values():
            suspicion.pending.discard(peer)

    def forget(self, peer: PeerId) -> None:
        """Nothing is known of *peer* any more."""
        for known in (self._links, self._suspicions, self._dead, self._orders):
            known.pop(peer, None)

    # -- what was seen here ---------------------------------------------------------------------------------------

    def lost(self, peer: PeerId, now: float) -> list[Action]:
        """The last connection of *peer* ended without a goodbye."""
        link = self._links.pop(peer, None)
        if link is None or peer in self._dead:
            return []
        own = self._health.at(now)
        suspicion = self._suspicion(peer, own, own)
        suspicion.proof = max(suspicion.proof, link.proof)
        suspicion.lost_at = own
        actions: list[Action] = []
        self._suspect(suspicion, "its connection was lost", actions)
        self._dial(suspicion, own, actions)
        self._ask(suspicion, own, actions)
        return actions

    def failed(self, peer: PeerId, reason: str, now: float) -> list[Action]:
        """A stream in use broke or timed out."""
        link = self._links.get(peer)
        if link is None or peer in self._dead:
            return []
        own = self._health.at(now)
        suspicion = self._suspicion(peer, own, own)
        actions: list[Action] = []
        if not suspicion.suspected:
            self._suspect(suspicion, reason, actions)
            if link.pinged is None:
                self._ping(link, own, actions)
            self._ask(suspicion, own, actions)
        return actions

    def pong(self, peer: PeerId, now: float) -> list[Action]:
        """The ping was answered."""
        link = self._links.get(peer)
        if link is None:
            return []
        own = self._health.at(now)
        link.pinged = None
        link.heard = link.proof = own
        link.next = own + self._settings.ping_s
        actions: list[Action] = []
        if self._suspicions or self._dead:
            self._clear(peer, actions)
        return actions

    def missed(self, peer: PeerId, now: float) -> list[Action]:
        """The ping was not answered in time."""
        link = self._links.get(peer)
        if link is None or link.pinged is None:
            return []
        own, sent = self._health.at(now), link.pinged
        link.pinged = None
        if self._health.stalled_since(sent, now):
            link.next = self._due = own  # who was stopped could not hear the answer: ping again
            return []
        if peer in self._dead:
            return []
        actions: list[Action] = []
        suspicion = self._suspicion(peer, own, sent)
        suspicion.missed += 1
        if suspicion.missed == 1:
            if not suspicion.suspected:
                self._ask(suspicion, own, actions)
            self._ping(link, own, actions)
        else:
            link.next = max(own, sent + self._settings.ping_s)
            self._due = min(self._due, link.next)
            self._doubt(suspicion, own, actions)
        return actions

    def dialled(self, peer: PeerId, refused: bool, now: float) -> list[Action]:
        """The dial failed. *refused*: every address answered that nobody listens there."""
        suspicion = self._suspicions.get(peer)
        if suspicion is None or peer in self._links:
            return []
        own = self._health.at(now)
        suspicion.dialling_until = own + self._settings.dial_s
        actions: list[Action] = []
        if refused and suspicion.own is not Evidence.REFUSED:
            suspicion.own = Evidence.REFUSED
            suspicion.reason = "connections to it are refused"
            self._tell(suspicion, own, actions)
            self._judge(suspicion, own, actions)
        return actions

    def answered(self, via: PeerId, subject: PeerId, outcome: ProbeOutcome | None, now: float) -> list[Action]:
        """What *via* found out about *subject*; None: *via* did not answer."""
        suspicion = self._suspicions.get(subject)
        if suspicion is None or via not in suspicion.pending:
            return []
        own = self._health.at(now)
        actions: list[Action] = []
        suspicion.pending.discard(via)
        suspicion.heard_in_round |= outcome is not None
        if outcome is ProbeOutcome.ALIVE:
            suspicion.alive.add(via)
            if len(suspicion.alive) >= self._vouchers(suspicion, own):
                link = self._links.get(subject)
                if link is not None:
                    link.proof = own
                    link.next = own + self._settings.ping_s
                self._clear(subject, actions)
                return actions
        elif outcome is ProbeOutcome.SILENT or outcome is ProbeOutcome.REFUSED:
            evidence = Evidence.REFUSED if outcome is ProbeOutcome.REFUSED else Evidence.SILENT
            suspicion.testify(via, evidence, asked=True)
            suspicion.alive.discard(via)
        if not suspicion.pending:
            if not suspicion.heard_in_round:
                self._health.fault(own)  # they are all silent: it may be this node that hears nothing
            self._doubt(suspicion, own, actions)
        if subject in self._suspicions:
            self._judge(suspicion, own, actions)
        return actions

    def _vouchers(self, suspicion: Suspicion, own: float) -> int:
        """Vias that must say ALIVE: after a long silence here, one that lies is not enough where there are more."""
        link = self._links.get(suspicion.subject)
        if link is None or own - link.heard < self._settings.dead_max_s:
            return 1
        return max(1, min(WITNESSES, len(self._links) - 1))

    # -- what others say ------------------------------------------------------------------------------------------

    def worth_passing(self, statement: Statement, witness: PeerId) -> bool:
        """Whether *statement* is news: not refuted, not a repetition, and not said by enough others already."""
        subject = statement.subject
        if witness == subject or statement.order < self._orders.get(subject, _NEVER):
            return False
        known = self._suspicions.get(subject) or self._dead.get(subject)
        if known is None:
            return True
        said = known.stated.get(witness)
        return (said is None or said < statement.evidence) and not enough(known.stated, statement.evidence)

    def stated(self, statement: Statement, witness: PeerId, now: float) -> list[Action]:
        """*witness* says that it believes somebody failed."""
        own = self._health.at(now)
        subject = statement.subject
        if subject == self._me:
            if statement.order < self._orders.get(subject, _NEVER) or own - self._refuted < self._settings.refute_s:
                return []
            self._refuted = own
            self._health.fault(own)
            return [Refute()]
        if not self.worth_passing(statement, witness):
            return []
        if not self._within_budget(own):
            self._ignored += 1
            return []
        if subject in self._dead:
            self._dead[subject].stated[witness] = statement.evidence
            return []
        link = self._links.get(subject)
        if link is not None and own - link.heard < self._settings.fresh_s:
            return []
        actions: list[Action] = []
        suspicion = self._suspicion(subject, own, own)
        if link is None and suspicion.own is None and not suspicion.stated:
            suspicion.proof = own - self._settings.tell_after_s  # for so long the witness has heard nothing
        suspicion.testify(witness, statement.evidence, asked=False)
        if link is None:
            if not suspicion.suspected and suspicion.witnesses >= WITNESSES:
                self._suspect(suspicion, f"{len(suspicion.stated)} others hear nothing of it", actions, evidence=None)
            self._judge(suspicion, own, actions)
        elif link.pinged is None:
            self._ping(link, own, actions)
        return actions

    def proof(self, peer: PeerId, order: Order | None, now: float) -> list[Action]:
        """A beacon of *peer* with *order*, or (None) something else that only a living peer sends.

        A beacon that is not later than the last one proves nothing. For *me*: the beacon that this node has just said.
        """
        actions: list[Action] = []
        if order is None:
            self._clear(peer, actions)
            return actions
        known = self._orders.pop(peer, _NEVER)
        self._orders[peer] = max(known, order)
        if len(self._orders) > MAX_ORDERS:
            del self._orders[next(iter(self._orders))]
        if order <= known:
            return []
        if (self._suspicions or self._dead) and not self._under_way(peer, known, order, now, actions):
            self._clear(peer, actions)
        return actions

    def _under_way(self, peer: PeerId, known: Order, order: Order, now: float, actions: list[Action]) -> bool:
        """Whether the beacon may have been sent before the connection broke; what was told is then told again."""
        own = self._health.at(now)
        suspicion, death = self._suspicions.get(peer), self._dead.get(peer)
        if suspicion is not None and suspicion.lost_at is not None:
            since, evidence, told = suspicion.lost_at, suspicion.own, suspicion.told
            suspicion.order = order
        elif death is not None and death.lost:
            since, evidence, told = death.at, death.evidence, death.told
        else:
            return False
        if order[0] != known[0] or own - since >= self._settings.settle_s:
            return False
        if told is not None and evidence is not None:
            self._tells += 1
            actions.append(Tell(Statement(peer, order, evidence)))
        return True

    def _within_budget(self, own: float) -> bool:
        earned = (own - self._counted_at) * STATED_PER_S
        self._statements_left = min(STATED_BURST, self._statements_left + max(0.0, earned))
        self._counted_at = own
        if self._statements_left < 1.0:
            return False
        self._statements_left -= 1.0
        return True

    # -- decisions ------------------------------------------------------------------------------------------------

    def _suspicion(self, peer: PeerId, own: float, since: float) -> Suspicion:
        """The doubt about *peer*, begun now if there is none."""
        found = self._suspicions.get(peer)
        if found is None:
            if len(self._suspicions) >= MAX_SUSPICIONS:
                del self._suspicions[next(iter(self._suspicions))]
            link = self._links.get(peer)
            proof = link.proof if link is not None else own
            found = Suspicion(peer, self._orders.get(peer, _NEVER), proof, since)
            self._suspicions[peer] = found
        return found

    def _doubt(self, suspicion: Suspicion, own: float, actions: list[Action]) -> None:
        """Suspect a neighbour that missed two pings, once everybody asked has had time to vouch for it."""
        waiting = suspicion.pending and own < suspicion.asked_at + self._settings.ask_timeout_s * self._health.scale
        if suspicion.missed >= 2 and not waiting and not suspicion.suspected:
            self._suspect(suspicion, "it does not answer", actions)

    def _suspect(
        self, suspicion: Suspicion, reason: str, actions: list[Action], *, evidence: Evidence | None = Evidence.SILENT
    ) -> None:
        if suspicion.own is None:
            suspicion.own = evidence
        if not suspicion.suspected:
            suspicion.suspected, suspicion.reason = True, reason
            self._suspected += 1
            actions.append(Suspect(suspicion.subject, reason))

    def _judge(self, suspicion: Suspicion, own: float, actions: list[Action], *, ticked: bool = False) -> None:
        """Declare it dead if it is time. Of a connected neighbour only in a tick, which knows what was heard."""
        peer, settings = suspicion.subject, self._settings
        idle, silent = own - suspicion.proof, suspicion.silence(own)
        if ticked:
            self._doubt(suspicion, own, actions)
        if peer in self._links and (not ticked or idle < settings.fresh_s):
            return
        scale, refusals = self._health.scale, suspicion.refusals
        if refusals >= REFUSALS:
            self._die(suspicion, own, f"connections are refused, say {refusals} nodes", actions)
        elif silent < settings.dead_min_s * scale and idle < settings.dead_max_s * scale:
            return
        elif (suspicion.suspected or peer not in self._links) and (
            silent >= suspicion.patience(settings) * scale or idle >= settings.dead_max_s * scale
        ):
            others = suspicion.witnesses
            by = f", {others} others agree" if others else ""
            self._die(suspicion, own, f"nothing was heard of it for {idle:.1f} s{by}", actions)

    def _die(self, suspicion: Suspicion, own: float, reason: str, actions: list[Action]) -> None:
        peer = suspicion.subject
        self._suspicions.pop(peer, None)
        if len(self._dead) >= MAX_DEAD:
            del self._dead[next(iter(self._dead))]
        self._dead[peer] = _Death(
            own, suspicion.own, suspicion.told, suspicion.lost_at is not None, suspicion.stated
        )
        link = self._links.get(peer)
        if link is not None:
            link.next = own
        self._died += 1
        actions.append(Dead(peer, reason))

    def _clear(self, peer: PeerId, actions: list[Action]) -> None:
        """A proof of life."""
        suspicion = self._suspicions.pop(peer, None)
        dead = self._dead.pop(peer, None)
        if dead is not None or (suspicion is not None and suspicion.suspected):
            actions.append(Alive(peer))

    # -- what is sent ---------------------------------------------------------------------------------------------

    def _ping(self, link: _Link, own: float, actions: list[Action]) -> None:
        if self._pings_left <= 0:
            link.next = self._due = own  # the next tick; who has waited longest comes first
            return
        self._pings_left -= 1
        self._pings += 1
        timeout_s = self._settings.ping_timeout_s * self._health.scale
        link.pinged = own
        link.next = own + max(self._settings.ping_s, timeout_s + self._settings.tick_s)  # should its result get lost
        actions.append(Ping(link.peer, timeout_s))

    def _ask(self, suspicion: Suspicion, own: float, actions: list[Action]) -> None:
        """A round of indirect pings through others that are above doubt."""
        subject = suspicion.subject
        vias = [p for p in self._links if p != subject and p not in self._suspicions and p not in self._dead]
        count = min(self._settings.indirect, len(vias), self._asks_left)
        if vias and not count:
            return  # in the next tick
        suspicion.asked_at, suspicion.heard_in_round = own, False
        suspicion.pending.clear()
        timeout_s = self._settings.ask_timeout_s * self._health.scale
        for _ in range(count):
            via = vias.pop(int(self._draw() * len(vias)))
            suspicion.pending.add(via)
            actions.append(Ask(via, subject, timeout_s))
        self._asks_left -= count
        self._asks += count

    def _dial(self, suspicion: Suspicion, own: float, actions: list[Action]) -> None:
        suspicion.dialling_until = own + self._settings.dial_timeout_s + self._settings.dial_s
        actions.append(Dial(suspicion.subject, self._settings.dial_timeout_s))

    def _tell(self, suspicion: Suspicion, own: float, actions: list[Action]) -> None:
        """Say what this node has seen, if it is sure enough and the mesh has not heard it from enough others."""
        evidence = suspicion.own
        if evidence is None or (suspicion.told is not None and suspicion.told >= evidence):
            return
        if evidence is Evidence.SILENT and suspicion.silence(own) < self._settings.tell_after_s:
            return
        if enough(suspicion.stated, evidence):
            return
        suspicion.told = evidence
        self._tells += 1
        actions.append(Tell(Statement(suspicion.subject, suspicion.order, evidence)))
