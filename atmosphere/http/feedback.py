"""What people say of answers: it moves the scores of who gave them, and where intents like that go."""

from __future__ import annotations

from typing import Any, cast

from quart import Blueprint, Response, request

from atmosphere.capabilities.card import short_id
from atmosphere.http.errors import HttpError, invalid
from atmosphere.http.plans import KEY
from atmosphere.http.port import HttpNode
from atmosphere.http.requests import MIN_CARD_PREFIX, Body, card_id, only, required, text
from atmosphere.http.routes import answer, read_object
from atmosphere.identity.api_keys import ApiKey
from atmosphere.routing.decision import Decided
from transports.peer_id import PeerId

GOOD, BAD = "good", "bad"


def create(node: HttpNode) -> Blueprint:
    """The blueprint for *node*."""
    blueprint = Blueprint("feedback", __name__)

    @blueprint.post("/v1/mesh/feedback")
    async def feedback() -> Response:
        """``{request_id, good, instead}``: the answer to that request was good, or bad; then the card *instead* would
        have been right. Whoever knows the id may say so, once; saying the opposite later counts as well. Only who may
        call everything teaches the router: a key for some types must not decide where the owner's intents go."""
        body = await read_object()
        only(body, "request_id", "good", "instead")
        good = _verdict(body)
        entry = _answered(node, required(body, "request_id"))
        right = _instead(node, body, good)
        ran = entry.ran
        assert ran is not None
        taught = False
        key = cast("ApiKey | None", request.scope.get(KEY))
        if key is None or key.may_call_all:
            taught = await node.teach(entry.decision, ran.peer, ran.card_id, good)
            if right is not None:
                await node.teach(entry.decision, *right, True)
        word = GOOD if good else BAD
        opinion: float | None = None
        if entry.feedback != word:
            entry.feedback = word
            node.router.told(entry.decision, ran.card_id, good)
            opinion = round(await node.judge(ran.peer, ran.card_id, good), 4)
        return answer({**_view(entry, opinion), "taught": taught})

    return blueprint


def _verdict(body: Body) -> bool:
    good = body.get("good")
    if not isinstance(good, bool):
        raise invalid("'good' is missing: true if the answer was good, false if it was bad", "good")
    return good


def _instead(node: HttpNode, body: Body, good: bool) -> tuple[PeerId, bytes] | None:
    """The card that would have been right, and a node that offers it. Raises HttpError."""
    named = text(body, "instead")
    if named is None:
        return None
    if good:
        raise invalid("'instead' goes with a bad answer: the answer was good, so nothing else was right", "instead")
    digits = card_id(named, "instead")
    found = [one for one in node.capabilities() if one.id.startswith(digits) and one.nodes]
    if len(found) != 1:
        raise HttpError(404, f"{'several cards begin' if found else 'no card now begins'} with {digits}; "
                        "GET /v1/mesh/capabilities lists them", "capability_not_found", "instead")
    return PeerId.parse(found[0].nodes[0][0]), bytes.fromhex(found[0].id)


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
