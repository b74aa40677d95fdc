"""What a link between two hosts is like. Pure: values, and where they come from."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass

from transports.peer_id import PeerId

SEGMENT = 1400
"""Bytes of one TCP segment: what is lost at a time."""

MIN_RETRANSMISSION = 0.2
"""Seconds, beside the round trip, before TCP sends a lost segment again (Linux: TCP_RTO_MIN)."""

MAX_RETRANSMISSION = 120.0
"""Seconds between two attempts at most (Linux: TCP_RTO_MAX)."""


@dataclass(frozen=True)
class Link:
    """One direction between two hosts. Checked when made: ValueError for what no link can be."""

    latency_s: float = 0.02
    """Seconds that a byte is under way."""

    jitter_s: float = 0.0
    """Up to this many seconds more, uniformly drawn for each frame; the order of a connection is kept."""

    bytes_per_s: float = math.inf
    """Of one connection; frames queue behind one another."""

    loss: float = 0.0
    """Probability that a segment is lost. TCP makes it a delay: round trip + 0.2 s, doubling while it is lost again."""

    window: int = 1024 * 1024
    """Bytes under way at most: the socket buffers. What is beyond waits at the sender, whose writers then wait too."""

    def __post_init__(self) -> None:
        if self.latency_s < 0 or self.jitter_s < 0 or not 0 <= self.loss < 1 or self.bytes_per_s <= 0:
            raise ValueError(f"no link is like this: {self}")
        if self.window < 1:
            raise ValueError("a link whose window is empty carries nothing; give at least one byte")

    @property
    def retransmission_s(self) -> float:
        """Seconds before a lost segment is sent again for the first time."""
        return MIN_RETRANSMISSION + 2 * self.latency_s

    def lost_for(self, size: int, draw: Callable[[], float]) -> float:
        """Seconds that *size* bytes come later because segments are lost."""
        delay, wait = 0.0, self.retransmission_s
        probability = 1 - (1 - self.loss) ** math.ceil(size / SEGMENT)
        while draw() < probability:
            delay += wait
            wait = min(2 * wait, MAX_RETRANSMISSION)
            probability = self.loss  # only what was lost is sent again
        return delay


LinkModel = Callable[[PeerId, PeerId], Link]
"""From one host to another. Asked twice for each connection, and must answer the same each time."""


def same_everywhere(link: Link) -> LinkModel:
    return lambda a, b: link


def latencies_between(low_s: float, high_s: float, seed: int = 0, like: Link | None = None) -> LinkModel:
    """Links whose latency is uniform in [low_s, high_s), the same both ways, drawn from *seed* and the two peer ids.

    So it does not depend on the order in which hosts connect, and nothing is kept. All else is as in *like*.
    """
    base = like or Link()
    key = seed.to_bytes(8, "big", signed=True)

    def between(a: PeerId, b: PeerId) -> Link:
        pair = a.raw + b.raw if a < b else b.raw + a.raw
        share = int.from_bytes(hashlib.blake2b(pair, key=key, digest_size=7).digest(), "big") / 2**56
        latency = low_s + share * (high_s - low_s)
        return Link(latency, base.jitter_s, base.bytes_per_s, base.loss, base.window)

    return between
