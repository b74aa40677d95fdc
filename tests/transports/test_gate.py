"""The gate for handshakes: strangers are few, members keep a reserve. Pure, and once with real sockets."""

from __future__ import annotations

from dataclasses import replace

import pytest
import trio

from tests.transports.support import CONFIG, connect, echo, eventually, hosts, seed
from transports.addresses import parse
from transports.config import HostConfig
from transports.errors import PeerUnreachable
from transports.gate import MAX_MEMBER_ADDRESSES, Gate, Handshake
from transports.host import Host, open_host
from transports.stream import StreamClosed

LIMITS = HostConfig()
MEMBER = "10.0.0.1"


def allowed(gate: Gate, host: str, tries: int, now: float) -> int:
    return sum(1 for _ in range(tries) if gate.refusal(host, now) is None)


def test_a_flood_gets_the_rate_and_members_do_not_notice() -> None:
    gate = Gate(LIMITS)
    gate.remember_member(MEMBER)
    strangers = 0
    for tick in range(100):  # ten seconds, a hundred new addresses in each
        strangers += sum(allowed(gate, f"127.0.{tick}.{n}", 1, tick / 10) for n in range(10))
        assert gate.refusal(MEMBER, tick / 10) is None
    assert 200 <= strangers <= LIMITS.stranger_burst + LIMITS.stranger_rate * 10


def test_one_address_cannot_use_up_what_is_for_all() -> None:
    gate = Gate(LIMITS)
    assert allowed(gate, "192.0.2.1", 100, 0.0) == LIMITS.address_burst
    assert allowed(gate, "192.0.2.2", 100, 0.0) == LIMITS.stranger_burst - LIMITS.address_burst
    assert gate.refusal("192.0.2.1", 0.0) == "too many handshakes of strangers"
    assert gate.refusal("192.0.2.1", 0.1) == "too many handshakes of one address"


def test_members_addresses_have_limits_too_and_do_not_share_them() -> None:
    gate = Gate(LIMITS)
    gate.remember_member(MEMBER)
    gate.remember_member("10.0.0.2")
    assert allowed(gate, MEMBER, 1000, 0.0) == LIMITS.member_burst
    assert gate.refusal(MEMBER, 0.0) == "too many handshakes of a member's address"
    assert gate.refusal("10.0.0.2", 0.0) is None


def begin(gate: Gate, host: str, now: float, gave_way: list[str]) -> Handshake:
    assert gate.refusal(host, now) is None
    return gate.begin(host, now, lambda: gave_way.append(host))


def test_silent_strangers_leave_handshakes_for_members_and_give_way_to_newer_ones() -> None:
    places = LIMITS.max_handshakes - LIMITS.member_handshakes
    gate = Gate(replace(LIMITS, stranger_burst=1000))
    gate.remember_member(MEMBER)
    gave_way: list[str] = []
    running = [begin(gate, f"192.0.2.{n}", 0.0, gave_way) for n in range(places)]
    assert gate.refusal("192.0.2.99", 0.9) == "too many handshakes at a time", "nobody has had his second yet"
    running += [begin(gate, MEMBER, 0.9, gave_way) for _ in range(LIMITS.member_handshakes)]
    assert gate.refusal(MEMBER, 0.9) == "too many handshakes at a time"
    assert gave_way == []
    running.append(begin(gate, "192.0.2.99", 1.0, gave_way))
    assert gave_way == ["192.0.2.0"]
    assert gate.handshakes == LIMITS.max_handshakes
    gate.remember_member("192.0.2.1")  # joined meanwhile: its handshake still counts as what it began as
    for one in running:
        gate.end(one)
    assert gate.handshakes == 0


def test_members_addresses_are_bounded() -> None:
    gate = Gate(LIMITS)
    for n in range(MAX_MEMBER_ADDRESSES + 1):
        gate.remember_member(f"host {n}")
    assert not gate.is_members("host 0")
    assert gate.is_members("host 1")
    assert gate.is_members(f"host {MAX_MEMBER_ADDRESSES}")


async def knock(host: Host, source: str, times: int) -> list[trio.SocketStream]:
    """Open *times* TCP connections from *source*, and say nothing."""
    address = parse(host.addresses[0])
    return [await trio.open_tcp_stream(address.host, address.port, local_address=source) for _ in range(times)]


