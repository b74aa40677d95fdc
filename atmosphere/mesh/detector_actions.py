"""What the failure detector wants done, and what nodes say of each other."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from transports.peer_id import PeerId

Order = tuple[int, int]
"""(boot epoch, sequence) of a beacon: SWIM's incarnation number."""


class Evidence(IntEnum):
    """Why a node believes that another one failed; the greater is the stronger."""

    SILENT = 1  # no answer
    REFUSED = 2  # connection reset and dial refused: nobody listens there any more


@dataclass(frozen=True, slots=True)
class Statement:
    """"I believe that *subject* failed; the last I know of it is its beacon *order*"."""

    subject: PeerId
    order: Order
    evidence: Evidence


@dataclass(frozen=True, slots=True)
class Ping:
    """Ping the neighbour; report pong() or missed()."""

    peer: PeerId
    timeout_s: float


@dataclass(frozen=True, slots=True)
class Ask:
    """Ask the neighbour *via* to ping *subject*; report answered()."""

    via: PeerId
    subject: PeerId
    timeout_s: float


@dataclass(frozen=True, slots=True)
class Dial:
    """Dial the peer at once; report dialled() when that failed, watch() when it was admitted."""

    peer: PeerId
    timeout_s: float


@dataclass(frozen=True, slots=True)
class Tell:
    """Tell the mesh, signed."""

    statement: Statement


@dataclass(frozen=True, slots=True)
class Suspect:
    """No work goes there until it proves that it lives."""

    peer: PeerId
    reason: str


@dataclass(frozen=True, slots=True)
class Dead:
    """It is offline: its routes go."""

    peer: PeerId
    reason: str


@dataclass(frozen=True, slots=True)
class Alive:
    """A suspect or dead peer has proved that it lives."""

    peer: PeerId


@dataclass(frozen=True, slots=True)
class Refute:
    """Others believe that this node failed: say a new beacon at once."""


Action = Ping | Ask | Dial | Tell | Suspect | Dead | Alive | Refute
