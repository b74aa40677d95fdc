"""Values of the node as the JSON that the API promises."""

from __future__ import annotations

import dataclasses
from typing import Any

from atmosphere.http.port import HttpNode
from atmosphere.routing.decision import Candidate, Decision, Refused
from atmosphere.routing.intent import AUTO
from atmosphere.routing.models import same_model

OWNER = "atmosphere"


def decision_view(decision: Decision) -> dict[str, Any]:
    """What was decided and why; ``chosen`` is null when nobody can, ``probability`` where meaning decided nothing."""
    chosen = decision.chosen
    return {
        "chosen": None if chosen is None else _candidate(chosen),
        "candidates": [
            {**_candidate(candidate), "model": candidate.card.model, "path": candidate.path,
             "rtt_ms": candidate.rtt_ms, "factors": dict(candidate.factors)}
            for candidate in decision.candidates
        ],
        "more": decision.more,
        "filtered": dict(decision.filtered),
        "missing": decision.missing,
        "probability": None if decision.right is None or decision.somebody is None else {
            "right": round(decision.right, 3), "somebody": round(decision.somebody, 3)
        },
        "doubt": decision.doubt,
        "second": decision.second,
        "ms": round(decision.elapsed_ms, 3),
    }


def refused_view(refused: Refused) -> dict[str, Any]:
    """One pair that was filtered out."""
    return {"peer_id": str(refused.peer), "name": refused.node_name, "capability": refused.card_id.hex(),
            "type": refused.type, "model": refused.model, "filter": refused.filter}


def _candidate(candidate: Candidate) -> dict[str, Any]:
    return {"peer_id": str(candidate.peer), "name": candidate.node_name, "capability": candidate.card_id.hex(),
            "type": candidate.card.type, "score": candidate.score}


def models_view(node: HttpNode) -> list[dict[str, Any]]:
    """The models that can be routed to now with the aliases of those, then the capability names, then ``auto``."""
    created = int(node.started_at)
    types: dict[str, set[str]] = {}
    for capability in node.capabilities():
        if capability.model:
            types.setdefault(capability.model, set()).add(capability.type)
    named = dict(types)
    for alias, targets in node.config.aliases.items():
        kinds = {kind for name, found in types.items() if any(same_model(target, name) for target in targets)
                 for kind in found}
        if kinds:
            named[alias] = kinds
    views = [_model(name, created, sorted(kinds)) for name, kinds in sorted(named.items())]
    views += [_model(name, created, sorted(kinds)) for name, kinds in sorted(node.levels().items())
              if name not in named]
    return [*views, _model(AUTO, created, [])]


def _model(name: str, created: int, types: list[str]) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": created, "owned_by": OWNER, "atmosphere": {"types": types}}


def plain(value: Any) -> Any:
    """A frozen view as JSON values."""
    return dataclasses.asdict(value) if dataclasses.is_dataclass(value) and not isinstance(value, type) else value
