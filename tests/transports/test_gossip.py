"""Gossip between admitted nodes: delivery, verdicts, restarts, limits."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import pytest
import trio
from libp2p.peer.id import ID
from libp2p.pubsub.pb import rpc_pb2

from tests.transports.support import CONFIG, TOPIC, connect, eventually, hosts, seed
from transports.errors import TransportError
from transports.gossip import GossipMessage, Verdict
from transports.host import Host, open_host


class Box:
    """Keeps what was received and judges by *judge*."""

    def __init__(self, judge: Callable[[GossipMessage], Verdict] = lambda message: Verdict.ACCEPT) -> None:
        self.messages: list[GossipMessage] = []
        self.judge = judge

    def __call__(self, message: GossipMessage) -> Verdict:
        self.messages.append(message)
        return self.judge(message)

    @property
    def data(self) -> list[bytes]:
        return [message.data for message in self.messages]


async def link(a: Host, b: Host) -> None:
    await connect(a, b)
    await a.gossip.add_peer(b.peer_id)
    await b.gossip.add_peer(a.peer_id)
    await eventually(lambda: b.peer_id in a.gossip.topic_peers(TOPIC) and a.peer_id in b.gossip.topic_peers(TOPIC))


async def line(nodes: list[Host], boxes: list[Box]) -> None:
    """Connect the nodes in a row, so that what reaches the last was forwarded."""
    for node, box in zip(nodes, boxes, strict=True):
        await node.gossip.subscribe(TOPIC, box)
    for left, right in pairwise(nodes):
        await link(left, right)


async def test_a_message_crosses_a_row_of_three_once() -> None:
    boxes = [Box(), Box(), Box()]
    async with hosts(3) as nodes:
        await line(nodes, boxes)
        for number in range(40):
            await nodes[0].gossip.publish(TOPIC, b"%d" % number)
        await eventually(lambda: len(boxes[2].data) == 40)
        await trio.sleep(1.2)  # a heartbeat with its IHAVE
        assert sorted(boxes[2].data) == sorted(b"%d" % number for number in range(40))
        assert boxes[0].data == [], "one's own messages are not delivered to oneself"
        message = boxes[2].messages[0]
        assert (message.topic, message.author, message.forwarder) == (TOPIC, nodes[0].peer_id, nodes[1].peer_id)
        assert nodes[1].gossip.statistics().topics == {TOPIC: 2}


async def test_what_is_rejected_is_not_forwarded_and_counts_against_the_forwarder() -> None:
    boxes = [Box(), Box(lambda message: Verdict.REJECT), Box()]
    async with hosts(3) as nodes:
        await line(nodes, boxes)
        await nodes[0].gossip.publish(TOPIC, b"x")
        await eventually(lambda: boxes[1].data)
        await trio.sleep(0.3)
        assert boxes[2].data == []
        statistics = nodes[1].gossip.statistics()
        assert (statistics.rejected, statistics.ignored, statistics.seen) == (1, 0, 1)


async def test_what_is_ignored_is_not_forwarded_and_judged_again() -> None:
    """The author's membership arrives between the first and the second copy: no penalty, and nothing is lost."""
    known = False
    boxes = [Box(), Box(lambda message: Verdict.ACCEPT if known else Verdict.IGNORE), Box()]
    async with hosts(3) as (author, middle, last):
        await line([author, middle, last], boxes)
        await author.gossip.publish(TOPIC, b"x")
        await eventually(lambda: boxes[1].data == [b"x"])
        await trio.sleep(0.2)
        statistics = middle.gossip.statistics()
        assert (statistics.ignored, statistics.rejected, statistics.seen) == (1, 0, 0)
        assert boxes[2].data == []
        known = True
        pubsub = middle.gossip._pubsub  # the second copy, as another neighbour or an IWANT would bring it
        message = next(iter(author.gossip._pubsub.router.mcache.msgs.values()))
        await pubsub.push_msg(author.gossip._pubsub.my_id, message)
        assert boxes[1].data == [b"x", b"x"]
        await eventually(lambda: boxes[2].data == [b"x"])


