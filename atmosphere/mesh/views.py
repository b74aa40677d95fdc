"""The mesh as people and programs see it: plain values, ready for JSON."""

from __future__ import annotations

from dataclasses import dataclass

from atmosphere.identity import IssuerDirectory
from atmosphere.mesh.table import GradientTable, Node
from transports.peer_id import PeerId


@dataclass(frozen=True, slots=True)
class CapabilityRef:
    """A capability in a node's list."""

    id: str
    type: str
    model: str
    pace_ms: int = 0
    """What the node says a call takes there lately; 0: nothing."""


@dataclass(frozen=True, slots=True)
class NodeView:
    """One node: who, where, how it is, what it can do."""

    name: str
    peer_id: str
    state: str
    path: str
    rtt_ms: float | None
    load: float
    capabilities: tuple[CapabilityRef, ...]
    last_seen_s: float
    reason: str


@dataclass(frozen=True, slots=True)
class CapabilityView:
    """One capability of the mesh and the nodes that offer it now."""

    id: str
    type: str
    model: str
    description: str
    tools: tuple[str, ...]
    inputs: tuple[str, ...]
    features: tuple[str, ...]
    space: str
    nodes: tuple[tuple[str, str], ...]
    """(peer id, name) of each."""


@dataclass(frozen=True, slots=True)
class IssuerView:
    """Somebody who may issue memberships."""

    peer_id: str
    name: str
    scopes: tuple[str, ...]
    not_after: int
    appointed_by: str
    """Peer id of the issuer above, or ``owner``."""


def issuer_views(table: GradientTable, issuers: IssuerDirectory) -> tuple[IssuerView, ...]:
    """All known issuers, by name."""
    views = []
    for credential in issuers.issuers():
        node = table.nodes.get(credential.peer)
        above = credential.issuers
        views.append(
            IssuerView(
                peer_id=str(credential.peer),
                name=node.name if node is not None else credential.peer.short,
                scopes=credential.scopes,
                not_after=credential.not_after,
                appointed_by=str(above[-1]) if above else "owner",
            )
        )
    return tuple(sorted(views, key=lambda view: (view.name, view.peer_id)))


def node_views(table: GradientTable, now: float) -> tuple[NodeView, ...]:
    """All known nodes: this one first, then by name."""
    nodes = sorted(table.nodes.values(), key=lambda node: (node.peer != table.me, node.name, str(node.peer)))
    return tuple(_node_view(table, node, now) for node in nodes)


def _node_view(table: GradientTable, node: Node, now: float) -> NodeView:
    entries = node.offer.entries if node.offer else ()
    return NodeView(
        name=node.name,
        peer_id=str(node.peer),
        state=str(node.state),
        path=str(node.path),
        rtt_ms=node.rtt_ms if node.rtt_ms is None else round(node.rtt_ms, 2),
        load=node.load_permille / 1000,
        capabilities=tuple(
            CapabilityRef(
                entry.card.hex(), table.cards[entry.card].type, table.cards[entry.card].model, entry.pace_ms
            )
            for entry in entries
            if entry.card in table.cards
        ),
        last_seen_s=0.0 if node.peer == table.me else round(max(0.0, now - node.last_seen), 1),
        reason=node.reason,
    )


@dataclass(frozen=True, slots=True)
class ChangeView:
    """One entry of the table's change log."""

    number: int
    peer_id: str
    name: str
    what: str
    """``online``, ``suspect: why``, ``offline: why``, ``left: why``, or what else became known."""


def change_views(table: GradientTable, since: int) -> tuple[ChangeView, ...]:
    """The changes after number *since*, oldest first."""
    return tuple(
        ChangeView(change.number, str(change.peer), _name(table, change.peer), change.what)
        for change in table.changes
        if change.number > since
    )


def _name(table: GradientTable, peer: PeerId) -> str:
    node = table.nodes.get(peer)
    return peer.short if node is None else node.name


def capability_views(table: GradientTable) -> tuple[CapabilityView, ...]:
    """What can be routed to now, each capability once, by type and model."""
    offered: dict[bytes, list[tuple[str, str]]] = {}
    for route in table.routes():
        offered.setdefault(route.entry.card, []).append((str(route.node.peer), route.node.name))
    views = []
    for card_id, nodes in offered.items():
        card = table.cards[card_id]
        views.append(
            CapabilityView(
                id=card_id.hex(),
                type=card.type,
                model=card.model,
                description=card.description,
                tools=tuple(tool.name for tool in card.tools),
                inputs=card.inputs,
                features=card.features,
                space=card.space,
                nodes=tuple(nodes),
            )
        )
    return tuple(sorted(views, key=lambda view: (view.type, view.model, view.id)))
