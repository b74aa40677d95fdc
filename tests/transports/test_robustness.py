"""A live host against malformed, oversized, truncated and slow input at every layer, and against 500 reconnects."""

from __future__ import annotations

import gc
import os
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import trio
from libp2p.pubsub.pb import rpc_pb2

from tests.transports.support import CONFIG, TOPIC, answers, connect, echo, eventually, hosts
from transports.addresses import split_peer
from transports.errors import PeerUnreachable
from transports.gossip import Verdict
from transports.libp2p.multistream import encode_line
from transports.stream import StreamClosed
from transports.varint import encode_varint

FAST = replace(CONFIG, handshake_timeout=0.5, negotiation_timeout=0.5)
MULTISTREAM = encode_line("/multistream/1.0.0")


async def until_closed(sock: trio.SocketStream) -> None:
    """Read until the host hangs up."""
    with trio.fail_after(5):
        try:
            while await sock.receive_some(65536):
                pass
        except trio.BrokenResourceError:
            pass


TCP_INPUT = {
    "nothing at all": b"",
    "random bytes": bytes(range(256)) * 40,
    "an HTTP request": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "an endless varint": b"\xff" * 100,
    "a huge multistream line": b"\xff\xff\xff\xff\x07" + b"x" * 1000,
    "an unknown security protocol": MULTISTREAM + encode_line("/secio/1.0.0"),
    "the plaintext protocol": MULTISTREAM + encode_line("/plaintext/2.0.0") + b"\x20" * 33,
    "half a noise handshake": MULTISTREAM + encode_line("/noise") + b"\x00\x20" + b"\x01" * 16,
    "a garbage noise handshake": MULTISTREAM + encode_line("/noise") + b"\x00\x20" + b"\x01" * 32 + b"\xff" * 70,
    "a garbage TLS handshake": MULTISTREAM + encode_line("/tls/1.0.0") + b"\x16\x03\x01\xff\xff" + b"\x03" * 500,
}


@pytest.mark.parametrize("data", TCP_INPUT.values(), ids=TCP_INPUT.keys())
@pytest.mark.parametrize("ending", ["stays", "hangs up"])
async def test_raw_tcp(data: bytes, ending: str) -> None:
    async with hosts(2, FAST) as (client, host):
        host.handle("/echo", echo)
        _, address = split_peer(host.addresses[0])
        sock = await trio.open_tcp_stream("127.0.0.1", int(address.split("/")[4]))
        async with sock:
            await sock.send_all(data)
            if ending == "stays":
                await until_closed(sock)
        await eventually(lambda: host._swarm.gate.handshakes == 0)
        assert host.connections() == {}
        assert await answers(client, host.peer_id, address)


STREAM_INPUT = {
    "an endless varint": b"\xff" * 20,
    "a huge line": b"\xff\x7f" + b"x" * 100,
    "an empty line": b"\x00",
    "a line without its end": b"\x03abc",
    "not UTF-8": b"\x04\xff\xfe\xfd\n",
    "another protocol": encode_line("/multistream/2.0.0"),
    "forty unknown proposals": MULTISTREAM + b"".join(encode_line(f"/unknown/{n}") for n in range(40)),
    "half a line": MULTISTREAM[:7],
    "nothing": b"",
}


@pytest.mark.parametrize("data", STREAM_INPUT.values(), ids=STREAM_INPUT.keys())
async def test_multistream_on_a_stream(data: bytes) -> None:
    """The stream is reset, at the latest after the negotiation timeout; the connection stays."""
    async with hosts(2, FAST) as (client, host):
        host.handle("/echo", echo)
        await connect(client, host)
        stream = await client._connections_to(host.peer_id)[0].muxed_conn.open_stream()
        await stream.write(data)
        with trio.fail_after(5):
            while stream.reset_reason is None:  # noqa: ASYNC110 - the peer sets it
                await trio.sleep(0.01)
        assert host.statistics().refused["stream without a protocol"] == 1
        assert await answers(client, host.peer_id, host.addresses[0])
        assert client.statistics().connections == 1


def rpc(**fields: object) -> bytes:
    data = rpc_pb2.RPC(**fields).SerializeToString()  # type: ignore[arg-type]
    return encode_varint(len(data)) + data


PUBSUB_INPUT = {
    "an endless varint": (b"\xff" * 20, True),
    "a length of 2 GiB": (b"\xff\xff\xff\xff\x07", True),
    "more than the limit": (encode_varint(CONFIG.gossip_max_message + 1), True),
    "garbage protobuf": (b"\x04\xff\xff\xff\xff", True),
    "half a frame": (b"\x20abc", False),
    "an empty RPC": (b"\x00", False),
    "an unsigned message": (rpc(publish=[rpc_pb2.Message(data=b"x", topicIDs=[TOPIC], from_id=b"me")]), False),
    "a message without fields": (rpc(publish=[rpc_pb2.Message()]), False),
    "10,000 topics": (
        b"".join(rpc(subscriptions=[rpc_pb2.RPC.SubOpts(subscribe=True, topicid=f"t{n}")]) for n in range(10_000)),
        False,
    ),
    "a topic name of 5,000": (rpc(subscriptions=[rpc_pb2.RPC.SubOpts(subscribe=True, topicid="t" * 5000)]), False),
    "PRUNE for 1,000 unknown topics": (
        rpc(
            control=rpc_pb2.ControlMessage(
                prune=[rpc_pb2.ControlPrune(topicID=f"t{n}", backoff=2**60) for n in range(1000)]
            )
        ),
        False,
    ),
    "IHAVE and IWANT of odd ids": (
        rpc(
            control=rpc_pb2.ControlMessage(
                ihave=[rpc_pb2.ControlIHave(topicID=TOPIC, messageIDs=[b"\xff", b"abc", b""] * 300)],
                iwant=[rpc_pb2.ControlIWant(messageIDs=[b"\xff", b"abc", b""] * 300)],
                graft=[rpc_pb2.ControlGraft(topicID="unknown")],
            )
        ),
        False,
    ),
    "a garbage sender record": (rpc(senderRecord=b"\xff" * 100), False),
}


