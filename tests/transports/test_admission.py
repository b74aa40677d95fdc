"""Admission: what a stranger can do, and what crosses the wire to it. Strangers are ours and the bare library's."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import pytest
import trio
from libp2p.pubsub.pb import rpc_pb2

from tests.transports.support import CONFIG, TOPIC, connect, echo, eventually, hosts, victim
from transports.errors import PeerUnreachable
from transports.gossip import GossipMessage, Verdict
from transports.stream import Stream, StreamClosed
from transports.varint import encode_varint

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")


def accept(message: GossipMessage) -> Verdict:
    return Verdict.ACCEPT


async def test_a_stranger_may_use_public_protocols_only() -> None:
    seen: list[str] = []

    async def private(stream: Stream) -> None:
        seen.append("private")

    async with hosts(2, admitted=False) as (stranger, host):
        host.handle("/private", private)
        host.handle("/echo", echo, public=True)
        await connect(stranger, host)
        stream = await stranger.open_stream(host.peer_id, "/echo")
        await stream.write(b"x")
        assert await stream.read(1) == b"x"
        assert await stranger.ping(host.peer_id) > 0
        with pytest.raises(PeerUnreachable, match="reset"):  # not agreed on first: js-libp2p would take it for open
            await stranger.open_stream(host.peer_id, "/private")
        assert seen == []
        host.admit(stranger.peer_id)
        assert await (await stranger.open_stream(host.peer_id, "/private")).read(1) == b""
        assert seen == ["private"]


async def test_a_stranger_hears_no_gossip_and_no_subscription() -> None:
    """A bare libp2p node that subscribes to our topic and grafts us gets not a byte of pubsub from us."""
    async with hosts(2) as (member, host), victim("bare", host) as stranger:
        for one in (member, host):
            await one.gossip.subscribe(TOPIC, accept)
        opened: list[str] = []
        received: list[bytes] = []

        async def pubsub_stream(stream):  # type: ignore[no-untyped-def]
            opened.append("stream")
            while True:
                received.append(await stream.read(1))

        stranger.handle("/meshsub/1.1.0", pubsub_stream)
        stranger.handle("/meshsub/1.2.0", pubsub_stream)
        await connect(member, host)
        await host.connect(stranger.peer_id, (stranger.address,))
        await host.gossip.add_peer(stranger.peer_id)  # even when asked to
        await member.gossip.add_peer(host.peer_id)
        await host.gossip.add_peer(member.peer_id)
        await eventually(lambda: member.peer_id in host.gossip.topic_peers(TOPIC))
        await host.gossip.publish(TOPIC, b"secret")
        await trio.sleep(1.3)  # a heartbeat of both
        assert (opened, received) == ([], [])
        assert stranger.peer_id not in host.gossip.topic_peers(TOPIC)


async def test_nothing_is_taken_from_a_strangers_pubsub() -> None:
    message = rpc_pb2.RPC(
        subscriptions=[rpc_pb2.RPC.SubOpts(subscribe=True, topicid=TOPIC)],
        control=rpc_pb2.ControlMessage(graft=[rpc_pb2.ControlGraft(topicID=TOPIC)]),
    ).SerializeToString()
    async with hosts(2, admitted=False) as (stranger, host):
        await host.gossip.subscribe(TOPIC, accept)
        await connect(stranger, host)

        async def subscribe_and_graft() -> None:
            stream = await stranger.open_stream(host.peer_id, "/meshsub/1.1.0")
            await stream.write(encode_varint(len(message)) + message)
            await stream.read(1)

        with pytest.raises((PeerUnreachable, StreamClosed)):
            await subscribe_and_graft()
        assert host.gossip.statistics().topics == {TOPIC: 0}
        assert host.statistics().refused["stream of a stranger"] == 1
        assert json.loads(json.dumps(asdict(host.statistics())))["refused"]["stream of a stranger"] == 1


async def test_expelling_ends_gossip_and_connections() -> None:
    async with hosts(2) as (a, b):
        received: list[bytes] = []

        def receive(message: GossipMessage) -> Verdict:
            received.append(message.data)
            return Verdict.ACCEPT

        await a.gossip.subscribe(TOPIC, accept)
        await b.gossip.subscribe(TOPIC, receive)
        await connect(a, b)
        await a.gossip.add_peer(b.peer_id)
        await b.gossip.add_peer(a.peer_id)
        await eventually(lambda: a.gossip.topic_peers(TOPIC) and b.gossip.topic_peers(TOPIC))
        a.expel(b.peer_id)
        assert not a.gossip.topic_peers(TOPIC)
        assert not a.is_admitted(b.peer_id)
        await a.gossip.publish(TOPIC, b"secret")
        await eventually(lambda: not b.connections())
        await connect(b, a)
        await b.gossip.add_peer(a.peer_id)
        await a.gossip.publish(TOPIC, b"secret")
        await trio.sleep(0.3)
        assert received == []


async def test_a_strangers_streams_are_few() -> None:
    config = replace(CONFIG, streams_per_stranger=3)
    async with hosts(2, config, admitted=False) as (stranger, host):
        host.handle("/echo", echo, public=True)
        await connect(stranger, host)
        await eventually(lambda: not host.statistics().streams)  # identify has finished
        for _ in range(3):
            await stranger.open_stream(host.peer_id, "/echo")
        with pytest.raises(PeerUnreachable, match="reset"):
            await stranger.open_stream(host.peer_id, "/echo")
        host.admit(stranger.peer_id)
        await stranger.open_stream(host.peer_id, "/echo")


async def test_a_stranger_is_disconnected_after_a_while_and_a_member_is_not() -> None:
    config = replace(CONFIG, stranger_timeout=0.5)
    async with hosts(3, config, admitted=False) as (member, stranger, host):
        for one in (member, stranger):
            one.admit(host.peer_id)
            await connect(one, host)
        host.admit(member.peer_id)
        await eventually(lambda: stranger.peer_id not in host.connections())
        assert member.peer_id in host.connections()
        assert host.statistics().refused["not admitted in time"] == 1


async def test_strangers_do_not_starve_members() -> None:
    config = replace(CONFIG, max_strangers=2, max_strangers_per_address=2)
    async with hosts(5, config, admitted=False) as (host, *others):
        for other in others[:2]:
            await connect(other, host)
        with pytest.raises(PeerUnreachable):
            await others[2].connect(host.peer_id, host.addresses)
        assert host.statistics().strangers == 2
        host.admit(others[0].peer_id)
        await connect(others[3], host)
