"""Stands in for Ollama (its daemon cannot be installed in a test).

Follows Ollama's API documentation (docs/api.md: version, tags, show, chat, generate, embed; since 0.35 systemone for
models with the capability ``decision``; NDJSON streams, durations in nanoseconds, ``{"error": ...}``) and the types of
its Python client 0.6.3. It is strict where Go's decoder is: a
content that is no string, tool arguments that are no object, images that are no base64 are answered with 400. Like the
daemon it also has ``/v1/models``. A chat whose last message is the assistant's goes on where that ends.

    python -m tests.backends.ollama_server --port P --token-delay-ms N --tokens N

Misbehaves on the words that ``openai_server`` knows: status, break after, end after, error after, hang, tool.
"""

from __future__ import annotations

import argparse
import base64
import binascii
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import trio

from tests.backends.decision_server import DecisionServer
from tests.backends.http_server import BreakConnection, Log, Reply, Request, note, run
from tests.backends.openai_server import after, vector_of

CREATED = "2025-10-17T23:14:07.414671123Z"


@dataclass
class Model:
    name: str
    capabilities: tuple[str, ...]
    family: str = "llama"
    context: int = 4096
    dimensions: int = 8


DEFAULT_MODELS = (
    Model("llama3.2:latest", ("completion", "tools")),
    Model("llava:7b", ("completion", "vision")),
    Model("nomic-embed-text:latest", ("embedding",), "nomic-bert", 2048),
)


@dataclass
class OllamaServer:
    """The handler; its fields may be changed while it runs."""

    models: tuple[Model, ...] = DEFAULT_MODELS
    tokens: int = 5
    token_delay_s: float = 0.0
    shows: list[str] = field(default_factory=list)

    async def __call__(self, request: Request, reply: Reply, log: Log) -> None:
        match request.method, request.path:
            case "GET", "/":
                await reply.bytes(b"Ollama is running")
            case "GET", "/api/version":
                log.polls += 1
                await reply.json({"version": "0.12.6"})
            case "GET", "/api/tags":
                log.polls += 1
                await reply.json({"models": [self._tag(model) for model in self.models]})
            case "GET", "/v1/models":
                log.polls += 1
                data = [{"id": m.name, "object": "model", "created": 0, "owned_by": "library"} for m in self.models]
                await reply.json({"object": "list", "data": data})
            case "POST", path if path in ROUTES:
                await self._post(ROUTES[path], request, reply, log)
            case _:
                log.polls += 1
                await reply.bytes(b"404 page not found", 404)

    async def _post(self, route: Callable[..., Any], request: Request, reply: Reply, log: Log) -> None:
        if request.path == "/api/show":
            log.polls += 1
        else:
            note(log, request)
        body = request.json()
        if not isinstance(body, dict):
            await reply.json({"error": "invalid character"}, 400)
            return
        model = next((model for model in self.models if model.name == body.get("model")), None)
        if model is None:
            await reply.json({"error": f"model '{body.get('model')}' not found"}, 404)
            return
        if problem := complaint(body):
            await reply.json({"error": problem}, 400)
            return
        await route(self, model, body, reply, log)

    def _tag(self, model: Model) -> dict[str, Any]:
        return {
            "name": model.name, "model": model.name, "modified_at": CREATED, "size": 1000, "digest": "d" * 64,
            "details": {"parent_model": "", "format": "gguf", "family": model.family, "families": [model.family],
                        "parameter_size": "3.2B", "quantization_level": "Q4_K_M"},
        }

    async def show(self, model: Model, body: dict[str, Any], reply: Reply, log: Log) -> None:
        self.shows.append(model.name)
        await reply.json({
            "modelfile": "", "template": "", "details": self._tag(model)["details"], "modified_at": CREATED,
            "model_info": {"general.architecture": model.family, f"{model.family}.context_length": model.context,
                           f"{model.family}.embedding_length": model.dimensions},
            "capabilities": list(model.capabilities),
        })

    async def chat(self, model: Model, body: dict[str, Any], reply: Reply, log: Log) -> None:
        if body.get("tools") and "tools" not in model.capabilities:
            await reply.json({"error": f"{model.name} does not support tools"}, 400)
            return
        prompt = next((m["content"] for m in reversed(body["messages"]) if m["role"] == "user"), "")
        call = None
        if body.get("tools") and "[[tool]]" in prompt:
            call = {"function": {"name": body["tools"][0]["function"]["name"], "arguments": {"city": "Oslo"}}}
        last = body["messages"][-1]
        said = last["content"] if last["role"] == "assistant" else ""
        await self._generate(model, body, prompt, reply, log, call, said=said)

    async def generate(self, model: Model, body: dict[str, Any], reply: Reply, log: Log) -> None:
        await self._generate(model, body, body.get("prompt", ""), reply, log, None, chat=False)

    async def _generate(
        self, model: Model, body: dict[str, Any], prompt: str, reply: Reply, log: Log,
        call: dict[str, Any] | None, *, chat: bool = True, said: str = "",
    ) -> None:
        if "completion" not in model.capabilities:
            await reply.json({"error": f'"{model.name}" does not support {"chat" if chat else "generate"}'}, 400)
            return
        if found := re.search(r"\[\[status (\d+)\]\]", prompt):
            await reply.json({"error": f"asked for {found[1]}"}, int(found[1]))
            return
        if "[[hang]]" in prompt:
            await trio.sleep_forever()
        limit = body.get("options", {}).get("num_predict", self.tokens)
        rest = after([f"{model.name}-{n} " for n in range(self.tokens)], said if chat else prompt)
        words = rest[:limit]
        if body.get("format"):
            words = ['{"ok":', " true}"]
        last = {
            "done": True, "done_reason": "length" if limit < len(rest) else "stop", "total_duration": 5_000_000,
            "load_duration": 1_000_000, "prompt_eval_count": len(prompt.split()), "prompt_eval_duration": 1_000_000,
            "eval_count": len(words), "eval_duration": 3_000_000,
        }

        def line(text: str, **more: Any) -> dict[str, Any]:
            message = {"role": "assistant", "content": text} | ({"tool_calls": more.pop("calls")} if "calls" in more
                                                                else {})
            content = {"message": message} if chat else {"response": text}
            return {"model": model.name, "created_at": CREATED} | content | ({"done": False} | more)

        if body.get("stream") is False:
            for _ in words:
                await trio.sleep(self.token_delay_s)
                log.generated += 1
            await reply.json(line("", calls=[call], **last) if call else line("".join(words), **last))
            return
        await reply.start(200, "application/x-ndjson")
        stop = re.search(r"\[\[(break|end|error) after (\d+)\]\]", prompt)
        for n, word in enumerate(words):
            if stop and n == int(stop[2]):
                if stop[1] == "break":
                    raise BreakConnection
                if stop[1] == "error":
                    await reply.send(b'{"error": "out of memory"}\n')
                await reply.end()
                return
            await trio.sleep(self.token_delay_s)
            log.generated += 1
            if call:
                await reply.send(json.dumps(line("", calls=[call])).encode() + b"\n")
                break
            await reply.send(json.dumps(line(word)).encode() + b"\n")
        await reply.send(json.dumps(line("", **last)).encode() + b"\n")
        await reply.end()

    async def embed(self, model: Model, body: dict[str, Any], reply: Reply, log: Log) -> None:
        inputs = body.get("input")
        inputs = [inputs] if isinstance(inputs, str) else inputs
        if not isinstance(inputs, list) or not all(isinstance(text, str) for text in inputs):
            await reply.json({"error": "invalid input type"}, 400)
            return
        vectors = [vector_of(text)[: body.get("dimensions") or model.dimensions] for text in inputs]
        log.generated += len(vectors)
        await reply.json({"model": model.name, "embeddings": vectors, "total_duration": 1, "load_duration": 1,
                          "prompt_eval_count": len(inputs)})


    async def decide(self, model: Model, body: dict[str, Any], reply: Reply, log: Log) -> None:
        if "decision" not in model.capabilities:
            await reply.json({"error": f'"{model.name}" does not support decision'}, 400)
            return
        decider = DecisionServer(model=model.name)
        answers = {name: decider.answer(body["state"], question) for name, question in body["questions"].items()}
        usage = {"input_tokens": 10, "output_tokens": 0}
        await reply.json({"model": model.name, "answers": answers, "usage": usage})


