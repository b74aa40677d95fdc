"""What a mesh costs each of its nodes as it grows, as numbers alone, and at which size something gives way.

The rules are those of the code (their constants are imported); the prices come from runs and are named here. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, log

from atmosphere.mesh.announcer import BASE_PERIOD_S, BEACONS_PER_SECOND
from atmosphere.mesh.reconciler import RECONCILE_S, STRETCH_ABOVE
from atmosphere.mesh.table import MAX_NODES
from protocols.sync.summary import BUCKET_ITEMS, DIGEST_BYTES, MAX_BUCKETS

PING_BYTES = 44
"""A ping or its echo: 32 bytes in a yamux frame. One of each for a link and second, so one for each of its ends."""
COPY_CPU_S = 0.001
"""Of one core, for a copy of a beacon that comes over TCP."""
RECORD_BYTES = 368 + 214 + 273
"""Membership, beacon and offer of a node with a few cards, as they are kept and as a joiner fetches them."""
OBJECT_BYTES = 4200
"""Of a known node in memory beside its records: of 300 that one node took in by itself."""
RECORD_CPU_S = 0.0002
"""For the signatures of a record that is taken in; three for each node."""
TOLD_PER_INTENT = 1.5
"""Beacons that say how the load has changed, of nodes with two slots (scenario `routing`, 100 nodes)."""

# The DHT is the library's, measured by itself at 300 and 1,000 nodes; the product has none yet.
DHT_PROVIDE = 21.5 + 20
"""Messages for one record: FIND_NODE and ADD_PROVIDER."""
DHT_FIND = 19 + 19
"""Messages for one answer: FIND_NODE and GET_PROVIDERS."""
DHT_FIND_S = 2.9
"""With links of 20 to 100 ms and a new connection for nearly each node that is asked."""
DHT_K = 20
DHT_MEASURED_NODES = 1000
DHT_ALPHA = 10


@dataclass(frozen=True, slots=True)
class Prices:
    """What a run of 100 nodes at rest has shown."""

    links: float
    frames_per_beacon: float
    """That a node sends for each beacon that is said anywhere: its copies, and what it tells of them."""
    bytes_per_beacon: float
    copies: float
    """Of a beacon that come to a node."""


@dataclass(frozen=True, slots=True)
class Load:
    """Of one node, in a mesh of *nodes*."""

    nodes: int
    known: int
    """Nodes in its table."""
    beacon_period_s: float
    beacon_age_s: float
    """Of what is known of another node, on average, as long as nothing happens there that is told at once."""
    beacons_per_s: float
    """That it hears, each in several copies."""
    messages_per_node_s: float
    bytes_per_node_s: float
    cpu_share: float
    """Of one core, for beacons."""
    table_bytes: int
    join_bytes: int
    join_cpu_s: float
    sync_bytes_per_s: float
    """Digests, at worst: when every comparison finds a difference. Equal sets cost one digest."""
    dht_find_messages: float
    dht_find_s: float


def prices(messages_per_node_s: float, bytes_per_node_s: float, nodes: int, links: float, eager: float) -> Prices:
    """From a mesh of *nodes* at rest: what is no ping is for beacons."""
    said = beacons_per_s(nodes)
    return Prices(
        links, (messages_per_node_s - links) / said, (bytes_per_node_s - links * PING_BYTES) / said, eager - 1
    )


def beacon_period_s(nodes: int) -> float:
    """A node stretches it by what it knows, and that ends with its table."""
    return max(BASE_PERIOD_S, min(nodes, MAX_NODES) / BEACONS_PER_SECOND)


def beacons_per_s(nodes: int, intents_per_node_s: float = 0.0) -> float:
    """Said in the whole mesh, and so heard by every node: by the period, and for changes of load (a node at most one
    a second lastingly)."""
    return nodes * (1 / beacon_period_s(nodes) + min(1.0, TOLD_PER_INTENT * intents_per_node_s))


def load(nodes: int, given: Prices, intents_per_node_s: float = 0.0) -> Load:
    """Of a node in a mesh of *nodes* that all hear everything."""
    said, known = beacons_per_s(nodes, intents_per_node_s), min(nodes, MAX_NODES)
    period = beacon_period_s(nodes)
    buckets = min(MAX_BUCKETS, known / BUCKET_ITEMS)
    rounds = _dht_rounds(nodes)
    return Load(
        nodes=nodes,
        known=known,
        beacon_period_s=period,
        beacon_age_s=period / 2,
        beacons_per_s=round(said, 3),
        messages_per_node_s=round(given.links + said * given.frames_per_beacon, 2),
        bytes_per_node_s=round(given.links * PING_BYTES + said * given.bytes_per_beacon, 1),
        cpu_share=round(said * given.copies * COPY_CPU_S, 5),
        table_bytes=known * (OBJECT_BYTES + RECORD_BYTES),
        join_bytes=known * RECORD_BYTES,
        join_cpu_s=round(3 * known * RECORD_CPU_S, 2),
        sync_bytes_per_s=round(buckets * DIGEST_BYTES / (RECONCILE_S * max(1.0, known / STRETCH_ABOVE)), 1),
        dht_find_messages=DHT_FIND + rounds * DHT_ALPHA,
        dht_find_s=round(DHT_FIND_S * (1 + rounds / 2), 1),
    )


def _dht_rounds(nodes: int) -> int:
    """Rounds of a lookup beyond the two that were measured: each comes nearer by the size of a bucket (assumed)."""
    return max(0, ceil(log(max(nodes, DHT_MEASURED_NODES) / DHT_MEASURED_NODES) / log(DHT_K)))


def by_family(nodes: int, families: int, joined: int) -> int:
    """Nodes that one node hears when beacons go to topics by capability family and each node joins *joined* of
    *families* of one size: the mesh that it costs as much as."""
    return max(1, round(nodes * min(1.0, joined / families)))


@dataclass(frozen=True, slots=True)
class Limit:
    """Something that gives way as a mesh in which everybody hears everything grows."""

    what: str
    nodes: int
    """From this size on."""


AGE_S = 60.0
TABLE_BYTES = 32 * 2**20
CPU_SHARE = 0.1
BYTES_PER_S = 125_000.0
"""A megabit a second."""
INTENTS_PER_NODE_S = 0.01
LARGEST = 10**7


def limits(given: Prices) -> list[Limit]:
    """In the order in which they come."""

    def first(holds: str, above: float, intents: float = 0.0) -> int:
        low, high = 2, LARGEST
        while low < high:
            middle = (low + high) // 2
            if getattr(load(middle, given, intents), holds) > above:
                high = middle
            else:
                low = middle + 1
        return low

    busy = f"with an intent every {1 / INTENTS_PER_NODE_S:.0f} s at each node, news of load"
    found = [
        Limit(f"what a beacon says is older than {AGE_S:.0f} s on average", first("beacon_age_s", AGE_S)),
        Limit(f"{busy} takes a tenth of a core", first("cpu_share", CPU_SHARE, INTENTS_PER_NODE_S)),
        Limit(f"{busy} takes a megabit a second", first("bytes_per_node_s", BYTES_PER_S, INTENTS_PER_NODE_S)),
        Limit(f"the table takes {TABLE_BYTES >> 20} MiB", first("table_bytes", TABLE_BYTES)),
        Limit("the table is full: periods stretch no further, unknown nodes get no work", MAX_NODES),
        Limit("beacons alone take a tenth of a core", first("cpu_share", CPU_SHARE)),
        Limit("beacons alone take a megabit a second", first("bytes_per_node_s", BYTES_PER_S)),
    ]
    return sorted((each for each in found if each.nodes < LARGEST), key=lambda each: each.nodes)
