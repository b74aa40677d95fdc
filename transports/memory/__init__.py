"""Hosts without sockets: the production Host over a network that lives in this process and in any clock's time.

Use it like this, in a test with the autojump clock or in a simulation:

    async with open_network(latencies_between(0.02, 0.1, seed=1), random.Random(1).random) as network:
        async with open_host(HostConfig(listen=("/ip4/0.0.0.0/tcp/4001",)), seed, network) as host:
            ...  # host.addresses: ("/ip4/20.0.1.1/tcp/4001/p2p/...",), dialled like any other

Wildcard and loopback addresses stand for the address that the network gives to the host; ``network.address(peer)``
tells it before the host runs. Lines and NATs: ``limit_uplink``, ``put_behind``; faults: ``kill``, ``stall``, ``part``,
``heal``; traffic: ``statistics``.

What is real: everything above the socket and its encryption. The swarm with its gate and limits, yamux's streams and
windows, negotiation, identify, ping and gossip are the code of production. What is modelled: the link (latency, jitter,
bandwidth, loss, window), TCP's dialling, retransmission and giving up, and the handshake, by its time and size. What is
absent: encryption (the network vouches for peer ids), WebSocket framing, DNS names, relays, a shared downlink.
"""

from transports.memory.links import Link, LinkModel, latencies_between, same_everywhere
from transports.memory.nat import Nat
from transports.memory.network import MemoryNetwork, NetworkStatistics, Traffic, open_network

__all__ = [
    "Link",
    "LinkModel",
    "MemoryNetwork",
    "Nat",
    "NetworkStatistics",
    "Traffic",
    "latencies_between",
    "open_network",
    "same_everywhere",
]
