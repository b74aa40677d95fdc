"""Settings of a host. Every number has its reason beside it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class HostConfig:
    """How a host listens and what it allows. Immutable; the defaults fit a node on a LAN and on the internet."""

    listen: tuple[str, ...] = ("/ip4/127.0.0.1/tcp/0",)
    """Multiaddrs: /ip4|ip6/<address>/tcp/<port>[/ws]; port 0 lets the system choose; /ws needs a port of its own."""

    max_connections: int = 512
    """Per node. One costs about 60 kB and two tasks; the mesh degree is 6, the rest are calls in flight."""

    high_water: int = 96
    """Members' connections beyond which idle ones are let go; kubo's figure. Gossip uses 12 at most, a burst of calls
    finds most of its peers connected."""

    low_water: int = 64
    """How many are left then: far enough below that a node does not let go of one for each that comes."""

    grace: float = 10.0
    """Seconds that a new connection is kept for sure: a node that joins has found other neighbours in two."""

    max_connections_per_peer: int = 3
    """Both sides may dial at once, over two transports; more is a leak or an attack. The oldest goes."""

    max_strangers: int = 64
    """Connections of peers that are not admitted, apart from members' ones, so strangers cannot starve members."""

    max_strangers_per_address: int = 16
    """Of those, from one IP address: a household joins at once, a flood from one machine leaves room for others."""

    max_handshakes: int = 32
    """Handshakes at a time; each costs about 5 ms of CPU, so this is well above what a core can finish per second."""

    member_handshakes: int = 16
    """Of those, kept for addresses where members were seen: strangers who connect and stay silent fill the rest."""

    handshake_patience: float = 1.0
    """Seconds that a stranger's handshake has for sure. After that it gives way when all places are taken: without a
    flood a satellite link has its 3 s, in a flood those who say nothing do not shut out those who do."""

    stranger_rate: float = 20.0
    """Handshakes per second of all addresses where no member was seen: a tenth of a core, at 5 ms each."""

    stranger_burst: float = 20.0
    """Of those at once: a second's worth, which delays a member's call by 0.1 s at most, and that rarely."""

    address_rate: float = 5.0
    """Handshakes per second of one such address: a dialler that backs off needs one, a household a few."""

    address_burst: float = 16.0
    """Of those at once: as many strangers as one address may have."""

    member_rate: float = 20.0
    """Handshakes per second of each address where a member was seen. It may be a NAT with many people behind it."""

    member_burst: float = 40.0
    """Of those at once: two dials each from twenty nodes behind one router that has just come back."""

    stranger_bytes: int = 64 * 1024
    """Bytes that one connection may bring before admission. Identify, join and the greeting take about 8 KiB."""

    handshake_timeout: float = 10.0
    """Seconds for security and muxer negotiation. A satellite link needs 3; a slow loris gets no more than this."""

    dial_timeout: float = 10.0
    """Seconds for one address, from the first packet to a usable connection."""

    dial_stagger: float = 0.25
    """Seconds before the next address of a peer is tried beside the first (RFC 8305, happy eyeballs)."""

    max_dial_addresses: int = 8
    """Addresses of one peer tried in one attempt; an advertised list longer than this is noise."""

    stranger_timeout: float = 30.0
    """Seconds until a connection whose peer was not admitted is closed. Joining takes about one."""

    streams_per_member: int = 256
    """Inbound streams open at a time on one connection; what go-libp2p allows too."""

    streams_per_stranger: int = 8
    """The same before admission: identify, ping, join and sync need four."""

    streams_of_stranger: int = 32
    """The same in all, until admission or the end of the connection: it is there to join, not to keep us busy."""

    negotiation_timeout: float = 10.0
    """Seconds to agree on a stream's protocol; 200 silent streams cost nothing for this long."""

    gossip_epoch: int = 0
    """Upper half of the sequence numbers of our gossip messages. Must differ at every start: pass the boot epoch or
    Unix seconds, otherwise peers take our messages after a restart for repeated ones."""

    gossip_max_message: int = 64 * 1024
    """Bytes of one gossip RPC, both ways. Beacons have 600; bulk belongs on streams."""

    gossip_rate: float = 200.0
    """Messages per second and forwarder, on all topics, before it counts as spam. A forwarder relays for the whole
    mesh, so this is far above the 4/s a node is meant to receive; the library's 10 drops bursts of honest ones."""

    gossip_author_rate: float = 10.0
    """Messages per second of one author, whoever forwards them. A node has news five times a second at most."""

    gossip_author_burst: float = 100.0
    """Of those at once: an issuer that revokes a hundred memberships does it in one go."""
