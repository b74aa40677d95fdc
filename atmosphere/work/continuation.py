"""Going on with a streamed answer on another node: the request again, and what was said as its beginning. Pure.

Only for capabilities that declare it (feature ``continue``, set by the owner of a backend): a server that does not know
the fields below would begin a new answer. A chat gets the text as a last message of the assistant, with
``continue_final_message`` true and ``add_generation_prompt`` false, as vLLM and llama.cpp document it; Ollama goes on
with a last message of the assistant by itself. A completion gets the text appended to its prompt.

Not everything can be continued: see :meth:`Said.resume`. Two things are not exact and are therefore marked in the
stream: tokens are sampled anew, and chat templates that trim a message's end may repeat white space at the seam.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from atmosphere.capabilities.card import CONTINUE, Card

MAX_SAID_BYTES = 4 * 1024 * 1024
"""Pieces of one answer that are kept, about 20,000 tokens; a longer answer that breaks ends in its error."""

Body = dict[str, Any]

_CONSTRAINED = ("guided_json", "guided_regex", "guided_choice", "guided_grammar", "structured_outputs", "grammar",
                "json_schema", "format")
"""Bodies with one of these are bound to a grammar, which a server would start from its beginning again."""
_LIMITS = ("max_tokens", "max_completion_tokens")


@dataclass(frozen=True, slots=True)
class Resumption:
    """How to go on."""

    args: bytes
    """The request for the next node."""
    mark: bytes
    """The piece that tells the reader; goes into the stream before the next node's pieces."""


class Said:
    """What a streamed answer has said so far. Keeps the pieces as they are; they are read only when it breaks."""

    def __init__(self, tool: str, args: bytes) -> None:
        """*args*: the request as it was first sent, without an earlier continuation."""
        self._tool = tool
        self._args = args
        self._pieces: list[bytes] = []
        self._bytes = 0

    def __repr__(self) -> str:
        return f"<Said {len(self._pieces)} pieces, {self._bytes} bytes>"

    def add(self, piece: bytes) -> None:
        """Take in a piece that the reader was given. Beyond ``MAX_SAID_BYTES`` nothing is kept any more."""
        self._bytes += len(piece)
        if self._bytes <= MAX_SAID_BYTES:
            self._pieces.append(piece)
        else:
            self._pieces.clear()

    def resume(self, continued_on: str) -> Resumption | None:
        """The rest of this answer as a request; *continued_on*: what the mark calls the node that goes on.

        None where the rest cannot be asked for: several answers at once, tool calls, reasoning, an output bound to a
        grammar, an answer that had finished, a last message of the assistant that is not text, tokens for a prompt,
        more than ``MAX_SAID_BYTES``.
        """
        if self._bytes > MAX_SAID_BYTES:
            return None
        try:
            body = json.loads(self._args)
            said = _Text()
            for piece in self._pieces:
                said.take(json.loads(piece))
            if said.text:
                body = _continued(self._tool, body, said)
        except (_NotContinuable, ValueError, RecursionError, TypeError, AttributeError, LookupError):
            return None
        return Resumption(json.dumps(body, separators=(",", ":")).encode(), said.mark(self._tool, continued_on))


def continues(card: Card) -> bool:
    """Whether what *card* offers goes on with an answer whose beginning it is given."""
    return CONTINUE in card.features


class _NotContinuable(Exception):
    """This answer cannot be gone on with."""


class _Text:
    """The text of an answer, put together from its pieces."""

    def __init__(self) -> None:
        self.text = ""
        self.tokens = 0
        """Pieces with text: servers send about one per token."""
        self._head: Body = {}

    def take(self, piece: Body) -> None:
        """Raises _NotContinuable, and what a piece of another shape leads to."""
        self._head = self._head or {name: piece[name] for name in ("id", "created", "model") if name in piece}
        for choice in piece.get("choices") or ():
            delta = choice.get("delta") or {}
            text = choice.get("text") or delta.get("content") or ""
            extra = {name for name, value in delta.items() if value and name not in ("role", "content")}
            if choice.get("index", 0) != 0 or choice.get("finish_reason") or extra:
                raise _NotContinuable
            self.text += text
            self.tokens += bool(text)

    def mark(self, tool: str, continued_on: str) -> bytes:
        kind = "chat.completion.chunk" if tool == "chat" else "text_completion"
        told = {"continued_on": continued_on, "after_chars": len(self.text)}
        return json.dumps({**self._head, "object": kind, "choices": [], "atmosphere": told},
                          separators=(",", ":")).encode()


def _continued(tool: str, body: Body, said: _Text) -> Body:
    body = dict(body)
    wanted = body.get("response_format")
    if (body.get("n") or 1) != 1 or (wanted and wanted.get("type") != "text") or any(map(body.get, _CONSTRAINED)):
        raise _NotContinuable
    for name in _LIMITS:
        if body.get(name) is not None:
            body[name] = max(body[name] - said.tokens, 1)
    if tool == "chat":
        body["messages"] = _with_prefix(body["messages"], said.text, open_end=bool(body.get("continue_final_message")))
        return body | {"continue_final_message": True, "add_generation_prompt": False}
    if tool == "complete":
        prompt = body["prompt"][0] if isinstance(body["prompt"], list) and len(body["prompt"]) == 1 else body["prompt"]
        if not isinstance(prompt, str) or body.get("echo") or body.get("suffix") or (body.get("best_of") or 1) != 1:
            raise _NotContinuable
        return body | {"prompt": prompt + said.text}
    raise _NotContinuable


def _with_prefix(messages: list[Body], text: str, *, open_end: bool) -> list[Body]:
    """*messages* with *text* at the end; *open_end*: the client itself had given the answer's beginning."""
    last = messages[-1]
    if last["role"] != "assistant":
        return [*messages, {"role": "assistant", "content": text}]
    if not open_end or not isinstance(last.get("content"), str):
        raise _NotContinuable
    return [*messages[:-1], {**last, "content": last["content"] + text}]
