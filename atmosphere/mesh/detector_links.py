"""The neighbours that a node watches: when each was heard, and whose turn it is to be pinged. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import inf

from atmosphere.mesh.detector_actions import Action, Ping
from atmosphere.mesh.detector_beliefs import Beliefs
from atmosphere.mesh.detector_settings import DetectorSettings
from atmosphere.mesh.local_health import LocalHealth
from transports.peer_id import PeerId

PINGED = 12
"""Pings per tick: the upper degree of the mesh. Beyond, whoever has waited longest comes first."""


@dataclass(slots=True)
class Link:
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


class Links(dict[PeerId, Link]):
    """The links by their peers. A tick costs nothing while no link is due; times are the own ones."""

    __slots__ = ("_health", "_settings", "due", "pings", "pings_left")

    def __init__(self, settings: DetectorSettings, health: LocalHealth) -> None:
        super().__init__()
        self._settings = settings
        self._health = health
        self.pings_left = PINGED
        """To be set anew in every tick."""
        self.due = -inf
        """No link is to be looked at before."""
        self.pings = 0
        """Since the start."""

    def watch(self, peer: PeerId, own: float) -> None:
        """Its connection is there."""
        link = self[peer] = Link(peer, own, own, own)
        self.put_off(link, own + self._settings.ping_s)

    def put_off(self, link: Link, until: float) -> None:
        """It is looked at then, not before."""
        link.next = until
        if until < self.due:
            self.due = until

    def vouch(self, link: Link, own: float) -> None:
        """It lives, somebody says."""
        link.proof = own
        link.next = own + self._settings.ping_s

    def look(
        self, own: float, heard: Callable[[PeerId], float], beliefs: Beliefs, actions: list[Action]
    ) -> None:
        """Look at every link that is due: the dead that are heard again live; who was not heard for long is pinged."""
        seen, ping_s, dead = self._health.seen, self._settings.ping_s, beliefs.dead
        due: list[Link] = []
        soonest = own + ping_s
        for link in self.values():
            if link.next <= own:
                last = seen(heard(link.peer))
                if last > link.heard:
                    link.heard = last
                    if last > link.proof:
                        link.proof = last
                if dead and link.peer in dead:
                    if link.heard > dead[link.peer].died_at:
                        actions += beliefs.clear(link.peer)
                    soonest = own  # looked at in every tick, pinged no more
                    continue
                link.next = link.proof + ping_s
                if link.next <= own:
                    due.append(link)
                    continue
            if link.next < soonest:
                soonest = link.next
        self.due = soonest
        if len(due) > PINGED:
            due.sort(key=lambda link: link.proof)
        for link in due:
            self.ping(link, own, actions)

    def ping(self, link: Link, own: float, actions: list[Action]) -> None:
        """Ping it now, or in the next tick if this one has sent enough."""
        if self.pings_left <= 0:
            self.put_off(link, own)
            return
        self.pings_left -= 1
        self.pings += 1
        timeout_s = self._settings.ping_timeout_s * self._health.scale
        link.pinged = own
        link.next = own + max(self._settings.ping_s, timeout_s + self._settings.tick_s)  # should its result get lost
        actions.append(Ping(link.peer, timeout_s))
