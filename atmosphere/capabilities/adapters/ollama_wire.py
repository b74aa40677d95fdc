"""OpenAI's wire to Ollama's and back: pure functions, no I/O.

Requests. Translated: messages (text and ``data:`` images, tool calls and results), tools, stream, response_format,
reasoning_effort (``think``), logprobs, and the sampling options of :data:`_OPTIONS`. Ollama's own fields ``options``,
``keep_alive``, ``think``, ``format``, ``raw``, ``template`` and ``truncate`` pass through. Refused as invalid, because
leaving them out would change the answer's meaning: ``n`` above 1, a forced ``tool_choice``, images by http URL, audio
and file parts, token arrays. Ignored, as Ollama's own OpenAI endpoint does: everything else (``user``, ``metadata``,
``logit_bias``, ``parallel_tool_calls``, ``service_tier``, ...).
"""

from __future__ import annotations

import base64
import json
import struct
from datetime import datetime
from typing import Any

from protocols.call.errors import CallError, Code

JsonObject = dict[str, Any]

_OPTIONS = {
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "min_p": "min_p",
    "seed": "seed",
    "max_tokens": "num_predict",
    "max_completion_tokens": "num_predict",  # after max_tokens: the newer name wins
    "frequency_penalty": "frequency_penalty",
    "presence_penalty": "presence_penalty",
    "repeat_penalty": "repeat_penalty",
    "num_ctx": "num_ctx",
}
_PASSED = ("keep_alive", "think", "format", "logprobs", "top_logprobs")
_FINISH = {"length": "length", "stop": "stop"}  # load and unload end an answer in good order as well: "stop"


def _invalid(message: str) -> CallError:
    return CallError(Code.INVALID, message)


# Requests


def chat_request(body: JsonObject, model: str) -> JsonObject:
    """The body of /api/chat for the OpenAI chat *body*. Raises :class:`CallError` (invalid)."""
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise _invalid("'messages' must be a list with at least one message")
    request = _common(body, model)
    request["messages"] = _messages(messages)
    choice = body.get("tool_choice")
    if body.get("tools") and choice != "none":
        if choice not in (None, "auto"):
            raise _invalid("Ollama cannot be forced to call a tool; use tool_choice 'auto', or another backend")
        request["tools"] = body["tools"]
    return request


def generate_request(body: JsonObject, model: str) -> JsonObject:
    """The body of /api/generate for the OpenAI completions *body*."""
    prompt = body.get("prompt", "")
    if isinstance(prompt, list) and len(prompt) == 1:
        prompt = prompt[0]
    if not isinstance(prompt, str):
        raise _invalid("'prompt' must be one text; Ollama takes neither token arrays nor several prompts at once")
    if body.get("echo") or (body.get("best_of") or 1) != 1:
        raise _invalid("Ollama has neither 'echo' nor 'best_of'; leave them out")
    request = _common(body, model)
    request["prompt"] = prompt
    request |= {name: body[name] for name in ("suffix", "system", "template", "raw", "images") if body.get(name)}
    return request


def embed_request(body: JsonObject, model: str) -> JsonObject:
    """The body of /api/embed for the OpenAI embeddings *body*."""
    texts = body.get("input")
    texts = [texts] if isinstance(texts, str) else texts
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        raise _invalid("'input' must be a text or a list of texts; token arrays belong to another model's tokenizer")
    request: JsonObject = {"model": model, "input": texts}
    request |= {name: body[name] for name in ("dimensions", "keep_alive", "options", "truncate") if name in body}
    return request


