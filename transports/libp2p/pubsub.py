"""Pubsub that no frame can kill, that speaks to admitted peers only, and that may leave a message undecided.

Wrong in 0.8.1, each with a test in tests/transports that shows it on the bare library:

- C: a malformed RPC raises DecodeError out of the read loop and takes the process down;
- D: a garbage ``key`` with a hashed peer id makes the signature check raise, with the same end;
- E: so does a topic validator that raises;
- F: a peer that reconnects within 100 ms keeps its dead stream registered; the late clean-up then forgets the live
  peer's subscriptions, and gossip flows one way only until the next reconnect;
- one OS thread per Pubsub sweeps its seen cache; frames are read byte by byte; each RPC carries, verifies and stores
  the sender's signed peer record; validation verdicts are cached although they may change; sequence numbers come from
  the wall clock.

Delete override by override when its test passes on the bare library.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine
from contextlib import suppress
from math import inf
from typing import TYPE_CHECKING, Any, Protocol, cast

import trio
from google.protobuf.message import DecodeError
from libp2p.abc import INetStream
from libp2p.peer.id import ID
from libp2p.pubsub.pb import rpc_pb2
from libp2p.pubsub.pubsub import Pubsub as LibraryPubsub
from libp2p.pubsub.pubsub_notifee import PubsubNotifee
from libp2p.pubsub.rpc_queue import RpcQueue
from libp2p.pubsub.validators import PUBSUB_SIGNING_PREFIX
from libp2p.stream_muxer.exceptions import MuxedStreamError
from nacl.bindings import crypto_sign_open
from nacl.exceptions import BadSignatureError

from transports.config import HostConfig
from transports.libp2p.gossip_frames import frame_of, read_rpc, split_frame
from transports.libp2p.gossip_outbox import GossipOutbox
from transports.libp2p.gossipsub import GossipSub
from transports.libp2p.host import LibraryHost
from transports.libp2p.muxed_stream import MuxedStream
from transports.peer_id import PeerId
from transports.rates import TokenBuckets
from transports.score import Fault, Scores

if TYPE_CHECKING:
    from trio_typing import TaskStatus

logger = logging.getLogger(__name__)

READ_SIZE = 64 * 1024
SEEN_SECONDS = 120.0
"""How long a message id is remembered; a message lives for 5 heartbeats, 5 s, in the caches of a mesh."""
SEEN_LIMIT = 65536
"""Ids remembered at most; at 4 messages/s there are 480."""
MAX_SUBSCRIPTIONS = 64
"""Topics that one peer may announce. A mesh has three."""
MAX_TOPIC = 256
"""Characters of a topic name; ours have about 90."""
MAX_AUTHORS = 4096
"""Authors whose rate is remembered."""
IGNORED_RATE = 100.0
"""Messages per second of one forwarder that say nothing new, before they count against it. An honest one passes on what
was news to it; where two floods cross, some of that is none any more."""
IGNORED_BURST = 500.0
"""Of those at once: what reached both through sync first, when a mesh heals."""
MAX_FORWARDERS = 1024
SIGNATURE_PREFIX = PUBSUB_SIGNING_PREFIX.encode()
SIGNATURE_SIZE = 64
RETRY_DELAYS = (0.1, 0.5, 2.0, 5.0, 10.0)
"""Seconds before a gossip stream that failed is opened again; the peer may need a moment to admit us."""


class Judge(Protocol):
    """Decides about a message on one topic: True accept, False reject, None not decided yet."""

    def __call__(self, forwarder: PeerId, author: PeerId, data: bytes) -> bool | None: ...


class SeenCache:
    """Ids of handled messages, for a while. The library's, without a thread and with a bound."""

    def __init__(self) -> None:
        self.cache: dict[bytes, float] = {}

    def has(self, key: bytes) -> bool:
        expiry = self.cache.get(key)
        return expiry is not None and expiry > trio.current_time()

    def add(self, key: bytes) -> bool:
        now = trio.current_time()
        new = self.cache.pop(key, None) is None
        self.cache[key] = now + SEEN_SECONDS
        while self.cache:  # in order of expiry, as every id has the same lifetime
            oldest = next(iter(self.cache))
            if self.cache[oldest] > now and len(self.cache) <= SEEN_LIMIT:
                break
            del self.cache[oldest]
        return new

    def stop(self) -> None:
        """Nothing runs."""


