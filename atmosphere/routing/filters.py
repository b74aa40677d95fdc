"""Hard filters: what a candidate must have. Each takes a (node, card) pair out or leaves it; none ranks.

The order is the order of the explanation: the first filter that takes a pair out is the one that is counted. Only the
filters that an intent asks something of are run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from atmosphere.config import RoutingConfig
from atmosphere.identity import IdentityError, Membership
from atmosphere.identity.scopes import CALL
from atmosphere.mesh.table import Path, Route
from atmosphere.routing.intent import Intent
from atmosphere.routing.models import same_model

GPU = "gpu"
"""The label of a node that has a GPU."""


@dataclass(frozen=True, slots=True)
class Policy:
    """What the owner of this node wants of everything that is sent from here, whoever asked."""

    stay: frozenset[str] = frozenset()
    """Capability types, exact or families (``knowledge/*``), whose work never leaves this node."""
    never: frozenset[str] = frozenset()
    """Peer ids of nodes that get no work from here."""
    labels: frozenset[str] = frozenset()
    """Labels that every other node must carry (``site:home``)."""
    avoid_labels: frozenset[str] = frozenset()
    """Labels that no other node may carry (``cloud``)."""
    max_price_micros: int | None = None
    """The dearest offer of another node that may be used."""

    def allows(self, route: Route) -> bool:
        """Whether work may go to *route*. This node itself is always allowed."""
        if route.node.path is Path.LOCAL:
            return True
        labels = set(route.entry.labels)
        return (
            not any(of_type(kind, route.card.type) for kind in self.stay)
            and route.node.peer.text not in self.never
            and self.labels <= labels
            and not self.avoid_labels & labels
            and (self.max_price_micros is None or route.entry.price_micros <= self.max_price_micros)
        )


FREE = Policy()


def policy_of(settings: RoutingConfig) -> Policy:
    """The policy that the settings ask for."""
    return Policy(
        frozenset(settings.stay), frozenset(settings.never), frozenset(settings.labels),
        frozenset(settings.avoid_labels), settings.max_price_micros,
    )


@dataclass(frozen=True, slots=True)
class Asker:
    """Who decides: what this node's owner allows, and what its membership lets it ask of others."""

    policy: Policy = field(default_factory=Policy)
    membership: Membership | None = None
    """None: not known; the other node will say."""


Passes = Callable[[Intent, Route, Asker], bool]


class Filter(NamedTuple):
    """A named condition and what to tell somebody when nothing passed it."""

    name: str
    passes: Passes
    engaged: Callable[[Intent, Asker], bool]
    """Whether the intent asks anything of it: it is not run where not."""
    hint: str


def of_type(wanted: str, kind: str) -> bool:
    """Whether *kind* is the type *wanted*, or of the family that *wanted* (``llm/*``) is."""
    return kind.startswith(wanted[:-1]) if wanted.endswith("/*") else kind == wanted


def _tool(intent: Intent, route: Route, asker: Asker) -> bool:
    return any(tool.name == intent.tool for tool in route.card.tools)


def _type(intent: Intent, route: Route, asker: Asker) -> bool:
    return of_type(intent.constraints.type or "", route.card.type)


def _model(intent: Intent, route: Route, asker: Asker) -> bool:
    return any(same_model(asked, route.card.model) for asked in intent.models)


def _card(intent: Intent, route: Route, asker: Asker) -> bool:
    return route.entry.card.hex().startswith((intent.constraints.card or "").lower())


def _node(intent: Intent, route: Route, asker: Asker) -> bool:
    wanted = intent.constraints.node
    return (wanted is None or route.node.peer == wanted) and route.node.peer not in intent.constraints.exclude


def _scope(intent: Intent, route: Route, asker: Asker) -> bool:
    if route.node.path is Path.LOCAL or asker.membership is None:
        return True
    try:
        return asker.membership.allows(f"call:{route.card.type}")
    except IdentityError:  # a type too long for a scope: the other node could not check it either
        return False


def _policy(intent: Intent, route: Route, asker: Asker) -> bool:
    return asker.policy.allows(route)


def _local(intent: Intent, route: Route, asker: Asker) -> bool:
    return route.node.path is Path.LOCAL


def _labels(intent: Intent, route: Route, asker: Asker) -> bool:
    labels = set(route.entry.labels)
    return intent.constraints.labels <= labels and not intent.constraints.avoid_labels & labels


def _gpu(intent: Intent, route: Route, asker: Asker) -> bool:
    return GPU in route.entry.labels


def _latency(intent: Intent, route: Route, asker: Asker) -> bool:
    limit = intent.constraints.max_latency_ms
    if limit is None or route.node.path is Path.LOCAL:
        return True
    return route.node.rtt_ms is not None and route.node.rtt_ms <= limit


def _modality(intent: Intent, route: Route, asker: Asker) -> bool:
    return intent.inputs <= set(route.card.inputs)


def _feature(intent: Intent, route: Route, asker: Asker) -> bool:
    return intent.features <= set(route.card.features)


def _context(intent: Intent, route: Route, asker: Asker) -> bool:
    known = route.card.context_tokens
    return not known or known >= max(intent.constraints.min_context_tokens, intent.tokens)


def _space(intent: Intent, route: Route, asker: Asker) -> bool:
    return route.card.space == intent.constraints.space


FILTERS: tuple[Filter, ...] = (
    Filter("tool", _tool, lambda i, _: i.tool is not None, "no node offers a tool of that name"),
    Filter("type", _type, lambda i, _: i.constraints.type is not None, "no node offers that capability type"),
    Filter("model", _model, lambda i, _: i.names_model, "no node serves that model now"),
    Filter("card", _card, lambda i, _: i.constraints.card is not None, "no node offers that capability now"),
    Filter("node", _node, lambda i, _: i.constraints.node is not None or bool(i.constraints.exclude),
           "the node that was asked for cannot do it"),
    Filter("scope", _scope, lambda _, asker: asker.membership is not None and not asker.membership.allows(CALL),
           "this node's membership does not cover calls of that type on other nodes; `atmosphere-p2p status` shows its "
           "scopes, an issuer can grant more"),
    Filter("owner_policy", _policy, lambda _, asker: asker.policy != FREE,
           "the settings under `routing:` of this node's config.yaml keep that work from every node that could do it"),
    Filter("local_only", _local, lambda i, _: i.constraints.local_only,
           "this node itself cannot do it, and local_only was asked"),
    Filter("labels", _labels, lambda i, _: bool(i.constraints.labels or i.constraints.avoid_labels),
           "no capable node carries every label that was asked for and none that was to be avoided"),
    Filter("gpu_required", _gpu, lambda i, _: i.constraints.gpu_required, "no capable node says that it has a GPU"),
    Filter("max_latency_ms", _latency, lambda i, _: i.constraints.max_latency_ms is not None,
           "every capable node is farther away than max_latency_ms, or not measured yet"),
    Filter("modality", _modality, lambda i, _: bool(i.inputs), "no capable model takes that kind of input"),
    Filter("feature", _feature, lambda i, _: bool(i.features),
           "no capable model supports what the request uses (tools, JSON schema ...)"),
    Filter("context", _context, lambda i, _: bool(i.constraints.min_context_tokens or i.tokens),
           "every capable model's context is too short"),
    Filter("space", _space, lambda i, _: i.constraints.space is not None, "no node embeds into that vector space"),
)


class Sieve:
    """The filters that one intent engages, in their order."""

    def __init__(self, intent: Intent, asker: Asker) -> None:
        self._intent, self._asker = intent, asker
        self._filters = [(item.name, item.passes) for item in FILTERS if item.engaged(intent, asker)]

    def __repr__(self) -> str:
        return f"<Sieve {', '.join(name for name, _ in self._filters)}>"

    def stops(self, route: Route) -> str | None:
        """The name of the first filter that takes *route* out; None: it passes."""
        intent, asker = self._intent, self._asker
        for name, passes in self._filters:
            if not passes(intent, route, asker):
                return name
        return None

    def sift(self, routes: Iterable[Route]) -> tuple[list[Route], dict[str, int]]:
        """Those of *routes* that pass, and how many each filter took out, in the order of the filters."""
        passed: list[Route] = []
        stopped: Counter[str] = Counter()
        for route in routes:
            name = self.stops(route)
            if name is None:
                passed.append(route)
            else:
                stopped[name] += 1
        return passed, self.in_order(stopped)

    def in_order(self, stopped: Mapping[str, int]) -> dict[str, int]:
        """How many each filter took out, in the order of the filters, without those that took out none."""
        return {name: stopped[name] for name, _ in self._filters if stopped[name]}
