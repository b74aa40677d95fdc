"""Whom a node doubts and whom it believes dead. Pure.

Nobody is in both. Both are bounded: beyond, the oldest entry is dropped, as if nothing had been heard of it.
"""

from __future__ import annotations

from atmosphere.mesh.detector_actions import Action, Alive, Dead, Evidence, Order, Suspect
from atmosphere.mesh.suspicion import Suspicion
from transports.peer_id import PeerId

MAX_SUSPICIONS = 1024
MAX_DEAD = 4096


class Beliefs:
    """Every doubt that no proof of life has ended yet. What others are to know of a change comes back as actions."""

    __slots__ = ("dead", "died", "doubted", "suspected")

    def __init__(self) -> None:
        self.doubted: dict[PeerId, Suspicion] = {}
        self.dead: dict[PeerId, Suspicion] = {}
        self.suspected = self.died = 0
        """Counts since the start."""

    def get(self, peer: PeerId) -> Suspicion | None:
        """What speaks against *peer*, doubted or dead."""
        return self.doubted.get(peer) or self.dead.get(peer)

    def doubt(self, peer: PeerId, order: Order, *, proof: float, since: float) -> Suspicion:
        """The doubt about *peer*, which is not dead; begun now if there is none."""
        found = self.doubted.get(peer)
        if found is None:
            if len(self.doubted) >= MAX_SUSPICIONS:
                del self.doubted[next(iter(self.doubted))]
            found = self.doubted[peer] = Suspicion(peer, order, proof, since)
        return found

    def suspect(self, suspicion: Suspicion, reason: str, own: Evidence | None) -> list[Action]:
        """From now on no work goes there. *own*: what this node itself has seen, if nothing worse is known."""
        if suspicion.own is None:
            suspicion.own = own
        if suspicion.suspected:
            return []
        suspicion.suspected = True
        self.suspected += 1
        return [Suspect(suspicion.subject, reason)]

    def die(self, suspicion: Suspicion, reason: str, at: float) -> list[Action]:
        """The doubt ends in death."""
        peer = suspicion.subject
        self.doubted.pop(peer, None)
        if len(self.dead) >= MAX_DEAD:
            del self.dead[next(iter(self.dead))]
        self.dead[peer] = suspicion
        suspicion.died_at = at
        self.died += 1
        return [Dead(peer, reason)]

    def clear(self, peer: PeerId) -> list[Action]:
        """A proof of life."""
        found = self.doubted.pop(peer, None) or self.dead.pop(peer, None)
        return [Alive(peer)] if found is not None and found.acted_on else []

    def forget(self, peer: PeerId) -> None:
        """Nothing is known of *peer* any more."""
        self.doubted.pop(peer, None)
        self.dead.pop(peer, None)
