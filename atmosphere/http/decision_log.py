"""How this node decided lately, and what work costs here; for its owner, on the control socket."""

from __future__ import annotations

from typing import Any

from quart import Blueprint, Response, request

from atmosphere.http.errors import HttpError, invalid
from atmosphere.http.port import HttpNode
from atmosphere.http.routes import answer
from atmosphere.http.views import decision_view, plain, refused_view
from atmosphere.routing.decision import DECISIONS_KEPT, Decided

DEFAULT_LIMIT = 50
RECOMPUTED = 1000
"""Candidates, and pairs that were filtered out, of a decision that is made again."""


def create(node: HttpNode) -> Blueprint:
    """The blueprint for *node*."""
    blueprint = Blueprint("decisions", __name__, url_prefix="/v1/admin")

    @blueprint.get("/decisions")
    async def decisions() -> Response:
        """``?limit=50``: the last decisions that were acted on, the newest first; 1,000 are kept."""
        latest = node.decisions.latest(_limit())
        return answer({"decisions": [_summary(entry) for entry in latest], "kept": len(node.decisions)})

    @blueprint.get("/decisions/<request_id>")
    async def decision(request_id: str) -> Response:
        """One decision as it was made: the best few candidates with every factor, counts per filter. With
        ``?recompute=yes`` also as it would be made now: all candidates, and what stopped every other pair."""
        entry = node.decisions.get(request_id.lower())
        if entry is None:
            raise HttpError(404, f"no request {request_id[:40]!r} among the last {len(node.decisions)} that this node "
                            "routed; GET /v1/admin/decisions lists them", "request_not_found", "request_id")
        view = {**_summary(entry), "decision": decision_view(entry.decision)}
        if request.args.get("recompute") == "yes":
            now, refused = await node.explain(entry.decision.intent, RECOMPUTED)
            view["now"] = {**decision_view(now), "refused": [refused_view(one) for one in refused]}
        return answer(view)

    @blueprint.get("/cost")
    async def cost() -> Response:
        """What work on this node costs now, factor by factor, and what it asks for its capabilities."""
        return answer(plain(node.cost_view()))

    return blueprint


def _limit() -> int:
    text = request.args.get("limit", str(DEFAULT_LIMIT))
    if not text.isdecimal() or not 1 <= int(text) <= DECISIONS_KEPT:
        raise invalid(f"'limit' must be a number from 1 to {DECISIONS_KEPT}", "limit")
    return int(text)


def _summary(entry: Decided) -> dict[str, Any]:
    decision, ran = entry.decision, entry.ran
    intent = decision.intent
    return {
        "request_id": entry.request,
        "at": entry.at,
        "tool": intent.tool,
        "model": intent.model,
        "level": intent.level,
        "text": intent.text,
        "outcome": entry.outcome,
        "failed_before": entry.tried,
        "peer_id": None if ran is None else str(ran.peer),
        "name": None if ran is None else ran.node_name,
        "path": None if ran is None else ran.path,
        "capability": None if ran is None else ran.card_id.hex(),
        "served_model": None if ran is None else ran.card.model,
        "score": None if ran is None else ran.score,
        "feedback": entry.feedback,
        "ms": round(decision.elapsed_ms, 3),
    }
