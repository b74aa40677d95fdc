"""Hosts over bad links with every fault of the memory network, run by a test in processes of their own: ``SEED...``."""

from __future__ import annotations

import sys
from contextlib import AsyncExitStack
from functools import partial

import trio

from simulations.hashing import fix_hashing
from simulations.virtual import Virtual, run
from transports.config import HostConfig
from transports.errors import PeerUnreachable
from transports.gossip import GossipMessage, Verdict
from transports.host import Host, open_host
from transports.memory import Link, Nat, latencies_between, open_network
from transports.peer_id import PeerId

HOSTS = 20


async def faults(world: Virtual) -> None:
    links = latencies_between(0.02, 0.1, world.seed, like=Link(jitter_s=0.03, loss=0.02, bytes_per_s=1e6))
    draw = world.random("faults")
    async with AsyncExitStack() as stack:
        network = await stack.enter_async_context(open_network(links, world.random("network").random))
        hosts = [
            await stack.enter_async_context(open_host(HostConfig(gossip_epoch=1), world.key(f"host {n}"), network))
            for n in range(HOSTS)
        ]
        for number, host in enumerate(hosts):
            await _watch(world, number, host, hosts)
        network.put_behind(hosts[0].peer_id, Nat.RESTRICTED)
        network.limit_uplink(hosts[1].peer_id, 20_000)
        pairs = sorted({(low, high) for low in range(HOSTS) for high in draw.sample(range(low + 1), min(low + 1, 4))})
        async with trio.open_nursery() as nursery:
            for low, high in pairs:
                if low != high:
                    nursery.start_soon(_join, world, hosts[low], hosts[high])
        await trio.sleep(5)
        network.kill(hosts[3].peer_id, silent=False)
        network.kill(hosts[4].peer_id, silent=True)
        network.stall(hosts[5].peer_id)
        network.part([{host.peer_id for host in hosts[:8]}], reset_after=12)
        for number in range(8):
            await hosts[number + 6].gossip.publish("news", bytes([number]))
            await trio.sleep(2)
        network.heal()
        await trio.sleep(60)
        statistics = network.statistics()
        for traffic in statistics.peers.values():
            world.trace.note("traffic", traffic.sent_bytes, traffic.sent_frames, traffic.received_bytes)
        assert 0 < statistics.connections < len(pairs)
    assert not world.errors, world.errors


async def _watch(world: Virtual, number: int, host: Host, hosts: list[Host]) -> None:
    def receive(message: GossipMessage) -> Verdict:
        world.trace.note("heard", number, message.data, message.forwarder.raw)
        return Verdict.ACCEPT

    def note(what: str, peer: PeerId) -> None:
        world.trace.note(what, number, peer.raw)

    host.add_listener(partial(note, "connected"), partial(note, "lost"))
    for other in hosts:
        host.admit(other.peer_id)
    await host.gossip.subscribe("news", receive)


async def _join(world: Virtual, one: Host, other: Host) -> None:
    try:
        await one.connect(other.peer_id, other.addresses)
    except PeerUnreachable as error:  # it is behind a NAT
        world.trace.note("unreachable", str(error))
        return
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.gossip.add_peer, other.peer_id)
        nursery.start_soon(other.gossip.add_peer, one.peer_id)


if __name__ == "__main__":
    fix_hashing()
    for seed in sys.argv[1:]:
        print(run(faults, seed=int(seed)).trace_hash)
