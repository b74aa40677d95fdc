"""The owner's routes about trust: issuers, revocation, who waits to be let in, API keys, the audit log.

On the control socket only, like those of ``admin.py``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from quart import Blueprint, Response, request

from atmosphere.audit import MAX_QUERY, AuditKind
from atmosphere.http.errors import HttpError, invalid
from atmosphere.http.port import HttpNode
from atmosphere.http.requests import Body, only, peer, positive, required, text, texts
from atmosphere.http.routes import answer, read_object
from atmosphere.http.views import plain
from atmosphere.identity import IdentityError, Reason
from atmosphere.identity.api_keys import ApiKeyError
from atmosphere.identity.revocation import Target

ISSUER_S = 365 * 24 * 3600.0
"""How long an issuer is one unless told otherwise."""
CALLS = ("call:*",)
_NOT_YOURS = frozenset({Reason.FORBIDDEN, Reason.ABOVE_REVOKER, Reason.WIDENED_SCOPE, Reason.NOT_ISSUER})


def create(node: HttpNode) -> Blueprint:
    """The blueprint for *node*."""
    blueprint = Blueprint("trust", __name__, url_prefix="/v1/admin")

    @blueprint.get("/issuers")
    async def issuers() -> Response:
        return answer({"issuers": [plain(view) for view in node.issuers()]})

    @blueprint.post("/issuers")
    async def appoint() -> Response:
        body = await read_object()
        only(body, "peer", "scopes", "expires_s")
        who, scopes = peer(required(body, "peer"), "peer"), texts(body, "scopes")
        if not scopes:
            raise invalid("'scopes' is missing: a list of what the issuer may hand on, like "
                          '["call:*", "serve", "invite"]', "scopes")
        with identity_errors():
            await node.appoint_issuer(who, scopes, positive(body, "expires_s") or ISSUER_S)
        return answer({"appointed": str(who)})

    @blueprint.post("/revoke")
    async def revoke() -> Response:
        body = await read_object()
        only(body, "peer", "membership", "issuer", "reason")
        kind, target = _target(body)
        with identity_errors():
            await node.revoke(kind, target, text(body, "reason") or "")
        return answer({"revoked": body[kind.name.lower()]})

    @blueprint.get("/join-requests")
    async def join_requests() -> Response:
        return answer({"requests": [_join_request(waiting) for waiting in node.join_requests()]})

    @blueprint.post("/join-requests")
    async def decide() -> Response:
        body = await read_object()
        only(body, "peer", "approve")
        who = peer(required(body, "peer"), "peer")
        if not isinstance(body.get("approve"), bool):
            raise invalid("'approve' must be true or false", "approve")
        if all(waiting.peer != who for waiting in node.join_requests()):
            raise HttpError(404, f"{who} does not wait to be let in; GET /v1/admin/join-requests lists those who do",
                            "request_not_found", "peer")
        with identity_errors():
            await node.decide_join(who, body["approve"])
        return answer({"peer": str(who), "approved": body["approve"]})

    @blueprint.get("/keys")
    async def keys() -> Response:
        return answer({"keys": [plain(key) for key in await node.env.run_blocking(node.api_keys.list)]})

    @blueprint.post("/keys")
    async def add_key() -> Response:
        body = await read_object()
        only(body, "name", "scopes")
        name, scopes = required(body, "name"), texts(body, "scopes") or CALLS
        try:
            key = await node.env.run_blocking(lambda: node.api_keys.create(name, scopes))
        except ApiKeyError as error:
            raise invalid(str(error)) from error
        return answer({"key": key, "id": key.split("_")[1], "name": name, "scopes": list(scopes)})

    @blueprint.delete("/keys")
    async def revoke_key() -> Response:
        body = await read_object()
        only(body, "id")
        key_id = required(body, "id")
        try:
            await node.env.run_blocking(lambda: node.api_keys.revoke(key_id))
        except ApiKeyError as error:
            raise HttpError(404, str(error), "key_not_found", "id") from error
        return answer({"revoked": key_id})

    @blueprint.get("/audit")
    async def audit() -> Response:
        asked = dict(request.args)
        only(asked, "since", "kind", "limit")
        entries = await node.audit.query(_number(asked, "since"), _kind(asked), int(_number(asked, "limit", 100)))
        return answer({"entries": [plain(entry) for entry in entries]})

    return blueprint


@contextmanager
def identity_errors() -> Iterator[None]:
    """A refusal of the identity room as an answer whose code is its reason."""
    try:
        yield
    except IdentityError as error:
        raise HttpError(403 if error.reason in _NOT_YOURS else 409, str(error), error.reason) from error


def _target(body: Body) -> tuple[Target, bytes]:
    named = [kind for kind in Target if kind.name.lower() in body]
    if len(named) != 1:
        raise invalid("name one of 'peer', 'issuer' (a peer id) and 'membership' (its serial in hex)")
    field = named[0].name.lower()
    value = required(body, field)
    if named[0] is not Target.MEMBERSHIP:
        return named[0], peer(value, field).public_key
    try:
        return named[0], bytes.fromhex(value)
    except ValueError:
        raise invalid("'membership' must be its serial in hex; `atmosphere-p2p auth show` prints it",
                      "membership") from None


def _join_request(waiting: Any) -> dict[str, Any]:
    return {"peer_id": str(waiting.peer), "name": waiting.name, "asked_at": waiting.asked_at,
            "invite": waiting.invite_id.hex(), "state": waiting.state}


def _number(asked: dict[str, str], name: str, default: float = 0.0) -> float:
    try:
        value = float(asked.get(name, default))
    except ValueError:
        value = -1.0
    most = MAX_QUERY if name == "limit" else 1e12
    if not 0 <= value <= most:  # not a number fails too
        raise invalid(f"'{name}' must be a number from 0 to {most:g}", name)
    return value


def _kind(asked: dict[str, str]) -> AuditKind | None:
    if not asked.get("kind"):
        return None
    try:
        return AuditKind(asked["kind"])
    except ValueError:
        raise invalid(f"'kind' must be one of {', '.join(AuditKind)}", "kind") from None
