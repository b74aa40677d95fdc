"""Stands in for an OpenAI-compatible server (llama.cpp's llama-server, vLLM, LM Studio).

Follows the OpenAI API reference (chat completions, completions, embeddings, models; streaming as server-sent events
with ``data: [DONE]``, the usage chunk of ``stream_options.include_usage``, tool-call deltas, the error envelope) and
what those servers add to ``/v1/models``. The answer is ``TOKENS`` words ``NAME-0 NAME-1 ...``, one per delta.

    python -m tests.backends.openai_server --port P --model NAME --token-delay-ms N --tokens N

Words in the last user message (or prompt) that make it misbehave: ``[[status 429]]``; ``[[break after 3]]`` closes the
connection after three tokens; ``[[end after 3]]`` ends the body there in good order, without a finish; ``[[error after
3]]`` sends an error event; ``[[hang]]`` never answers; ``[[no done]]`` finishes without [DONE]; ``[[tool]]`` calls the
first tool. With ``continues`` a chat whose last message is the assistant's goes on where that ends, if and only if
``continue_final_message`` is true and ``add_generation_prompt`` false, as vLLM does; a prompt always goes on.
``GET /_log`` tells what was asked, how many tokens were generated and how many clients left early.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import re
import struct
from dataclasses import dataclass
from typing import Any

import trio

from tests.backends.http_server import BreakConnection, Log, Reply, Request, note, run

DIMENSIONS = 8


@dataclass
class OpenAIServer:
    """The handler; its fields may be changed while it runs."""

    model: str = "tiny"
    tokens: int = 5
    token_delay_s: float = 0.0
    embed_model: str = ""
    key: str = ""
    extra: dict[str, Any] | None = None
    """More fields of the model's entry in /v1/models."""
    headers: dict[str, str] | None = None
    continues: bool = False
    """It knows vLLM's ``continue_final_message``; a server that does not ignores it."""
    embed_delay_s: float = 0.0

    async def __call__(self, request: Request, reply: Reply, log: Log) -> None:
        if self.key and request.headers.get("authorization") != f"Bearer {self.key}":
            await reply.json(error("Incorrect API key provided", "invalid_request_error", "invalid_api_key"), 401)
        elif (request.method, request.path) == ("GET", "/v1/models"):
            log.polls += 1
            names = [name for name in (self.model, self.embed_model) if name]
            data = [
                {"id": name, "object": "model", "created": 1700000000, "owned_by": "test"}
                | ((self.extra or {}) if name == self.model else {})
                for name in names
            ]
            await reply.json({"object": "list", "data": data}, headers=self.headers)
        elif request.method == "POST" and request.path in ROUTES:
            note(log, request)
            body = request.json()
            if not isinstance(body, dict):
                await reply.json(error("We could not parse the JSON body of your request."), 400)
                return
            await ROUTES[request.path](self, body, reply, log)
        else:
            log.polls += 1
            await reply.json(error(f"Invalid URL ({request.method} {request.path})"), 404)

    async def chat(self, body: dict[str, Any], reply: Reply, log: Log) -> None:
        messages = body.get("messages")
        if not isinstance(messages, list) or not messages:
            await reply.json(error("'messages' is a required property"), 400)
            return
        users = [message for message in messages if message.get("role") == "user"]
        said = ""
        if self.continues and body.get("continue_final_message"):
            if body.get("add_generation_prompt", True):
                both = "Cannot set both `continue_final_message` and `add_generation_prompt` to True."
                await reply.json(error(both, "BadRequestError"), 400)
                return
            said = text_of(messages[-1])
        await self._generate(body, text_of(users[-1]) if users else "", reply, log, chat=True, said=said)

    async def complete(self, body: dict[str, Any], reply: Reply, log: Log) -> None:
        if "prompt" not in body:
            await reply.json(error("'prompt' is a required property"), 400)
            return
        await self._generate(body, str(body["prompt"]), reply, log, chat=False)

    async def _generate(self, body: dict[str, Any], prompt: str, reply: Reply, log: Log, *, chat: bool,
                        said: str = "") -> None:
        if found := re.search(r"\[\[status (\d+)\]\]", prompt):
            status = int(found[1])
            headers = {"retry-after": "2"} if status in (429, 503) else None
            await reply.json(error(f"asked for {status}", "test_error"), status, headers)
            return
        if "[[hang]]" in prompt:
            await trio.sleep_forever()
        limit = body.get("max_completion_tokens") or body.get("max_tokens") or self.tokens
        rest = after([f"{self.model}-{n} " for n in range(self.tokens)], said if chat else prompt)
        words = rest[:limit]
        finish = "length" if limit < len(rest) else "stop"
        call = None
        if chat and body.get("tools") and ("[[tool]]" in prompt or body.get("tool_choice") == "required"):
            words, finish = ['{"city":', ' "Oslo"}'], "tool_calls"
            call = {"id": "call_1", "type": "function", "function": {"name": body["tools"][0]["function"]["name"]}}
        elif chat and (body.get("response_format") or {}).get("type") in ("json_object", "json_schema"):
            words = ['{"ok":', " true}"]
        usage = {"prompt_tokens": len(prompt.split()), "completion_tokens": len(words)}
        usage["total_tokens"] = sum(usage.values())
        if not body.get("stream"):
            for _ in words:
                await trio.sleep(self.token_delay_s)
                log.generated += 1
            text = "".join(words)
            message: dict[str, Any] = {"role": "assistant", "content": text}
            if call:
                function = {**call["function"], "arguments": text}
                message = {"role": "assistant", "content": None, "tool_calls": [{**call, "function": function}]}
            choice = {"index": 0, "finish_reason": finish} | ({"message": message} if chat else {"text": text})
            await reply.json(self._object(chat, False) | {"choices": [choice], "usage": usage})
            return
        await reply.start(200, "text/event-stream; charset=utf-8", {"cache-control": "no-cache"})
        stop = re.search(r"\[\[(break|end|error) after (\d+)\]\]", prompt)

        async def event(choices: list[dict[str, Any]], **more: Any) -> None:
            chunk = self._object(chat, True) | {"choices": choices} | more
            await reply.send(b"data: " + json.dumps(chunk).encode() + b"\n\n")

        for n, word in enumerate(words):
            if stop and n == int(stop[2]):
                if stop[1] == "break":
                    raise BreakConnection
                if stop[1] == "error":
                    await reply.send(b"data: " + json.dumps(error("out of memory", "server_error")).encode() + b"\n\n")
                await reply.end()
                return
            await trio.sleep(self.token_delay_s)
            log.generated += 1
            if call:
                piece = {"index": 0, "function": {"arguments": word}}
                if n == 0:
                    piece |= {"id": call["id"], "type": "function", "function": {**call["function"], "arguments": word}}
                delta: dict[str, Any] = {"delta": {"role": "assistant", "tool_calls": [piece]}}
            else:
                delta = {"delta": {"role": "assistant", "content": word}} if chat else {"text": word}
            await event([{"index": 0, "finish_reason": None} | delta])
        await event([{"index": 0, "finish_reason": finish} | ({"delta": {}} if chat else {"text": ""})])
        if (body.get("stream_options") or {}).get("include_usage"):
            await event([], usage=usage)
        if "[[no done]]" not in prompt:
            await reply.send(b"data: [DONE]\n\n")
        await reply.end()

    def _object(self, chat: bool, stream: bool) -> dict[str, Any]:
        kind = ("chat.completion.chunk" if stream else "chat.completion") if chat else "text_completion"
        return {"id": "cmpl-1", "object": kind, "created": 1700000000, "model": self.model}

    async def embed(self, body: dict[str, Any], reply: Reply, log: Log) -> None:
        inputs = body.get("input")
        inputs = [inputs] if isinstance(inputs, str) else inputs
        if not isinstance(inputs, list) or not inputs:
            await reply.json(error("'input' is a required property"), 400)
            return
        await trio.sleep(self.embed_delay_s)
        data = []
        for n, text in enumerate(inputs):
            log.generated += 1
            vector: Any = vector_of(str(text))
            if body.get("encoding_format") == "base64":
                vector = base64.b64encode(struct.pack(f"<{DIMENSIONS}f", *vector)).decode()
            data.append({"object": "embedding", "index": n, "embedding": vector})
        usage = {"prompt_tokens": len(inputs), "total_tokens": len(inputs)}
        await reply.json({"object": "list", "data": data, "model": self.embed_model, "usage": usage})


