"""What people say of answers: it moves the scores of who gave them."""

from __future__ import annotations

from typing import Any

from quart import Blueprint, Response

from atmosphere.capabilities.card import short_id
from atmosphere.http.errors import HttpError, invalid
from atmosphere.http.port import HttpNode
from atmosphere.http.requests import MIN_CARD_PREFIX, Body, only, required
from atmosphere.http.routes import answer, read_object
from atmosphere.routing.decision import Decided

GOOD, BAD = "good", "bad"


def create(node: HttpNode) -> Blueprint:
    """The blueprint for *node*."""
    blueprint = Blueprint("feedback", __name__)

    @blueprint.post("/v1/mesh/feedback")
    async def feedback() -> Response:
        """``{request_id, good}``: the answer to that request was good, or bad. Whoever knows the id may say so, once;
        saying the opposite later counts as well."""
        body = await read_object()
        only(body, "request_id", "good")
        good = _verdict(body)
        entry = _answered(node, required(body, "request_id"))
        ran = entry.ran
        assert ran is not None
        word = GOOD if good else BAD
        opinion: float | None = None
        if entry.feedback != word:
            entry.feedback = word
            node.router.told(entry.decision, ran.card_id, good)
            opinion = round(await node.judge(ran.peer, ran.card_id, good), 4)
        return answer(_view(entry, opinion))

    return blueprint


def _verdict(body: Body) -> bool:
    good = body.get("good")
    if not isinstance(good, bool):
        raise invalid("'good' is missing: true if the answer was good, false if it was bad", "good")
    return good


def _answered(node: HttpNode, request: str) -> Decided:
    """The decision of a request that somebody answered. Raises HttpError."""
    if len(request) < MIN_CARD_PREFIX:
        raise invalid(f"'request_id' must be the header x-atmosphere-request-id, or its first {MIN_CARD_PREFIX} or "
                      "more digits", "request_id")
    entry = node.decisions.get(request.lower())
    if entry is None:
        raise HttpError(404, f"no request {request[:40]!r} among the last that this node routed; the answer's header "
                        "x-atmosphere-request-id names it", "request_not_found", "request_id")
    if entry.ran is None:
        raise HttpError(409, f"request {entry.request} was not answered by anybody ({entry.outcome or 'not yet'})",
                        "not_answered", "request_id")
    return entry


def _view(entry: Decided, opinion: float | None) -> dict[str, Any]:
    """*opinion*: what it is now; None: it had been said before."""
    ran = entry.ran
    assert ran is not None
    return {"request_id": entry.request, "feedback": entry.feedback, "counted": opinion is not None,
            "peer_id": str(ran.peer), "name": ran.node_name, "capability": short_id(ran.card_id),
            "model": ran.card.model, "opinion": opinion}
