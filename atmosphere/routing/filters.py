"""Hard filters: what a candidate must have. Each takes a (node, card) pair out or leaves it; none ranks.

The order is the order of the explanation: the first filter that takes a pair out is the one that is counted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from atmosphere.mesh.table import Path, Route
from atmosphere.routing.intent import Intent
from atmosphere.routing.models import same_model

Passes = Callable[[Intent, Route], bool]


class Filter(NamedTuple):
    """A named condition and what to tell somebody when nothing passed it."""

    name: str
    passes: Passes
    hint: str


def _tool(intent: Intent, route: Route) -> bool:
    return intent.tool is None or any(tool.name == intent.tool for tool in route.card.tools)


def _type(intent: Intent, route: Route) -> bool:
    wanted = intent.constraints.type
    if wanted is None:
        return True
    return route.card.type.startswith(wanted[:-1]) if wanted.endswith("/*") else route.card.type == wanted


def _model(intent: Intent, route: Route) -> bool:
    return not intent.names_model or any(same_model(asked, route.card.model) for asked in intent.models)


def _card(intent: Intent, route: Route) -> bool:
    wanted = intent.constraints.card
    return wanted is None or route.entry.card.hex().startswith(wanted.lower())


def _node(intent: Intent, route: Route) -> bool:
    wanted = intent.constraints.node
    return (wanted is None or route.node.peer == wanted) and route.node.peer not in intent.constraints.exclude


def _local(intent: Intent, route: Route) -> bool:
    return not intent.constraints.local_only or route.node.path is Path.LOCAL


def _labels(intent: Intent, route: Route) -> bool:
    return intent.constraints.labels <= set(route.entry.labels)


def _latency(intent: Intent, route: Route) -> bool:
    limit = intent.constraints.max_latency_ms
    if limit is None or route.node.path is Path.LOCAL:
        return True
    return route.node.rtt_ms is not None and route.node.rtt_ms <= limit


def _modality(intent: Intent, route: Route) -> bool:
    return intent.inputs <= set(route.card.inputs)


def _feature(intent: Intent, route: Route) -> bool:
    return intent.features <= set(route.card.features)


def _context(intent: Intent, route: Route) -> bool:
    known = route.card.context_tokens
    return not known or known >= intent.constraints.min_context_tokens


def _space(intent: Intent, route: Route) -> bool:
    return intent.constraints.space is None or route.card.space == intent.constraints.space


FILTERS: tuple[Filter, ...] = (
    Filter("tool", _tool, "no node offers a tool of that name"),
    Filter("type", _type, "no node offers that capability type"),
    Filter("model", _model, "no node serves that model now"),
    Filter("card", _card, "no node offers that capability now"),
    Filter("node", _node, "the node that was asked for cannot do it"),
    Filter("local_only", _local, "this node itself cannot do it, and local_only was asked"),
    Filter("labels", _labels, "no capable node carries every label that was asked for"),
    Filter("max_latency_ms", _latency, "every capable node is farther away than max_latency_ms, or not measured yet"),
    Filter("modality", _modality, "no capable model takes that kind of input"),
    Filter("feature", _feature, "no capable model supports what the request uses (tools, JSON schema ...)"),
    Filter("context", _context, "every capable model's context is too short"),
    Filter("space", _space, "no node embeds into that vector space"),
)
