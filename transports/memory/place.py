"""Where a host is in the network: its address, what it sent and received, and what has befallen it."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING

from transports.libp2p.ids import library_id
from transports.memory.nat import Nat
from transports.memory.pipe import Uplink
from transports.peer_id import PeerId

if TYPE_CHECKING:
    from transports.memory.connection import End

Accept = Callable[["End"], bool]
"""Takes a connection that was dialled; False when the host is about to close."""


class Condition(Enum):
    """Of a host's process."""

    RUNS = "runs"
    STALLED = "stalled"
    """Stands still (SIGSTOP): its kernel takes connections and bytes, and nobody looks at them."""
    KILLED = "killed"
    """The process is gone, the machine is there: connections are closed, dials refused."""
    DARK = "dark"
    """The machine is off or cut off: nothing answers."""


class Place:
    """One per peer id, for the life of the network; a host that is opened again gets its place back."""

    def __init__(self, peer: PeerId, host: str) -> None:
        self.peer = peer
        self.library_id = library_id(peer.raw)
        self.host = host
        self.nat = Nat.NONE
        self.uplink = Uplink()
        self.group = 0
        self.condition = Condition.KILLED
        self.life = 0
        self.accepts: dict[int, Accept] = {}
        self.ends: dict[End, None] = {}
        self.facing: dict[End, None] = {}  # open ends of others whose connection leads here
        self.dialled: dict[str, float] = {}
        self.dials = 0
        self.sent_bytes = self.sent_frames = self.received_bytes = self.received_frames = 0

    def __repr__(self) -> str:
        return f"<Place {self.host} of {self.peer.short}, {self.condition.value}, {len(self.ends)} connections>"
