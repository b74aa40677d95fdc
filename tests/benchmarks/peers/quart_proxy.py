"""The plain proxy that anybody would write first with our own libraries: ``python quart_proxy.py PORT UPSTREAM``."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator

import httpx2
import hypercorn.trio
import trio
from hypercorn.config import Config
from quart import Response, request
from quart_trio import QuartTrio

app = QuartTrio(__name__)
client: httpx2.AsyncClient


@app.get("/v1/health")
async def health() -> dict[str, str]:
    return {"status": "ok"}


@app.post("/v1/chat/completions")
async def chat() -> Response:
    body = await request.get_json()
    if not body.get("stream"):
        answer = await client.post("/v1/chat/completions", json=body)
        return Response(answer.content, status=answer.status_code, content_type=answer.headers["content-type"])

    async def pieces() -> AsyncIterator[bytes]:
        async with client.stream("POST", "/v1/chat/completions", json=body) as answer:
            async for piece in answer.aiter_bytes():
                yield piece

    return Response(pieces(), content_type="text/event-stream")


async def main(port: int, upstream: str) -> None:
    global client
    config = Config()
    config.bind = [f"127.0.0.1:{port}"]
    config.backlog = 1024
    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=256)
    async with httpx2.AsyncClient(base_url=upstream, limits=limits, timeout=60) as client:
        await hypercorn.trio.serve(app, config)


if __name__ == "__main__":
    trio.run(main, int(sys.argv[1]), sys.argv[2])