async def test_strangers_beyond_the_rate_are_closed_unread_and_a_member_reconnects() -> None:
    config = replace(CONFIG, stranger_rate=0.001, stranger_burst=4)
    async with hosts(2, config) as (member, host):
        host.handle("/echo", echo)
        await connect(member, host)
        await member.disconnect(host.peer_id)
        await eventually(lambda: not host.connections())
        sockets = await knock(host, "127.0.1.1", 3) + await knock(host, "127.0.1.2", 5)
        await eventually(lambda: host.statistics().refused.get("too many handshakes of strangers") == 5)
        assert host._swarm.gate.handshakes == 3, "one was spent on the member before anybody knew it"
        with trio.fail_after(2):
            assert await sockets[-1].receive_some(1) == b""
        async with open_host(config, seed(50)) as stranger:  # from the member's address: it gets a connection
            await connect(stranger, host)
        await connect(member, host)
        for socket in sockets:
            await socket.aclose()


async def test_who_says_nothing_gives_way_to_who_does() -> None:
    config = replace(CONFIG, max_handshakes=3, member_handshakes=1, handshake_patience=0.2)
    async with hosts(2, config, admitted=False) as (joiner, host):
        sockets = await knock(host, "127.0.1.1", 2)
        await eventually(lambda: host._swarm.gate.handshakes == 2)
        with pytest.raises(PeerUnreachable):
            await joiner.connect(host.peer_id, host.addresses)
        await trio.sleep(0.2)
        await connect(joiner, host)
        with trio.fail_after(1):
            while await sockets[0].receive_some(100):
                pass
        assert host.statistics().refused["a slow handshake gave way"] == 1
        assert host._swarm.gate.handshakes == 1
        for socket in sockets:
            await socket.aclose()


async def test_members_of_before_a_restart_are_expected() -> None:
    config = replace(CONFIG, stranger_rate=0.001, stranger_burst=1)
    async with hosts(2, config, admitted=False) as (member, host):
        sockets = await knock(host, "127.0.1.1", 1)
        with pytest.raises(PeerUnreachable):
            await member.connect(host.peer_id, host.addresses)
        host.expect_members(["/dns4/node.example/tcp/1", "nonsense", member.addresses[0]])
        await connect(member, host)
        for socket in sockets:
            await socket.aclose()


async def test_an_expelled_peer_keeps_no_reserve_unless_another_member_is_there() -> None:
    async with hosts(3) as (host, one, two):
        await connect(one, host)
        await connect(two, host)
        host.expel(one.peer_id)
        assert host._swarm.gate.is_members("127.0.0.1")
        host.expel(two.peer_id)
        assert not host._swarm.gate.is_members("127.0.0.1")


async def test_members_get_in_when_strangers_fill_their_places() -> None:
    """Their addresses are not refused for the strangers' number, and the strangers there are counted apart."""
    config = replace(CONFIG, max_strangers=0)
    async with hosts(3, config, admitted=False) as (host, member, stranger):
        with pytest.raises(PeerUnreachable):
            await stranger.connect(host.peer_id, host.addresses)
        host.admit(member.peer_id)
        host.expect_members(["/ip4/127.0.0.1/tcp/1"])
        await connect(member, host)
        await connect(stranger, host)
        assert host.statistics().strangers == 1


async def test_a_stranger_may_send_so_many_bytes_and_a_member_more() -> None:
    config = replace(CONFIG, stranger_bytes=10_000)
    async with hosts(2, config, admitted=False) as (client, host):
        host.handle("/echo", echo, public=True)
        await connect(client, host)
        stream = await client.open_stream(host.peer_id, "/echo")
        with pytest.raises(StreamClosed):  # noqa: PT012 - which of them hears of it first is not promised
            while True:
                await stream.write(bytes(1000))
                await stream.read(1000)
        await eventually(lambda: not host.connections())
        host.admit(client.peer_id)
        client.admit(host.peer_id)
        await eventually(lambda: not client.connections())
        await connect(client, host)
        stream = await client.open_stream(host.peer_id, "/echo")
        received = 0
        await stream.write(bytes(100_000))
        while received < 100_000:
            received += len(await stream.read(100_000))


async def test_a_stranger_may_open_so_many_streams_and_a_member_more() -> None:
    config = replace(CONFIG, streams_of_stranger=5)
    async with hosts(2, config, admitted=False) as (client, host):
        client.admit(host.peer_id)
        host.handle("/echo", echo, public=True)
        await connect(client, host)

        async def open_many() -> None:
            for _ in range(50):
                await (await client.open_stream(host.peer_id, "/echo")).reset()

        with pytest.raises(PeerUnreachable, match="to"):
            await open_many()
        await eventually(lambda: not host.connections() and not client.connections())
        host.admit(client.peer_id)
        await connect(client, host)
        await open_many()