def _common(body: JsonObject, model: str) -> JsonObject:
    if (body.get("n") or 1) != 1:
        raise _invalid("Ollama gives one answer per request; ask with n = 1")
    given = body.get("options")
    options: JsonObject = dict(given) if isinstance(given, dict) else {}
    for name, theirs in _OPTIONS.items():
        if body.get(name) is not None:
            options[theirs] = body[name]
    stop = body.get("stop")
    if stop:
        options["stop"] = [stop] if isinstance(stop, str) else stop
    request: JsonObject = {"model": model, "stream": bool(body.get("stream"))}
    if options:
        request["options"] = options
    request |= {name: body[name] for name in _PASSED if body.get(name) is not None}
    effort = body.get("reasoning_effort")
    if effort is not None and "think" not in request:
        request["think"] = False if effort == "none" else effort
    wanted = body.get("response_format")
    kind = wanted.get("type") if isinstance(wanted, dict) else None
    if kind == "json_object":
        request["format"] = "json"
    elif kind == "json_schema":
        described = wanted.get("json_schema") if isinstance(wanted, dict) else None
        schema = described.get("schema") if isinstance(described, dict) else None
        if not isinstance(schema, dict):
            raise _invalid("response_format 'json_schema' needs json_schema.schema, an object")
        request["format"] = schema
    elif wanted is not None and kind != "text":
        raise _invalid(f"response_format {kind!r} is not known; use text, json_object or json_schema")
    return request


def _messages(messages: list[Any]) -> list[JsonObject]:
    names: dict[str, str] = {}  # tool call id -> function, because Ollama's tool results name the function
    translated = []
    for message in messages:
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise _invalid("every message must be an object with a 'role'")
        role = message["role"]
        text, images = _content(message.get("content"))
        result: JsonObject = {"role": "system" if role == "developer" else role, "content": text}
        if images:
            result["images"] = images
        reasoning = message.get("reasoning") or message.get("reasoning_content")
        if isinstance(reasoning, str):
            result["thinking"] = reasoning
        if message.get("tool_calls"):
            result["tool_calls"] = [_tool_call(call, names) for call in message["tool_calls"]]
        if role == "tool":
            identity = str(message.get("tool_call_id", ""))
            result["tool_call_id"] = identity
            name = message.get("name") or names.get(identity)
            if name:
                result["tool_name"] = name
        translated.append(result)
    return translated


def _content(content: Any) -> tuple[str, list[str]]:
    """(text, base64 images) of a message's content."""
    if content is None or isinstance(content, str):
        return content or "", []
    if not isinstance(content, list):
        raise _invalid("a message's 'content' must be a text or a list of parts")
    texts, images = [], []
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind in ("text", "refusal"):
            texts.append(str(part.get(kind, "")))
        elif kind == "image_url":
            images.append(_image(part.get("image_url")))
        else:
            raise _invalid(f"Ollama takes text and images; a part of type {kind!r} cannot be sent to it")
    return "\n".join(texts), images


def _image(image: Any) -> str:
    url = image.get("url") if isinstance(image, dict) else image
    head, comma, data = url.partition(",") if isinstance(url, str) else ("", "", "")
    if not comma or not head.startswith("data:") or not head.endswith(";base64"):
        raise _invalid("an image must be a data: URL in base64 (data:image/png;base64,...); send its bytes")
    return data


def _tool_call(call: Any, names: dict[str, str]) -> JsonObject:
    try:
        name, arguments = call["function"]["name"], call["function"].get("arguments") or "{}"
        parsed = json.loads(arguments) if isinstance(arguments, str) else arguments
        if not isinstance(parsed, dict):
            raise TypeError("no object")
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
        raise _invalid(f"a tool call needs function.name and function.arguments, a JSON object: {error}") from None
    result: JsonObject = {"function": {"name": name, "arguments": parsed}}
    if call.get("id"):
        names[call["id"]] = name
        result["id"] = call["id"]
    return result


# Answers


