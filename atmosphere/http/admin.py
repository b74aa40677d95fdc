"""The owner's routes. They exist on the control socket only: its mode 0600 is the check of who asks."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

from quart import Blueprint, Response

from atmosphere import config
from atmosphere.config import BackendConfig, ConfigError
from atmosphere.http.errors import HttpError, invalid
from atmosphere.http.port import HttpNode
from atmosphere.http.requests import flag, only, positive, required, text, texts
from atmosphere.http.routes import answer, read_object
from atmosphere.http.views import plain
from atmosphere.identity import IdentityError
from atmosphere.knowledge import KnowledgeError

DEFAULT_EXPIRES_S = 3600.0
KINDS = ("openai", "ollama")


def create(node: HttpNode) -> Blueprint:
    """The blueprint for *node*."""
    blueprint = Blueprint("admin", __name__, url_prefix="/v1/admin")

    @blueprint.get("/status")
    async def status() -> Response:
        return answer(plain(node.status()))

    @blueprint.post("/invite")
    async def invite() -> Response:
        body = await read_object()
        only(body, "uses", "expires_s", "approval", "offline", "scopes")
        uses = body.get("uses", 1)
        if not isinstance(uses, int) or isinstance(uses, bool) or uses < 1:
            raise invalid("'uses' must be a whole number of at least 1", "uses")
        expires_s = positive(body, "expires_s") or DEFAULT_EXPIRES_S
        try:
            invitation = node.create_invite(uses, expires_s, approval=flag(body, "approval"),
                                            offline=flag(body, "offline"), scopes=texts(body, "scopes") or None)
        except (IdentityError, ValueError) as error:
            raise HttpError(409, str(error), "cannot_invite") from error
        return answer({"invite": invitation, "expires_at": node.env.now() + expires_s, "uses": uses})

    @blueprint.post("/stop")
    async def stop() -> Response:
        node.stop_requested.set()
        return answer({"stopping": True})

    @blueprint.post("/leave")
    async def leave() -> Response:
        await node.leave()
        return answer({"left": True})

    @blueprint.get("/knowledge")
    async def list_knowledge() -> Response:
        return answer({"folders": [plain(folder) for folder in await node.list_knowledge()]})

    @blueprint.post("/knowledge")
    async def add_knowledge() -> Response:
        body = await read_object()
        only(body, "path")
        path = Path(required(body, "path"))
        if not path.is_absolute():
            raise invalid("'path' must be absolute: the node runs in another folder than you", "path")
        try:
            report = await node.add_knowledge(path)
        except (KnowledgeError, OSError, ValueError) as error:
            raise invalid(f"{path} cannot be indexed: {error}", "path") from error
        return answer(plain(report))

    @blueprint.get("/backends")
    async def backends() -> Response:
        return answer({"backends": [plain(view) for view in node.backends()]})

    @blueprint.post("/backends")
    async def add_backend() -> Response:
        body = await read_object()
        only(body, "url", "kind", "key_env", "continuation", "price_micros", "labels")
        kind = text(body, "kind") or KINDS[0]
        if kind not in KINDS:
            raise invalid(f"'kind' must be one of {', '.join(KINDS)}", "kind")
        price = body.get("price_micros", 0)
        if not isinstance(price, int) or isinstance(price, bool) or price < 0:
            raise invalid("'price_micros' must be a whole number of at least 0", "price_micros")
        backend = BackendConfig(required(body, "url"), kind, text(body, "key_env"), flag(body, "continuation"), price,
                                texts(body, "labels"))
        if any(known.url == backend.url for known in config.load(node.home).backends):
            raise HttpError(409, f"{backend.url} is a backend of this node already; to change it, remove it first",
                            "backend_exists", "url")
        try:
            await node.add_backend(backend)
        except (ConfigError, ValueError) as error:
            raise invalid(str(error), "url") from error
        _keep(node.home, lambda kept: (*kept, backend))
        return answer({"added": backend.url})

    @blueprint.delete("/backends")
    async def remove_backend() -> Response:
        body = await read_object()
        only(body, "url")
        url = required(body, "url")
        if all(known.url != url for known in config.load(node.home).backends):
            raise HttpError(404, f"{url} is not in config.yaml; GET /v1/admin/backends lists the backends",
                            "backend_not_found", "url")
        await node.remove_backend(url)
        _keep(node.home, lambda kept: tuple(known for known in kept if known.url != url))
        return answer({"removed": url})

    return blueprint


def _keep(home: Path, change: Callable[[tuple[BackendConfig, ...]], tuple[BackendConfig, ...]]) -> None:
    """Write the changed list of backends to config.yaml; a few hundred bytes, so not in a thread."""
    settings = config.load(home)
    config.save(home, dataclasses.replace(settings, backends=change(settings.backends)))