ROUTES = {
    "/v1/chat/completions": OpenAIServer.chat,
    "/v1/completions": OpenAIServer.complete,
    "/v1/embeddings": OpenAIServer.embed,
}


def error(message: str, kind: str = "invalid_request_error", code: str | None = None) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def after(words: list[str], said: str) -> list[str]:
    """What is left of an answer when *said* ends with its beginning; all of it when it does not."""
    for count in range(len(words), 0, -1):
        if said.endswith("".join(words[:count])):
            return words[count:]
    return words


def text_of(message: dict[str, Any]) -> str:
    content = message.get("content")
    if isinstance(content, list):
        return " ".join(part.get("text", "") for part in content)
    return str(content or "")


def vector_of(text: str) -> list[float]:
    """A fixed direction per text."""
    return [byte / 255 for byte in hashlib.sha256(text.encode()).digest()[:DIMENSIONS]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--embed-model", default="", help="also offer this embedding model")
    parser.add_argument("--embed-delay-ms", type=float, default=0, help="how long an embedding takes")
    parser.add_argument("--tokens", type=int, default=5)
    parser.add_argument("--token-delay-ms", type=float, default=0)
    parser.add_argument("--key", default="", help="demand this API key")
    parser.add_argument("--continues", action="store_true", help="know continue_final_message, as vLLM does")
    run(lambda o: OpenAIServer(o.model, o.tokens, o.token_delay_ms / 1000, o.embed_model, o.key,
                               continues=o.continues, embed_delay_s=o.embed_delay_ms / 1000), parser)


if __name__ == "__main__":
    main()