ROUTES = {
    "/api/show": OllamaServer.show,
    "/api/chat": OllamaServer.chat,
    "/api/generate": OllamaServer.generate,
    "/api/embed": OllamaServer.embed,
    "/v1/systemone": OllamaServer.decide,
}


def complaint(body: dict[str, Any]) -> str:
    """What Go's strict decoder would say about *body*; empty when it is well formed."""
    options = body.get("options", {})
    for name in ("num_predict", "seed", "top_k"):
        if name in options and not isinstance(options[name], int):
            return f"option {name} must be of type integer"
    if "stop" in options and not isinstance(options["stop"], list):
        return "option stop must be of type array"
    for message in body.get("messages", []):
        if not isinstance(message.get("content", ""), str):
            return "json: cannot unmarshal array into Go struct field ChatRequest.messages of type string"
        for call in message.get("tool_calls", []):
            if not isinstance(call["function"].get("arguments"), dict):
                return "json: cannot unmarshal string into Go struct field of type api.ToolCallFunctionArguments"
    images = [image for message in [body, *body.get("messages", [])] for image in message.get("images", [])]
    for image in images:
        try:
            base64.b64decode(image, validate=True)
        except (binascii.Error, ValueError):
            return "illegal base64 data"
    return ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=5)
    parser.add_argument("--token-delay-ms", type=float, default=0)
    run(lambda o: OllamaServer(tokens=o.tokens, token_delay_s=o.token_delay_ms / 1000), parser)


if __name__ == "__main__":
    main()
