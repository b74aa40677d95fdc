"""How the nodes of a world come to know each other before the first link is there.

What a node has said of itself is checked once, by the first node, through the door that anti-entropy uses; the others
believe it. Whether each keeps what all know in common as a copy of its own is the fidelity's choice.
"""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from atmosphere.mesh.table import Node
from protocols.sync.messages import Key, Kind, Presence, Record
from protocols.sync.summary import Summary
from transports.peer_id import PeerId

if TYPE_CHECKING:
    from simulations.world import Member

TAKE_IN = (Kind.MEMBERSHIP, Kind.BEACON, Kind.OFFER, Kind.CARD, Kind.VECTOR)
"""In this order every record finds what it rests on."""
IN_COMMON = (Kind.MEMBERSHIP, Kind.BEACON, Kind.OFFER)

K = TypeVar("K")
V = TypeVar("V")


@dataclass(frozen=True)
class Common:
    """What every node but the first begins with, and nobody changes any more."""

    nodes: dict[PeerId, Node]
    holders: dict[bytes, PeerId]
    orders: dict[PeerId, tuple[int, int]]
    records: dict[Kind, dict[bytes, bytes]]
    sizes: dict[Kind, int]
    hashes: dict[bytes, int]
    summary: Summary


def own(common: dict[K, V]) -> MutableMapping[K, V]:
    """What a node makes of something common: a copy. (The acceleration *tables* puts Shared in its place.)"""
    return dict(common)


def acquaint(members: Sequence[Member]) -> None:
    """Give every node what all nodes have to say of themselves.

    The first node takes everything in through the door that anti-entropy uses, and is believed by the others: they take
    its own records and all cards in that way too, and its table and library for the rest. (Each signature would
    otherwise be checked by each node: 0.3 ms for each pair.)
    """
    first, *others = members
    records = {kind: _said(members, kind) for kind in TAKE_IN}
    believed = {member.peer.public_key: Presence.ALIVE for member in members}
    _take_in(first, records, believed)
    announcer = first.node.announcer
    of_first = {
        **records,
        Kind.MEMBERSHIP: _only(records[Kind.MEMBERSHIP], first.identity.chain_digest),
        Kind.BEACON: _only(records[Kind.BEACON], first.peer.public_key),
        Kind.OFFER: _only(records[Kind.OFFER], announcer.offer_digest),
    }
    for member in others:
        _take_in(member, of_first, believed)
    if others:
        common = _common(first, others[0], records)
        for member in others:
            _believe(member, common)


def _said(members: Sequence[Member], kind: Kind) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = {}
    for member in members:
        library = member.node.mesh.library
        for name in list(library.keys(kind)):
            found[name] = library.get(Key(kind, name)) or b""
    return found


def _only(records: dict[bytes, bytes], name: bytes) -> dict[bytes, bytes]:
    return {name: records[name]}


def _take_in(member: Member, records: dict[Kind, dict[bytes, bytes]], believed: dict[bytes, Presence]) -> None:
    intake, library = member.node.mesh.intake, member.node.mesh.library
    for kind in TAKE_IN:
        for name, body in records[kind].items():
            if Key(kind, name) not in library:
                intake.take(Key(kind, name), Record(kind, body), None, believed)


def _common(first: Member, other: Member, records: dict[Kind, dict[bytes, bytes]]) -> Common:
    """What *first* knows; of itself what *other* knows of it."""
    table, known = first.node.table, other.node.table.nodes[first.peer]
    nodes = {node.peer: node for node in table.nodes.values() if node.beacon is not None} | {first.peer: known}
    summary = first.node.mesh.neighbours.inventory.nodes
    summary.digests(summary.buckets)  # soon all will ask for them
    hashes = dict(summary.hashes)
    return Common(
        nodes=nodes,
        holders={node.membership.serial: node.peer for node in nodes.values() if node.membership is not None},
        orders={node.peer: node.beacon.order for node in nodes.values() if node.beacon is not None},
        records={kind: records[kind] for kind in IN_COMMON},
        sizes={kind: sum(map(len, records[kind].values())) for kind in IN_COMMON},
        hashes=hashes,
        summary=summary.over(hashes),
    )


def _believe(member: Member, common: Common) -> None:
    mesh = member.node.mesh
    nodes = own(common.nodes)
    nodes[member.peer] = mesh.table.nodes[member.peer]
    mesh.table.start_from(nodes, own(common.holders))
    for kind, records in common.records.items():
        mesh.library.start_from(kind, own(records), common.sizes[kind])
    mesh.watch.detector.start_from(own(common.orders))
    mesh.neighbours.inventory.start_from(common.summary.over(own(common.hashes)))
