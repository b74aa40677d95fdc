"""What the node saw and what it holds, for its owner: the table's change log, and counters. On the control socket."""

from __future__ import annotations

from quart import Blueprint, Response, request

from atmosphere.http.errors import invalid
from atmosphere.http.port import HttpNode
from atmosphere.http.routes import answer
from atmosphere.http.views import plain


def create(node: HttpNode) -> Blueprint:
    """The blueprint for *node*."""
    blueprint = Blueprint("inspection", __name__, url_prefix="/v1/admin")

    @blueprint.get("/changes")
    async def changes() -> Response:
        """``?since=N``: what changed after change N, oldest first; the log keeps the last 1,024."""
        since = request.args.get("since", "0")
        if not since.isdecimal():
            raise invalid("'since' must be the number of a change, 0 for all that are kept", "since")
        return answer({"changes": [plain(view) for view in node.changes(int(since))]})

    @blueprint.get("/statistics")
    async def statistics() -> Response:
        return answer(plain(node.statistics()))

    return blueprint
