"""Hosts alone, without nodes: a mesh that gossips. For tests of the world, and to measure what the transport costs."""

from __future__ import annotations

import gc
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import trio

from simulations.virtual import Virtual, cpu_s
from transports.config import HostConfig
from transports.gossip import GossipMessage, Verdict
from transports.host import Host, open_host
from transports.memory import MemoryNetwork, latencies_between, open_network

TOPIC = "atmosphere/simulation"
LISTEN = ("/ip4/0.0.0.0/tcp/4001",)


@dataclass(frozen=True)
class GossipWorld:
    """What to build and how long to watch it."""

    nodes: int = 100
    dials: int = 4
    """Links that each node makes; twice as many is the mean degree."""
    latency_s: tuple[float, float] = (0.02, 0.1)
    settle_s: float = 15.0
    idle_s: float = 20.0
    messages: int = 10
    interval_s: float = 3.0
    size: int = 500


@dataclass
class GossipResult:
    """Seconds are of CPU unless their name says virtual."""

    links: int = 0
    open_s: float = 0.0
    link_s: float = 0.0
    idle_s: float = 0.0
    gossip_s: float = 0.0
    deliveries: int = 0
    expected: int = 0
    frames: int = 0
    """Yamux frames that were sent while messages spread."""
    received_bytes: int = 0
    tasks: int = 0
    virtual_delays: list[float] = field(default_factory=list)

    def delay(self, share: float) -> float:
        """Virtual seconds within which *share* of the deliveries were made."""
        ordered = sorted(self.virtual_delays)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def gossip_world(plan: GossipWorld) -> Callable[[Virtual], Awaitable[GossipResult]]:
    """The program for :func:`simulations.virtual.run`; its value is a :class:`GossipResult`."""

    async def main(world: Virtual) -> GossipResult:
        result = GossipResult()
        links = latencies_between(*plan.latency_s, seed=world.seed)
        async with AsyncExitStack() as stack:
            network = await stack.enter_async_context(open_network(links, world.random("network").random))
            gc.collect()
            began = cpu_s()
            hosts = [
                await stack.enter_async_context(
                    open_host(HostConfig(listen=LISTEN, gossip_epoch=1), world.key(f"host {number}"), network)
                )
                for number in range(plan.nodes)
            ]
            result.open_s = cpu_s() - began
            await _measure(world, plan, network, hosts, result)
        return result

    return main


async def _measure(
    world: Virtual, plan: GossipWorld, network: MemoryNetwork, hosts: list[Host], result: GossipResult
) -> None:
    published: dict[bytes, float] = {}
    for number, host in enumerate(hosts):

        def receive(message: GossipMessage, number: int = number) -> Verdict:
            result.virtual_delays.append(trio.current_time() - published[message.data[:8]])
            world.trace.note("delivered", number, message.data[:8], message.forwarder.raw)
            return Verdict.ACCEPT

        await host.gossip.subscribe(TOPIC, receive)
        for other in hosts:
            if other is not host:
                host.admit(other.peer_id)
    draw = world.random("topology")
    pairs = {
        (min(low, high), max(low, high))
        for low in range(len(hosts))
        for high in draw.sample([n for n in range(len(hosts)) if n != low], plan.dials)
    }
    began = cpu_s()
    async with trio.open_nursery() as nursery:
        for low, high in sorted(pairs):
            nursery.start_soon(_join, hosts[low], hosts[high])
    result.links = len(pairs)
    result.link_s = cpu_s() - began
    gc.collect()
    gc.freeze()
    await trio.sleep(plan.settle_s)
    result.tasks = hosts[0].statistics().tasks

    began = cpu_s()
    await trio.sleep(plan.idle_s)
    result.idle_s = cpu_s() - began

    before = network.statistics()
    began = cpu_s()
    for number in range(plan.messages):
        name = number.to_bytes(8, "big")
        published[name] = trio.current_time()
        await hosts[draw.randrange(len(hosts))].gossip.publish(TOPIC, name + bytes(plan.size - 8))
        await trio.sleep(plan.interval_s)
    result.gossip_s = cpu_s() - began
    after = network.statistics()
    result.frames = sum(t.sent_frames for t in after.peers.values()) - sum(t.sent_frames for t in before.peers.values())
    result.received_bytes = sum(t.received_bytes for t in after.peers.values()) - sum(
        t.received_bytes for t in before.peers.values()
    )
    result.deliveries = len(result.virtual_delays)
    result.expected = plan.messages * (len(hosts) - 1)


async def _join(one: Host, other: Host) -> None:
    await one.connect(other.peer_id, other.addresses)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.gossip.add_peer, other.peer_id)
        nursery.start_soon(other.gossip.add_peer, one.peer_id)
