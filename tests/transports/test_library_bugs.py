"""Each correction of transports/libp2p: the scenario holds on our host and fails on the bare library.

When a test fails because the bare library passes, the correction that it names can be deleted.
"""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
import trio
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.network.swarm import Swarm as LibrarySwarm
from libp2p.peer.id import ID
from libp2p.peer.peerinfo import PeerInfo
from libp2p.peer.peerstore import PeerStore
from libp2p.pubsub.gossipsub import GossipSub as LibraryGossipSub
from libp2p.pubsub.pb import rpc_pb2
from libp2p.stream_muxer.yamux.yamux import Yamux as LibraryYamux
from libp2p.transport.tcp.tcp import TCP
from multiaddr import Multiaddr

from tests.transports.support import CONFIG, TOPIC, Kind, Victim, answers, eventually, seed, survives, victim
from transports.errors import ListenError, PeerUnreachable
from transports.gossip import GossipMessage, Verdict
from transports.host import Host, open_host
from transports.libp2p.gossipsub import GossipSub, make_router
from transports.libp2p.swarm import Swarm
from transports.libp2p.tcp import Tcp
from transports.libp2p.upgrader import Upgrader
from transports.libp2p.yamux import Yamux
from transports.stream import StreamClosed
from transports.varint import encode_varint

both = pytest.mark.parametrize("kind", ["ours", "bare"])
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")


@both
async def test_a_inbound_connections_of_a_whole_life_do_not_use_up_the_slots(kind: Kind) -> None:
    async def still_answers_after(cycles: int) -> bool:
        async with open_host(CONFIG, seed(7)) as client, victim(kind, client, max_connections=4) as node:
            for _ in range(cycles):
                if not await answers(client, node.peer_id, node.address):
                    return False
                await client.disconnect(node.peer_id)
            return True

    assert await still_answers_after(8) is (kind == "ours")


@pytest.mark.logs_errors
@both
async def test_b_a_raising_handler_ends_its_stream_only(kind: Kind) -> None:
    async def handler(stream: Any) -> None:
        raise ValueError("a bug in a handler")

    async def attack(client: Host, node: Victim) -> None:
        node.handle("/raise", handler)
        with trio.move_on_after(1), contextlib.suppress(PeerUnreachable, StreamClosed):
            stream = await client.open_stream(node.peer_id, "/raise")
            await stream.read(1)

    assert await survives(kind, attack) is (kind == "ours")


async def send_rpc(client: Host, node: Victim, data: bytes) -> None:
    stream = await client.open_stream(node.peer_id, "/meshsub/1.1.0")
    await stream.write(encode_varint(len(data)) + data)
    await trio.sleep(0.2)  # nothing answers on a gossip stream


@both
async def test_c_a_malformed_rpc_ends_its_stream_only(kind: Kind) -> None:
    async def attack(client: Host, node: Victim) -> None:
        await send_rpc(client, node, b"\xff" * 40)

    assert await survives(kind, attack) is (kind == "ours")


@both
async def test_d_a_garbage_key_with_a_hashed_peer_id_is_one_bad_message(kind: Kind) -> None:
    message = rpc_pb2.Message(
        data=b"x", topicIDs=[TOPIC], from_id=b"\x12\x20" + b"h" * 32, seqno=b"12345678", key=b"\xff\xff", signature=b"s"
    )

    async def attack(client: Host, node: Victim) -> None:
        await send_rpc(client, node, rpc_pb2.RPC(publish=[message]).SerializeToString())
        assert node.received == []

    assert await survives(kind, attack) is (kind == "ours")


@pytest.mark.logs_errors
@both
async def test_e_a_raising_receiver_ignores_one_message(kind: Kind) -> None:
    def judge(data: bytes) -> bool:
        raise ValueError("a bug in a receiver")

    async def attack(client: Host, node: Victim) -> None:
        await client.gossip.subscribe(TOPIC, lambda message: Verdict.ACCEPT)
        await client.gossip.add_peer(node.peer_id)
        await node.start_gossip(client.peer_id)
        await eventually(lambda: client.gossip.topic_peers(TOPIC))
        await client.gossip.publish(TOPIC, b"x")
        await trio.sleep(0.2)

    assert await survives(kind, attack, judge) is (kind == "ours")


@both
async def test_f_gossip_flows_after_a_quick_reconnect(kind: Kind) -> None:
    received: list[bytes] = []

    def receive(message: GossipMessage) -> Verdict:
        received.append(message.data)
        return Verdict.ACCEPT

    async with open_host(CONFIG, seed(7)) as client, victim(kind, client) as node:
        client.admit(node.peer_id)
        await client.gossip.subscribe(TOPIC, receive)

        async def join() -> None:
            await client.connect(node.peer_id, (node.address,))
            await client.gossip.add_peer(node.peer_id)
            await node.start_gossip(client.peer_id)

        await join()
        await eventually(lambda: client.gossip.topic_peers(TOPIC))
        await node.publish(b"before")
        await eventually(lambda: b"before" in received)
        await client.disconnect(node.peer_id)
        await join()  # within 100 ms of the loss
        await trio.sleep(0.4)
        await node.publish(b"after")
        with trio.move_on_after(1):
            await eventually(lambda: b"after" in received)
    assert (b"after" in received) is (kind == "ours")


