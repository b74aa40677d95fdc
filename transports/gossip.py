"""Gossip: signed messages on topics, judged by the receiver before they are passed on."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum

import trio

from transports.errors import TransportError
from transports.libp2p.ids import library_id
from transports.libp2p.pubsub import Pubsub, peer_of
from transports.peer_id import PeerId
from transports.score import Standing

logger = logging.getLogger(__name__)

RPC_OVERHEAD = 512
"""Bytes of author, signature, topic and framing around the data of one message."""


class Verdict(Enum):
    """What a receiver thinks of a message."""

    ACCEPT = "accept"
    """Taken in and forwarded."""
    REJECT = "reject"
    """Wrong, and the forwarder could have known: not forwarded, counted against it."""
    IGNORE = "ignore"
    """Cannot be decided now: not forwarded, nobody blamed, judged again when it comes again."""


@dataclass(frozen=True)
class GossipMessage:
    """One message. *author* signed it; *forwarder* brought it here."""

    topic: str
    author: PeerId
    forwarder: PeerId
    data: bytes


Receive = Callable[[GossipMessage], Verdict]


@dataclass(frozen=True)
class GossipStatistics:
    peers: int
    topics: Mapping[str, int]
    """Mesh links by topic."""
    seen: int
    dropped: int
    """Messages beyond the rate limit of their forwarder or author."""
    shunned: int
    """Peers without a place in the mesh, for what they did lately; see transports/score.py."""
    muted: int
    """Those of them whose streams are refused."""
    accepted: int
    rejected: int
    ignored: int
    published: int


class Gossip:
    """The gossip side of a host. Messages come from and go to admitted peers only.

    Delivery is best effort: a message reaches a connected mesh within some hundred milliseconds, a peer that is away
    or slow misses it. Nothing may depend on having heard it. A message is delivered at most once while it is
    remembered (2 minutes), in no particular order between authors.
    """

    def __init__(self, pubsub: Pubsub, nursery: trio.Nursery, max_message: int) -> None:
        self._pubsub = pubsub
        self._nursery = nursery
        self._max_data = max_message - RPC_OVERHEAD
        self._counts = dict.fromkeys(Verdict, 0)
        self._published = 0

    def __repr__(self) -> str:
        return f"<Gossip {self.statistics()}>"

    async def subscribe(self, topic: str, receive: Receive) -> None:
        """Listen to *topic* and take part in its mesh. One receiver per topic; raises ValueError for a second.

        *receive* is called synchronously, once per message that was not decided yet, before the message is forwarded:
        it judges the message and takes it in. If it raises, the message counts as ignored and the error is logged.
        """
        if topic in self._pubsub.judges:
            raise ValueError(f"{topic} has a receiver already; let one receiver hand messages on")

        def judge(forwarder: PeerId, author: PeerId, data: bytes) -> bool | None:
            try:
                verdict = receive(GossipMessage(topic, author, forwarder, data))
            except Exception:
                logger.exception("the receiver of %s failed; the message is ignored", topic)
                verdict = Verdict.IGNORE
            self._counts[verdict] += 1
            return None if verdict is Verdict.IGNORE else verdict is Verdict.ACCEPT

        self._pubsub.judges[topic] = judge
        self._pubsub.announce(topic)
        await self._pubsub.router.join(topic)

    async def publish(self, topic: str, data: bytes) -> None:
        """Sign *data* and send it to the mesh of *topic*, but not to ourselves. TransportError if it is too big."""
        if len(data) > self._max_data:
            raise TransportError(
                f"{len(data)} bytes are too many for gossip, which carries {self._max_data}; send them over a stream"
            )
        self._published += 1
        await self._pubsub.publish(topic, data)

    async def add_peer(self, peer: PeerId) -> None:
        """Start to gossip with *peer*, which must be admitted and connected (otherwise nothing happens).

        Opens our stream to it and announces our topics; while the peer stays admitted and connected the stream is
        opened again when it breaks. Returns after the first attempt.
        """
        await self._pubsub.start_peer(library_id(peer.raw), self._nursery)

    def remove_peer(self, peer: PeerId) -> None:
        """Stop to gossip with *peer*, at once."""
        self._pubsub.stop_peer(library_id(peer.raw))

    def topic_peers(self, topic: str) -> frozenset[PeerId]:
        """Gossip peers that have announced *topic*."""
        peers = self._pubsub.peer_topics.get(topic, set())
        return frozenset(peer_of(peer) for peer in peers if peer in self._pubsub.peers)

    def mesh_peers(self, topic: str) -> frozenset[PeerId]:
        """Those of them that messages on *topic* are sent to as they come."""
        return frozenset(peer_of(peer) for peer in self._pubsub.router.mesh.get(topic, ()))

    def is_grafted(self, peer: PeerId) -> bool:
        """Whether messages on any topic are sent to *peer* as they come."""
        return any(library_id(peer.raw) in peers for peers in self._pubsub.router.mesh.values())

    def standing(self, peer: PeerId) -> Standing:
        """What follows from what *peer* has lately done here."""
        return self._pubsub.scores.standing(library_id(peer.raw), trio.current_time())

    def statistics(self) -> GossipStatistics:
        mesh = self._pubsub.router.mesh
        shunned, muted = self._pubsub.scores.count(trio.current_time())
        return GossipStatistics(
            peers=len(self._pubsub.peers),
            topics={topic: len(mesh.get(topic, ())) for topic in self._pubsub.judges},
            seen=len(self._pubsub.seen_messages.cache),
            dropped=self._pubsub.dropped,
            shunned=shunned,
            muted=muted,
            accepted=self._counts[Verdict.ACCEPT],
            rejected=self._counts[Verdict.REJECT],
            ignored=self._counts[Verdict.IGNORE],
            published=self._published,
        )