class AnswerWriter:
    """Turns the parts of one Ollama answer into OpenAI objects: chunks of a stream, or the whole.

    Pure and deterministic: ids derive from *identity*, the time from Ollama's own ``created_at``.
    """

    def __init__(self, model: str, identity: str, *, chat: bool, usage: bool) -> None:
        """*usage*: end the stream with a usage chunk (``stream_options.include_usage``)."""
        self.done = False
        """Whether the last part has been seen."""
        self._model, self._chat, self._usage = model, chat, usage
        self._id = f"{'chatcmpl' if chat else 'cmpl'}-{identity}"
        self._calls = 0
        self._first = True

    def chunks(self, part: JsonObject) -> list[JsonObject]:
        """The chunks for one line of the NDJSON stream."""
        self.done = bool(part.get("done"))
        delta = self._delta(part, stream=True)
        if self._first and self._chat:
            delta = {"role": "assistant", **delta}
        chunks = []
        if delta or self._first or self.done:
            self._first = False
            choice: JsonObject = {"index": 0, "finish_reason": self._finish(part) if self.done else None}
            choice |= {"delta": delta} if self._chat else {"text": delta.get("content", "")}
            chunks.append(self._object(part, "chat.completion.chunk", choice, part))
        if self.done and self._usage:
            chunks.append({**self._head(part, "chat.completion.chunk"), "choices": [], "usage": usage(part)})
        return chunks

    def whole(self, part: JsonObject) -> JsonObject:
        """The OpenAI object for an answer that was not streamed. Raises ValueError when it holds none."""
        expected = "message" if self._chat else "response"
        if expected not in part:
            raise ValueError(f"no {expected!r} in the answer")
        self.done = bool(part.get("done"))
        content = self._delta(part, stream=False)
        choice: JsonObject = {"index": 0, "finish_reason": self._finish(part)}
        if self._chat:
            text = content.pop("content", "" if "tool_calls" not in content else None)
            choice["message"] = {"role": "assistant", "content": text, **content}
        else:
            choice["text"] = content.get("content", "")
        return {**self._object(part, "chat.completion", choice, part), "usage": usage(part)}

    def _delta(self, part: JsonObject, *, stream: bool) -> JsonObject:
        if not self._chat:
            return {"content": part["response"]} if part.get("response") else {}
        message = part.get("message") or {}
        delta: JsonObject = {}
        if message.get("content"):
            delta["content"] = message["content"]
        if message.get("thinking"):
            delta["reasoning"] = message["thinking"]  # the name that Ollama's own OpenAI endpoint uses
        calls = []
        for call in message.get("tool_calls") or []:
            function = call.get("function") or {}
            calls.append(
                ({"index": self._calls} if stream else {})
                | {
                    "id": call.get("id") or f"call_{self._id.partition('-')[2]}_{self._calls}",
                    "type": "function",
                    "function": {
                        "name": function.get("name", ""),
                        "arguments": json.dumps(function.get("arguments") or {}, ensure_ascii=False),
                    },
                }
            )
            self._calls += 1
        if calls:
            delta["tool_calls"] = calls
        return delta

    def _finish(self, part: JsonObject) -> str:
        if self._calls:
            return "tool_calls"
        return _FINISH.get(str(part.get("done_reason")), "stop")

    def _object(self, part: JsonObject, kind: str, choice: JsonObject, source: JsonObject) -> JsonObject:
        if source.get("logprobs"):
            choice["logprobs"] = {"content": source["logprobs"]}
        return {**self._head(part, kind), "choices": [choice]}

    def _head(self, part: JsonObject, kind: str) -> JsonObject:
        return {
            "id": self._id,
            "object": kind if self._chat else "text_completion",
            "created": created(part),
            "model": self._model,
        }


def usage(part: JsonObject) -> JsonObject:
    """Token counts of a finished answer."""
    prompt, completion = int(part.get("prompt_eval_count") or 0), int(part.get("eval_count") or 0)
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def created(part: JsonObject) -> int:
    """Ollama's ``created_at`` in Unix seconds; 0 when it is absent or unreadable."""
    try:
        return int(datetime.fromisoformat(str(part.get("created_at"))).timestamp())
    except (ValueError, OverflowError):
        return 0


def embed_answer(answer: JsonObject, model: str, encoding: str) -> JsonObject:
    """The OpenAI embeddings object; *encoding* ``base64`` (little-endian float32) or ``float``. Raises ValueError."""
    vectors = answer.get("embeddings")
    if not isinstance(vectors, list):
        raise ValueError("no 'embeddings' in the answer")
    data = []
    for index, vector in enumerate(vectors):
        packed = base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode() if encoding == "base64" else vector
        data.append({"object": "embedding", "index": index, "embedding": packed})
    count = int(answer.get("prompt_eval_count") or 0)
    return {"object": "list", "data": data, "model": model, "usage": {"prompt_tokens": count, "total_tokens": count}}
