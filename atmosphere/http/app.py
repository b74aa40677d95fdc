"""The HTTP application: Quart for the routes that people and programs look at, plain ASGI for those that run work.

Quart costs about a quarter of a millisecond of CPU per request (contexts, signals, two tasks). So every request
passes the gate as plain ASGI, the routes of ``work.JOBS`` are answered there, and all others go on to Quart.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Awaitable, Callable
from typing import Any, cast

from quart import Response
from quart_trio import QuartTrio
from werkzeug.exceptions import HTTPException

from atmosphere.config import ConfigError
from atmosphere.http import admin, decision_log, decisions, feedback, inspection, plans, routes, trust
from atmosphere.http.access import Access
from atmosphere.http.errors import HttpError, envelope, refusal
from atmosphere.http.gate import Gate, Gone, Incoming, Message, Receive, Scope, Send, read_head, send_answer
from atmosphere.http.port import HttpNode
from atmosphere.http.work import JOBS, run_job, understand
from atmosphere.identity.api_keys import ApiKey
from atmosphere.store import disk_trouble

log = logging.getLogger(__name__)

HEALTH = "/v1/health"
"""Answers everybody, however busy the node is: it says that it lives. So it takes no body."""


class HttpApp(QuartTrio):
    """The application of one listener."""

    def __init__(self, node: HttpNode, gate: Gate, access: Access | None) -> None:
        super().__init__("atmosphere.http", static_folder=None)
        self.node = node
        self.gate = gate
        self.access = access

    async def asgi_app(self, scope: Any, receive: Any, send: Any) -> None:
        """Every message of the server comes in here. Takes no WebSockets."""
        if scope["type"] == "http":
            await self._exchange(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1000})
        else:
            await super().asgi_app(scope, receive, send)

    async def _exchange(self, scope: Scope, receive: Receive, send: Send) -> None:
        gate, method, path = self.gate, scope["method"], scope["path"]
        receive = incoming = Incoming(receive)
        head = read_head(scope["headers"], len(scope["raw_path"]) + len(scope["query_string"]))
        counted, data = False, b""
        key: ApiKey | None = None
        try:
            gate.check(method, head)
            if path != HEALTH:
                if self.access is not None:
                    key = await self.access.admit(head.authorization, _client(scope))
                gate.enter()
                counted = True
                data = await gate.read_body(head, receive)
            if path in JOBS:
                if method != "POST":
                    raise HttpError(405, "this route takes POST", "method_not_allowed", headers=((b"allow", b"POST"),))
                began = self.node.env.monotonic()
                job = understand(path, data)
                await run_job(self.node, job, key, receive, send, began, gate.limits.leave_s)
            else:
                scope[plans.KEY] = key
                await super().asgi_app(cast(Any, scope), cast(Any, _replay(data, receive)), cast(Any, send))
        except HttpError as error:
            gate.refused += 1
            await gate.drain(incoming)
            refused = decisions.systemone_refusal if path == decisions.SYSTEMONE else refusal
            await send_answer(send, refused(error))
        except Gone:
            return
        finally:
            if counted:
                gate.leave(len(data))


def create_app(node: HttpNode, gate: Gate, access: Access | None = None) -> HttpApp:
    """The application of one listener. Without *access* it is the control socket's and has the owner's routes."""
    app = HttpApp(node, gate, access)
    app.config["MAX_CONTENT_LENGTH"] = app.gate.limits.body_bytes
    app.config["RESPONSE_TIMEOUT"] = None  # 60 s by default, which cuts long answers
    app.config["BODY_TIMEOUT"] = None      # the gate has read the body before Quart sees the request
    app.config["PROVIDE_AUTOMATIC_OPTIONS"] = False  # no preflight is ever granted
    app.url_map.merge_slashes = False  # else a path with two in a row is answered with a page that names another
    app.json.sort_keys = False  # type: ignore[attr-defined]
    app.register_blueprint(routes.create(node))
    app.register_blueprint(feedback.create(node))
    app.register_blueprint(plans.create(node, sees_all=access is None))
    if access is None:
        app.register_blueprint(admin.create(node))
        app.register_blueprint(trust.create(node))
        app.register_blueprint(inspection.create(node))
        app.register_blueprint(decision_log.create(node))
    app.register_error_handler(HttpError, _refused)
    app.register_error_handler(HTTPException, _http_exception)
    app.register_error_handler(ConfigError, _bad_settings)
    app.register_error_handler(OSError, _disk_refused)
    app.register_error_handler(sqlite3.OperationalError, _disk_refused)
    return app


def _client(scope: Scope) -> str:
    client = scope.get("client")
    return str(client[0]) if client else ""


async def _refused(error: HttpError) -> Response:
    answer = refusal(error)
    response = Response(answer.body, status=answer.status, content_type="application/json")
    for name, value in answer.headers:
        response.headers[name.decode()] = value.decode()
    return response


async def _bad_settings(error: ConfigError) -> Response:
    """Somebody edited config.yaml while the node ran."""
    return await _refused(HttpError(409, str(error), "bad_settings"))


async def _disk_refused(error: Exception) -> Response:
    """A full disk is no bug. Nothing was done: what must be kept is on disk before it counts."""
    why = disk_trouble(error)
    if not why:
        raise error
    log.warning("the disk refuses: %s", why)
    return await _refused(HttpError(507, f"this node cannot write to its disk ({why}), so this was not done; "
                                    "make room, or check who owns its folder, and try again", "disk_refused"))


async def _http_exception(error: HTTPException) -> Response:
    """Quart's own refusals (404, 405, 500) in OpenAI's envelope."""
    status = error.code or 500
    message = {
        404: "there is no such route; this node has /v1/models, /v1/chat/completions, /v1/completions, "
             "/v1/embeddings, /v1/systemone, /v1/decisions, /v1/health, /v1/mesh/nodes, /v1/mesh/capabilities, "
             "/v1/mesh/route, /v1/mesh/feedback, /v1/tools/call, /v1/plans",
        405: "this route does not take this method",
        500: "a bug in this node; its log has the details",
    }.get(status, error.description or error.name)
    code = {404: "route_not_found", 405: "method_not_allowed"}.get(status, "internal" if status >= 500 else "refused")
    response = Response(envelope(status, message, code), status=status, content_type="application/json")
    allowed = getattr(error, "valid_methods", None)
    if allowed:
        response.headers["Allow"] = ", ".join(sorted(allowed))
    return response


def _replay(data: bytes, receive: Receive) -> Callable[[], Awaitable[Message]]:
    """A receive that gives the body that was read already, then what comes after it."""
    given = False

    async def replayed() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": data, "more_body": False}

    return replayed