@pytest.mark.parametrize(("data", "reset"), PUBSUB_INPUT.values(), ids=PUBSUB_INPUT.keys())
async def test_pubsub(data: bytes, reset: bool) -> None:
    """Nonsense resets the stream; what is merely wrong is dropped, and what comes after it is heard."""
    received: list[bytes] = []

    def receive(message) -> Verdict:  # type: ignore[no-untyped-def]
        received.append(message.data)
        return Verdict.ACCEPT

    async with hosts(2, CONFIG) as (client, host):
        host.handle("/echo", echo)
        await host.gossip.subscribe(TOPIC, receive)
        await client.gossip.subscribe(TOPIC, receive)
        await connect(client, host)
        stream = await client.open_stream(host.peer_id, "/meshsub/1.1.0")
        await stream.write(data)
        if reset:
            with trio.fail_after(5), pytest.raises(StreamClosed):
                await stream.read(1)
        pubsub = host.gossip._pubsub
        await client.gossip.add_peer(host.peer_id)
        await host.gossip.add_peer(client.peer_id)
        await eventually(lambda: host.peer_id in client.gossip.topic_peers(TOPIC))
        await client.gossip.publish(TOPIC, b"and then a good one")
        await eventually(lambda: received == [b"and then a good one"])
        assert sum(len(topics) for topics in pubsub.peer_topics.values()) <= 64
        assert sum(len(topics) for topics in pubsub.router.back_off.values()) == 0
        assert await answers(client, host.peer_id, host.addresses[0])


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir())) if os.path.isdir("/proc/self/fd") else 0  # noqa: PTH112


async def cycles(count: int, run: Callable[[], Awaitable[None]]) -> None:
    for _ in range(count):
        await run()


async def test_five_hundred_connects_and_disconnects_leave_nothing_behind() -> None:
    """Tasks, descriptors and memory are flat; the bare library accepts nothing after the 250th."""

    async with hosts(2, replace(CONFIG, member_rate=1000.0)) as (client, host):
        host.handle("/echo", echo)
        await host.gossip.subscribe(TOPIC, lambda message: Verdict.ACCEPT)
        await client.gossip.subscribe(TOPIC, lambda message: Verdict.ACCEPT)

        async def cycle() -> None:
            await client.connect(host.peer_id, host.addresses)
            await client.gossip.add_peer(host.peer_id)
            stream = await client.open_stream(host.peer_id, "/echo")
            await stream.write(b"x")
            assert await stream.read(1) == b"x"
            await client.disconnect(host.peer_id)

        async def measure() -> tuple[int, int, float]:
            await eventually(lambda: not host.connections() and host._swarm.gate.handshakes == 0)
            await trio.sleep(0.2)
            gc.collect()
            tasks = trio.lowlevel.current_statistics().tasks_living
            return tasks, descriptors(), psutil.Process().memory_info().rss / 1e6

        await cycles(50, cycle)
        grown = []
        for _ in range(3):  # what the allocator takes it takes once, a leak always
            before = await measure()
            await cycles(500, cycle)
            after = await measure()
            assert after[0] == before[0], "tasks"
            assert after[1] == before[1], "descriptors"
            grown.append(after[2] - before[2])
            if grown[-1] < 5:
                break
    assert grown[-1] < 5, f"megabytes, in each of three series: {grown}"


async def test_a_slow_stranger_is_cut_off() -> None:
    """Connects, proves a key, and then trickles: it is gone after the stranger's time."""
    async with hosts(2, replace(CONFIG, stranger_timeout=0.4), admitted=False) as (stranger, host):
        stranger.admit(host.peer_id)
        await connect(stranger, host)

        async def trickle() -> None:
            while True:
                await stranger.ping(host.peer_id)
                await trio.sleep(0.05)

        with trio.fail_after(5), pytest.raises(PeerUnreachable):
            await trickle()
        assert host.connections() == {}


@pytest.mark.logs_errors
async def test_an_exception_in_a_listener_is_contained() -> None:
    async with hosts(2) as (client, host):

        def fail(peer: object) -> None:
            raise RuntimeError("a bug in a listener")

        host.add_listener(fail, fail)
        await connect(client, host)
        await client.disconnect(host.peer_id)
        await eventually(lambda: not host.connections())
        await connect(client, host)


def test_the_host_module_is_what_loads_the_library() -> None:
    """transports/__init__, config, addresses, errors, stream, peer_id and the dialer stay light."""
    import subprocess
    import sys

    light = ["addresses", "config", "dialer", "errors", "mdns", "peer_id", "stream"]
    code = f"import sys, {', '.join('transports.' + name for name in light)}; sys.exit('libp2p' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


