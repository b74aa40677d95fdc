"""The routes that look at the mesh: models, health, nodes, capabilities, the dry run."""

from __future__ import annotations

import json
from typing import Any

from quart import Blueprint, Response, request

import atmosphere
from atmosphere.http import intents
from atmosphere.http.errors import HttpError
from atmosphere.http.port import HttpNode
from atmosphere.http.requests import Body, flag, only, parse_body, take_extension
from atmosphere.http.views import decision_view, models_view, plain, refused_view

ALL = 1000
"""Candidates, and pairs that were filtered out, when all are asked for."""


def answer(value: Any, status: int = 200) -> Response:
    """*value* as a JSON answer."""
    return Response(json.dumps(value), status=status, content_type="application/json")


async def read_object() -> Body:
    """The body of the current request as a JSON object; an empty body is an empty object."""
    data = await request.get_data(as_text=False)
    return parse_body(bytes(data)) if isinstance(data, bytes) and data else {}


def create(node: HttpNode) -> Blueprint:
    """The blueprint for *node*."""
    blueprint = Blueprint("mesh", __name__)

    @blueprint.get("/v1/models")
    async def models() -> Response:
        return answer({"object": "list", "data": models_view(node)})

    @blueprint.get("/v1/models/<path:name>")
    async def model(name: str) -> Response:
        for view in models_view(node):
            if view["id"] == name:
                return answer(view)
        raise HttpError(404, f"no model {name[:100]!r} can be reached now; GET /v1/models lists those that can",
                        "model_not_found", "model")

    @blueprint.get("/v1/health")
    async def health() -> Response:
        marker = {"version": atmosphere.__version__, "peer_id": str(node.peer_id), "name": node.name,
                  "mesh_id": node.mesh_id}
        return answer({"status": "ok", "atmosphere": marker})

    @blueprint.get("/v1/mesh/nodes")
    async def nodes() -> Response:
        return answer({"nodes": [plain(view) for view in node.status().nodes]})

    @blueprint.get("/v1/mesh/capabilities")
    async def capabilities() -> Response:
        return answer({"capabilities": [_capability(view) for view in node.capabilities()]})

    @blueprint.post("/v1/mesh/route")
    async def route() -> Response:
        body = await read_object()
        extension = take_extension(body)
        only(body, "intent", "model", "type", "all")
        intent = intents.dry_run(body, extension)
        if not flag(body, "all"):
            return answer(decision_view(await node.router.decide(intent)))
        decision, refused = await node.explain(intent, ALL)
        return answer({**decision_view(decision), "refused": [refused_view(one) for one in refused]})

    return blueprint


def _capability(view: Any) -> dict[str, Any]:
    value: dict[str, Any] = plain(view)
    value["nodes"] = [{"peer_id": peer_id, "name": name} for peer_id, name in view.nodes]
    return value
