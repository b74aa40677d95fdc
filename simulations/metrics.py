"""What a simulated mesh is measured by: who heard which message when and over how many hops, and what it cost."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil, log2
from typing import Any

import trio

from transports.gossip import Gossip, GossipMessage, Receive, Verdict
from transports.peer_id import PeerId


@dataclass(slots=True)
class Said:
    """A gossip message that a node has published."""

    author: int
    topic: str
    at: float
    heard: dict[int, tuple[float, int]] = field(default_factory=dict)
    """Node -> seconds after it was said, and hops it had come over."""
    copies: int = 0
    """That came to nodes, also to those that had it and threw them away."""


class Meter:
    """Follows gossip messages through the mesh, by their content, while :attr:`following` is set.

    The messages are those of the nodes, unchanged: what is measured is not told to anybody.
    """

    def __init__(self, note: Callable[..., None]) -> None:
        """*note*: called for each first arrival with (node, number of the message)."""
        self.said: dict[bytes, Said] = {}
        self.following = False
        self._note = note
        self._number: dict[PeerId, int] = {}

    def __repr__(self) -> str:
        return f"<Meter of {len(self._number)} nodes, {len(self.said)} messages>"

    def attach(self, number: int, peer: PeerId, gossip: Gossip) -> Gossip:
        """The gossip of node *number*, watched."""
        self._number[peer] = number
        self._count_copies(gossip)
        return _Watched(gossip, self, number)

    def _count_copies(self, gossip: Gossip) -> None:
        pubsub = gossip._pubsub
        accepts, own = pubsub.accepts, pubsub.my_id

        def counting(forwarder: Any, message: Any) -> bool:
            if self.following and forwarder != own:
                said = self.said.get(message.data)
                if said is not None:
                    said.copies += 1
            return accepts(forwarder, message)

        pubsub.accepts = counting  # type: ignore[assignment, method-assign]

    def published(self, number: int, topic: str, data: bytes) -> None:
        if self.following and data not in self.said:
            self.said[data] = Said(number, topic, trio.current_time(), {number: (0.0, 0)})

    def arrived(self, number: int, message: GossipMessage) -> None:
        said = self.said.get(message.data)
        if said is None or number in said.heard:
            return
        forwarder = said.heard.get(self._number[message.forwarder])
        hops = 1 + (forwarder[1] if forwarder is not None else 0)
        said.heard[number] = trio.current_time() - said.at, hops
        self._note("heard", number, said.author, hops)


class _Watched(Gossip):
    def __init__(self, gossip: Gossip, meter: Meter, number: int) -> None:
        self.__dict__.update(gossip.__dict__)
        self._meter = meter
        self._of = number

    async def subscribe(self, topic: str, receive: Receive) -> None:
        def judged(message: GossipMessage) -> Verdict:
            verdict = receive(message)
            if verdict is not Verdict.REJECT:
                self._meter.arrived(self._of, message)
            return verdict

        await super().subscribe(topic, judged)

    async def publish(self, topic: str, data: bytes) -> None:
        self._meter.published(self._of, topic, data)
        await super().publish(topic, data)


KEPT = {"figure": False}
"""Metadata of a field that is no figure of a result: what a report is drawn from."""


@dataclass(frozen=True, slots=True)
class Spread:
    """How long something took to reach nodes, in milliseconds of virtual time."""

    p50: float
    p99: float
    max: float
    values: Sequence[float] = field(default=(), compare=False, repr=False, metadata=KEPT)
    """All of them, in order."""

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Spread | None:
        """None when nothing arrived anywhere."""
        return cls._of_ms(1000 * each for each in seconds)

    @classmethod
    def together(cls, *parts: Spread | None) -> Spread | None:
        """Of all that *parts* are of."""
        return cls._of_ms(value for part in parts if part is not None for value in part.values)

    @classmethod
    def _of_ms(cls, values: Iterable[float]) -> Spread | None:
        ordered = array("d", sorted(values))
        if not ordered:
            return None
        p50, p99, last = (round(ordered[quantile(len(ordered), share)], 1) for share in (0.5, 0.99, 1.0))
        return cls(p50, p99, last, ordered)


@dataclass(frozen=True, slots=True)
class Hops:
    """Of the first copy that a node got."""

    mean: float
    max: int
    allowed: float
    """log2 of the nodes, and one."""
    counts: Mapping[int, int] = field(default_factory=dict, compare=False, repr=False, metadata=KEPT)
    """Hops -> how many first copies came over so many."""

    @classmethod
    def of(cls, hops: Sequence[int], nodes: int) -> Hops | None:
        """None when nothing arrived anywhere."""
        if not hops:
            return None
        mean = round(sum(hops) / len(hops), 2)
        return cls(mean, max(hops), round(log2(nodes) + 1, 2), dict(sorted(Counter(hops).items())))


def quantile(count: int, share: float) -> int:
    """The place of the *share* quantile among *count* ordered values (nearest rank)."""
    return max(0, ceil(count * share - 1e-9) - 1)