@pytest.mark.parametrize(
    ("told", "asked"),
    [([b"known", b"new"], [[b"new"]]), ([b"known"], []), ([b"\xff new", b"abcd"], [[b"\xff new", b"\xab\xcd"]])],
    ids=["one of two", "nothing", "as the library reads ids"],
)
async def test_of_what_others_have_the_unknown_is_asked_for(
    told: list[bytes], asked: list[list[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted: list[list[bytes]] = []

    async def emit_iwant(ids: list[bytes], peer: ID) -> None:
        wanted.append(list(ids))

    async with hosts(1) as (host,):
        pubsub = host.gossip._pubsub
        pubsub.seen_messages.add(b"known")
        monkeypatch.setattr(pubsub._gossipsub, "emit_iwant", emit_iwant)
        ihave = rpc_pb2.ControlIHave(topicID=TOPIC, messageIDs=told)
        await pubsub._gossipsub.handle_ihave(ihave, ID(b"somebody"))
        assert wanted == asked


@pytest.mark.logs_errors
async def test_a_receiver_that_raises_ignores() -> None:
    def judge(message: GossipMessage) -> Verdict:
        raise ValueError("a bug")

    boxes = [Box(), Box(judge)]
    async with hosts(2) as nodes:
        await line(nodes, boxes)
        await nodes[0].gossip.publish(TOPIC, b"x")
        await eventually(lambda: nodes[1].gossip.statistics().ignored == 1)


async def test_a_node_is_heard_after_a_restart_when_its_epoch_differs() -> None:
    box = Box()
    async with hosts(1) as (listener,):
        await listener.gossip.subscribe(TOPIC, box)
        for epoch in (1, 2):
            async with open_host(replace(CONFIG, gossip_epoch=epoch), seed(50)) as node:
                node.admit(listener.peer_id)
                listener.admit(node.peer_id)
                await node.gossip.subscribe(TOPIC, Box())
                await link(node, listener)
                for number in range(3):
                    await node.gossip.publish(TOPIC, b"%d %d" % (epoch, number))
                await eventually(lambda epoch=epoch: len(box.data) == 3 * epoch)  # type: ignore[misc]
            await eventually(lambda: not listener.connections())


async def test_gossip_starts_when_the_other_side_admits_later() -> None:
    """The one who is ahead keeps trying; nothing has to be said twice."""
    box = Box()
    async with hosts(2, admitted=False) as (a, b):
        await a.gossip.subscribe(TOPIC, Box())
        await b.gossip.subscribe(TOPIC, box)
        await connect(a, b)
        a.admit(b.peer_id)
        await a.gossip.add_peer(b.peer_id)
        b.admit(a.peer_id)
        await b.gossip.add_peer(a.peer_id)
        await eventually(lambda: a.peer_id in b.gossip.topic_peers(TOPIC) and b.peer_id in a.gossip.topic_peers(TOPIC))
        await a.gossip.publish(TOPIC, b"x")
        await eventually(lambda: box.data == [b"x"])


async def test_a_late_subscription_is_announced() -> None:
    box = Box()
    async with hosts(2) as (a, b):
        await connect(a, b)
        await a.gossip.add_peer(b.peer_id)
        await b.gossip.add_peer(a.peer_id)
        await b.gossip.subscribe(TOPIC, box)
        await eventually(lambda: b.peer_id in a.gossip.topic_peers(TOPIC))
        await a.gossip.publish(TOPIC, b"x")
        await eventually(lambda: box.data == [b"x"])
        with pytest.raises(ValueError, match="has a receiver already"):
            await b.gossip.subscribe(TOPIC, box)


async def test_a_flood_is_cut_and_a_large_message_refused() -> None:
    box = Box()
    config = replace(CONFIG, gossip_rate=20)
    async with hosts(2, config) as nodes:
        await line(nodes, [Box(), box])
        for number in range(200):
            await nodes[0].gossip.publish(TOPIC, b"%d" % number)
        await eventually(lambda: nodes[1].gossip.statistics().dropped)
        assert len(box.data) <= 60, "20 per second, over at most three seconds"
        with pytest.raises(TransportError, match="send them over a stream"):
            await nodes[0].gossip.publish(TOPIC, bytes(config.gossip_max_message))
        await trio.sleep(1)
        await nodes[0].gossip.publish(TOPIC, bytes(config.gossip_max_message - 1000))
        await eventually(lambda: len(box.data[-1]) > 60_000)


async def test_a_host_needs_no_thread() -> None:
    before = threading.active_count()
    async with hosts(2):
        assert threading.active_count() == before