def swarm_of(kind: Kind) -> LibrarySwarm:
    key_pair = create_new_key_pair(seed(1))
    peer_id = ID.from_pubkey(key_pair.public_key)
    upgrader = Upgrader({}, 3.0)
    return (
        Swarm(peer_id, PeerStore(), upgrader, [Tcp()], CONFIG)
        if kind == "ours"
        else LibrarySwarm(peer_id, PeerStore(), upgrader, [TCP()])
    )


@both
async def test_g_closing_a_peer_keeps_a_connection_made_meanwhile(kind: Kind) -> None:
    swarm = swarm_of(kind)
    peer = ID(b"somebody")
    later = object()

    class Closing:
        async def close(self) -> None:
            swarm.connections[peer] = [later]  # type: ignore[list-item]

    swarm.connections[peer] = [Closing()]  # type: ignore[list-item]
    await swarm.close_peer(peer)
    assert (swarm.connections.get(peer) == [later]) is (kind == "ours")


@both
async def test_h_a_second_address_of_the_same_kind_is_tried(kind: Kind) -> None:
    """And a failure before does not forbid a dial to the right address."""
    dead = "/ip4/127.0.0.1/tcp/1"

    async def connects() -> bool:
        async with open_host(CONFIG, seed(7)) as client, victim("ours", client) as node:
            if kind == "ours":
                with pytest.raises(Exception, match="tcp/1"):
                    await client.connect(node.peer_id, (dead,))
                await client.connect(node.peer_id, (dead, node.address))
                return node.peer_id in client.connections()
            async with victim("bare", client):
                from libp2p import new_host

                bare = new_host(key_pair=create_new_key_pair(seed(8)))
                async with bare.run([]):
                    addresses = [Multiaddr(dead), Multiaddr(node.address)]
                    await bare.connect(PeerInfo(ID(node.peer_id.raw), addresses))
                    return True

    try:
        connected = await connects()
    except* Exception:
        connected = False
    assert connected is (kind == "ours")


class SlowSecureConnection:
    """A socket that takes its time; *torn* when a write was cut in the middle."""

    is_initiator = True

    def __init__(self) -> None:
        self.torn = False
        self.go = trio.Event()

    async def write(self, data: bytes) -> None:
        try:
            await self.go.wait()
        except trio.Cancelled:
            self.torn = True
            raise

    async def read(self, n: int | None = None) -> bytes:
        await trio.sleep_forever()
        raise AssertionError

    async def close(self) -> None: ...

    def get_remote_address(self) -> None: ...


@both
async def test_i_a_cancelled_write_never_cuts_a_frame(kind: Kind, autojump_clock: trio.abc.Clock) -> None:
    connection: Any = SlowSecureConnection()
    muxer: Any = (Yamux if kind == "ours" else LibraryYamux)(connection, ID(b"peer"))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(muxer.start)
        await muxer.event_started.wait()
        with trio.move_on_after(0.1):
            stream = await muxer.open_stream()
            await stream.write(b"x" * 100)
            await trio.sleep_forever()
        torn = connection.torn
        connection.go.set()
        nursery.cancel_scope.cancel()
    assert torn is (kind == "bare")


@both
async def test_a_busy_port_is_an_error(kind: Kind) -> None:
    async def second_listens() -> bool:
        async with open_host(CONFIG, seed(1)) as first:
            address = first.addresses[0].rpartition("/p2p/")[0]
            if kind == "ours":
                with pytest.raises(ListenError, match=address):
                    async with open_host(type(CONFIG)(listen=(address,)), seed(2)):
                        return True
                return False
        from libp2p import new_host

        bare, other = new_host(key_pair=create_new_key_pair(seed(1))), new_host(key_pair=create_new_key_pair(seed(2)))
        async with bare.run([Multiaddr("/ip4/127.0.0.1/tcp/0")]), other.run([bare.get_transport_addrs()[0]]):
            return bool(other.get_transport_addrs())

    assert await second_listens() is (kind == "bare")


@both
async def test_control_messages_go_to_the_peer_they_are_for(kind: Kind) -> None:
    router: Any = make_router() if kind == "ours" else LibraryGossipSub([], 6, 4, 12)
    assert isinstance(router, GossipSub) is (kind == "ours")
    sent: dict[str, list[str]] = {}

    async def emit(control: rpc_pb2.ControlMessage, peer: str) -> None:
        sent[peer] = [graft.topicID for graft in control.graft]

    router.emit_control_message = emit
    await router._emit_control_msgs({"a": ["one"], "b": ["two"]}, {}, {})
    assert (sent == {"a": ["one"], "b": ["two"]}) is (kind == "ours")