class Pubsub(LibraryPubsub):
    """See the module. Peers enter by :meth:`start_peer` and by their own admitted inbound stream only."""

    def __init__(
        self, host: LibraryHost, router: GossipSub, config: HostConfig, admitted: Callable[[ID], bool]
    ) -> None:
        super().__init__(host, router, strict_signing=True, max_inbound_rpc_size=config.gossip_max_message)
        self.seen_messages.stop()  # there is no seam before the thread starts; here it ends at once
        self.seen_messages = SeenCache()  # type: ignore[assignment]
        network = host.get_network()
        for notifee in [n for n in host.swarm.notifees if isinstance(n, PubsubNotifee)]:
            network.remove_notifee(notifee)  # a connection is no reason to gossip: admission is
            notifee.initiator_peers_queue.close()
            notifee.dead_peers_queue.close()
        self.peer_receive_channel.close()
        self.dead_peer_receive_channel.close()
        self.counter = (config.gossip_epoch << 32) & (2**64 - 1)  # a block of numbers for each start
        self.config = config
        self.judges: dict[str, Judge] = {}
        self.dropped = 0
        self._gossipsub = router
        self._admitted = admitted
        self._me = self.my_id
        self._me_raw = self._me.to_bytes()
        self._peer_scopes: dict[ID, trio.CancelScope] = {}
        self.scores: Scores[ID] = Scores()
        router.shunned = lambda peer: self.scores.shunned(peer, trio.current_time())
        self._authors: TokenBuckets[PeerId] = TokenBuckets(
            config.gossip_author_rate, config.gossip_author_burst, MAX_AUTHORS
        )
        self._ignored: TokenBuckets[ID] = TokenBuckets(IGNORED_RATE, IGNORED_BURST, MAX_FORWARDERS)
        self._rates: dict[ID, int] = {}
        """Messages of each forwarder in this second."""
        self._rates_until = -inf

    def __repr__(self) -> str:
        return f"<Pubsub, {len(self.peers)} peers, topics {sorted(self.judges)}, {self.dropped} dropped>"

    async def run(self) -> None:
        """Peers are handled by their own tasks; there is nothing to do in between."""
        await self.manager.wait_finished()

    # Peers --------------------------------------------------------------------------------------------------------

    async def start_peer(self, peer_id: ID, nursery: trio.Nursery) -> None:
        """Open our stream to *peer_id*, say what we listen to, and keep it open while it is admitted and connected.

        Returns after the first attempt, successful or not. A second call while one runs does nothing.
        """
        if peer_id not in self._peer_scopes and self._admitted(peer_id):
            await nursery.start(self._run_peer, peer_id, nursery)

    def stop_peer(self, peer_id: ID) -> None:
        """Forget *peer_id* and stop talking to it, at once."""
        scope = self._peer_scopes.pop(peer_id, None)
        if scope is not None:
            scope.cancel()
        self._unregister(peer_id)
        self._forget_all_subscriptions(peer_id)
        self._rates.pop(peer_id, None)

    async def _run_peer(
        self, peer_id: ID, nursery: trio.Nursery, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        scope = trio.CancelScope()
        self._peer_scopes[peer_id] = scope
        attempt = 0
        waiting = True

        def started() -> None:
            nonlocal waiting
            if waiting:
                waiting = False
                task_status.started()

        with scope:
            while self._admitted(peer_id) and self._peer_is_connected(peer_id):
                began = trio.current_time()
                try:
                    await self._talk(peer_id, nursery, started)
                except Exception as error:
                    logger.debug("gossip stream to %s: %r", peer_id, error)
                finally:
                    self._unregister(peer_id)
                started()
                if trio.current_time() - began > RETRY_DELAYS[-1]:
                    attempt = 0
                await trio.sleep(RETRY_DELAYS[min(attempt, len(RETRY_DELAYS) - 1)])
                attempt += 1
        if self._peer_scopes.get(peer_id) is scope:
            del self._peer_scopes[peer_id]
        started()

    async def _talk(self, peer_id: ID, nursery: trio.Nursery, started: Callable[[], None]) -> None:
        """One gossip stream from its opening to its end."""
        stream = await cast(LibraryHost, self.host).new_stream(peer_id, self.protocols)
        muxed = cast(MuxedStream, stream.muxed_stream)
        try:
            outbox = GossipOutbox(muxed, nursery)
            hello = self.get_hello_packet()
            if hello.subscriptions:
                await muxed.write(frame_of(hello))
            self._gossipsub.add_peer(peer_id, stream.get_protocol())
            self.peers[peer_id] = stream
            self.peer_queues[peer_id] = cast(RpcQueue, outbox)  # read by our router alone
            for topic in [topic for topic, peers in self.peer_topics.items() if peer_id in peers]:
                await self.router.on_peer_subscribed(peer_id, topic)
            started()
            with suppress(MuxedStreamError):
                while True:  # nothing comes on this stream; its end is what we wait for
                    await muxed.read(READ_SIZE)
        finally:
            await muxed.reset()

    def _unregister(self, peer_id: ID) -> None:
        if self.peers.pop(peer_id, None) is not None:
            del self.peer_queues[peer_id]
            self.router.remove_peer(peer_id)

    def _handle_dead_peer(self, peer_id: ID) -> None:
        """Bug F: only :meth:`stop_peer` and the end of the peer's own task unregister it."""

    def get_hello_packet(self) -> rpc_pb2.RPC:
        return rpc_pb2.RPC(subscriptions=[rpc_pb2.RPC.SubOpts(subscribe=True, topicid=t) for t in self.judges])

    def announce(self, topic: str) -> None:
        """Tell every gossip peer that we listen to *topic*."""
        news = rpc_pb2.RPC(subscriptions=[rpc_pb2.RPC.SubOpts(subscribe=True, topicid=topic)])
        for peer in self.peer_queues:
            self._gossipsub.send_rpc(peer, news, priority=True)

    @property
    def topic_ids(self):  # type: ignore[no-untyped-def]  # KeysView[str], as in the base
        return self.judges.keys()

    # Receiving ----------------------------------------------------------------------------------------------------

    async def stream_handler(self, stream: INetStream) -> None:
        """An admitted peer's gossip stream: its frames are handled as they come, by no task of their own."""
        muxed = cast(MuxedStream, stream.muxed_stream)  # type: ignore[attr-defined]
        rest = b""

        def take(payload: bytes) -> None:
            nonlocal rest
            rest = self._take_frames(muxed, rest + payload)

        muxed.consume(take)

    def _take_frames(self, muxed: MuxedStream, buffer: bytes) -> bytes:
        """Handle the whole frames in *buffer*; what is left of it. Resets the stream of a peer that sends nonsense.

        The stream of a muted peer is reset, and so is the next one that it opens, until it is heard again.
        """
        peer_id = muxed.muxed_conn.peer_id
        while buffer:
            if not muxed.muxed_conn.trusted or self.scores.muted(peer_id, trio.current_time()):
                muxed.abort()
                return b""
            try:
                frame, buffer = split_frame(buffer, self.config.gossip_max_message)
                if frame is None:
                    return buffer
                rpc = read_rpc(frame)
            except (DecodeError, ValueError) as error:
                logger.warning("gossip from %s is malformed (%s); its stream is reset", peer_id, error)
                self.scores.add(peer_id, Fault.MALFORMED, trio.current_time())
                muxed.abort()
                return b""
            self._handle_rpc(peer_id, rpc)
        return buffer

    def _handle_rpc(self, peer_id: ID, rpc: rpc_pb2.RPC) -> None:
        try:
            for message in rpc.publish:
                if self.accepts(peer_id, message):
                    at_once(self.router.publish(peer_id, message))
            for subscription in rpc.subscriptions[: self.max_subscriptions_per_rpc]:
                at_once(self._on_subscription(peer_id, subscription))
            if rpc.HasField("control"):
                at_once(self.router.handle_rpc(rpc, peer_id))
        except Exception:
            logger.exception("an RPC of %s could not be handled; the rest of it is dropped", peer_id)

    async def _on_subscription(self, peer_id: ID, subscription: rpc_pb2.RPC.SubOpts) -> None:
        topic = subscription.topicid
        if not subscription.subscribe:
            self._forget_subscription(peer_id, topic)
            for peers in (self._gossipsub.mesh.get(topic), self._gossipsub.fanout.get(topic)):
                if peers is not None:
                    peers.discard(peer_id)
            return
        count = self._peer_subscription_count.get(peer_id, 0)
        if len(topic) > MAX_TOPIC or count >= MAX_SUBSCRIPTIONS or peer_id in self.peer_topics.get(topic, ()):
            return
        self.peer_topics.setdefault(topic, set()).add(peer_id)
        self._peer_subscription_count[peer_id] = count + 1
        if peer_id in self.peers:
            await self.router.on_peer_subscribed(peer_id, topic)

    # Messages -----------------------------------------------------------------------------------------------------

    async def push_msg(self, msg_forwarder: ID, msg: rpc_pb2.Message) -> None:
        """Judge a message and forward it if accepted; the library comes here with our own."""
        if self.accepts(msg_forwarder, msg):
            await self.router.publish(msg_forwarder, msg)

    def accepts(self, msg_forwarder: ID, msg: rpc_pb2.Message) -> bool:
        """Judge a message. True: it is to be forwarded. One that is not decided leaves no trace and may come again.

        What is beyond a forwarder's rate is dropped unread and counts against it, repeated messages too. What is beyond
        an author's rate is dropped; it counts against the author who sends it himself, and not against who forwards it:
        that one may have counted a little less. What cannot be decided counts against the forwarder when it is much.
        """
        own = msg_forwarder is self._me  # which the library gives where we publish; nobody connects to himself
        now = trio.current_time()
        if not own and self._over_rate(msg_forwarder, now):
            self.dropped += 1
            self.scores.add(msg_forwarder, Fault.OVER_RATE, now)
            return False
        message_id = self.get_message_id(msg)
        if self.seen_messages.has(message_id):
            return False
        if not own:
            if len(msg.topicIDs) != 1 or msg.topicIDs[0] not in self.judges or msg.from_id == self._me_raw:
                return False
            topic = msg.topicIDs[0]
            if self.scores.muted(msg_forwarder, now):
                return False  # the rest of an RPC that has just muted it
            author = self._verified_author(msg)
            if author is None:  # its id is not kept: forging the next one of somebody must not silence the real one
                self.scores.add(msg_forwarder, Fault.REJECTED, now)
                return False
            from_author = author.raw == msg_forwarder.to_bytes()
            if self._authors.wait(author, now):
                self.dropped += 1
                if from_author:
                    self.scores.add(msg_forwarder, Fault.OVER_RATE, now)
                return False
            verdict = self.judges[topic](peer_of(msg_forwarder), author, msg.data)
            if from_author or verdict is not None:  # nobody spends another's share, by forging him or repeating him
                self._authors.take(author, now)
            if verdict is None:
                if self._ignored.take(msg_forwarder, now):
                    self.scores.add(msg_forwarder, Fault.OVER_RATE, now)
                return False
            if not verdict:
                self.scores.add(msg_forwarder, Fault.REJECTED, now)
        else:
            verdict = True
        self.seen_messages.add(message_id)
        return verdict

    def _verified_author(self, msg: rpc_pb2.Message) -> PeerId | None:
        """Who signed *msg*, or None. Only Ed25519 ids, which carry their key (bug D lives in the other branch)."""
        if len(msg.signature) != SIGNATURE_SIZE:  # or its rest would be taken for the beginning of what was signed
            return None
        unsigned = rpc_pb2.Message(data=msg.data, topicIDs=msg.topicIDs, from_id=msg.from_id, seqno=msg.seqno)
        try:
            author = PeerId.of(msg.from_id)
            crypto_sign_open(msg.signature + SIGNATURE_PREFIX + unsigned.SerializeToString(), author.public_key)
        except (ValueError, BadSignatureError) as error:
            logger.debug("a message with a broken signature: %r", error)
            return None
        return author

    def _over_rate(self, peer_id: ID, now: float) -> bool:
        if now >= self._rates_until:
            self._rates_until = int(now) + 1.0
            self._rates.clear()
        count = self._rates.get(peer_id, 0)
        self._rates[peer_id] = count + 1
        return count >= self.config.gossip_rate


def at_once(call: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine that does not wait: with the library's router most are coroutines, and none of ours waits."""
    try:
        call.send(None)
    except StopIteration:
        return
    raise RuntimeError(f"{call!r} waits where it must not")


def peer_of(peer_id: ID) -> PeerId:
    return PeerId.of(peer_id.to_bytes())
