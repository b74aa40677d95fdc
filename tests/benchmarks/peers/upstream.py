"""An OpenAI-compatible server that costs next to nothing, so that it is not what the shim benchmark measures.

``python upstream.py PORT``. One answer, prepared; streamed when the body asks for it: 20 chunks, usage, ``[DONE]``.
"""

from __future__ import annotations

import asyncio
import json
import sys

MODEL = "bench-chat"


def _answer(status: str, kind: str, body: bytes) -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def _chunk(content: str) -> bytes:
    choice = {"index": 0, "delta": {"content": content}, "finish_reason": None}
    chunk = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": MODEL, "choices": [choice]}
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


MESSAGE = {"role": "assistant", "content": "It is sunny in Berlin, with a light wind from the west. " * 4}
CHAT = _answer("200 OK", "application/json", json.dumps(
    {"id": "c", "object": "chat.completion", "created": 1, "model": MODEL,
     "choices": [{"index": 0, "message": MESSAGE, "finish_reason": "stop"}],
     "usage": {"prompt_tokens": 10, "completion_tokens": 40, "total_tokens": 50}}).encode())
MODELS = _answer("200 OK", "application/json", json.dumps(
    {"object": "list", "data": [{"id": MODEL, "object": "model", "created": 1, "owned_by": "bench"}]}).encode())
STREAM = [_chunk(f" word{number}") for number in range(20)] + [b"data: [DONE]\n\n"]
STREAM_BYTES = (b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
                + b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in STREAM) + b"0\r\n\r\n")
UNKNOWN = _answer("404 Not Found", "application/json", b'{"error": {"message": "no such route"}}')


class Upstream(asyncio.Protocol):
    """Keep-alive HTTP/1.1 with a Content-Length on every request body."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.buffer = b""

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while True:
            head, found, rest = self.buffer.partition(b"\r\n\r\n")
            if not found:
                return
            length = 0
            for line in head.split(b"\r\n")[1:]:
                if line[:15].lower() == b"content-length:":
                    length = int(line[15:])
            if len(rest) < length:
                return
            body, self.buffer = rest[:length], rest[length:]
            self.transport.write(self.answer(head, body))  # type: ignore[attr-defined]

    def answer(self, head: bytes, body: bytes) -> bytes:
        if b"/chat/completions" in head[:80]:
            return STREAM_BYTES if b'"stream": true' in body or b'"stream":true' in body else CHAT
        return MODELS if b"/v1/models" in head[:80] else UNKNOWN


async def main(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Upstream, "127.0.0.1", port, backlog=1024)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
