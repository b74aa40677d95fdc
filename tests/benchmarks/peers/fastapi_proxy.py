"""The usual asyncio proxy, FastAPI + uvicorn (uvloop) + httpx: ``python fastapi_proxy.py PORT UPSTREAM``."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator

import httpx
import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import StreamingResponse

app = FastAPI()
client: httpx.AsyncClient


@app.get("/v1/health")
async def health() -> dict[str, str]:
    return {"status": "ok"}


@app.post("/v1/chat/completions")
async def chat(request: Request) -> Response:
    body = await request.json()
    if not body.get("stream"):
        answer = await client.post("/v1/chat/completions", json=body)
        return Response(answer.content, status_code=answer.status_code, media_type=answer.headers["content-type"])

    async def pieces() -> AsyncIterator[bytes]:
        async with client.stream("POST", "/v1/chat/completions", json=body) as answer:
            async for piece in answer.aiter_bytes():
                yield piece

    return StreamingResponse(pieces(), media_type="text/event-stream")


if __name__ == "__main__":
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=256)
    client = httpx.AsyncClient(base_url=sys.argv[2], limits=limits, timeout=60)
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="error", backlog=1024)
