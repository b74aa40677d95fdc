"""Decision models behind an adapter: the card, how a server is asked whether it has one, and the call.

**How one is found.** Ollama (0.35 and later) says so in ``/api/show``: the capability ``decision``. Other servers are
knocked at: ``POST /v1/systemone`` with no questions, which every server refuses before it loads or computes anything.
404, 405 or 501: there is no such route, or (llama.cpp) this is no decision model. 400 or 422: the route is there. Then
one yes-or-no question about one word is asked, of a model that is in memory already (the only one that is served, or
one that the list calls loaded); a good answer makes it a decision model. transformers serve turns every chat model
into one whose answers are single tokens, so there a model may be both.

**What is not known.** Whether the probabilities are calibrated, and how many options a question may have (26 for a
chat model in transformers, the model's own number in llama.cpp): no server says. A model of several that are not
loaded is not asked, because that would load it; it is offered once it was.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Any

from atmosphere.capabilities.backend import ToolCall
from atmosphere.capabilities.card import Card, Tool
from atmosphere.capabilities.decisions import (
    DECIDE_TOOL,
    DECIDE_TYPE,
    AnswerError,
    QuestionError,
    read_answers,
    read_questions,
)
from atmosphere.capabilities.upstream import Upstream, UpstreamError
from protocols.call.errors import CallError, Code

_SCHEMA = (
    '{"type":"object","properties":{"state":{"type":["string","object","array"]},'
    '"questions":{"type":"object","minProperties":1,"maxProperties":400}},"required":["state","questions"]}'
)
DECIDE_TOOLS = (
    Tool(DECIDE_TOOL, "Answer typed questions about a state with probabilities; body of POST /v1/systemone", _SCHEMA),
)

_PROBE: dict[str, Any] = {
    "state": "yes", "questions": {"q": {"type": "noul", "instructions": "Does the text say yes?"}}
}
_PROBE_QUESTIONS = read_questions(_PROBE)
PROBE_TIMEOUT_S = 1.0    # a look at a server must stay short; a slow model is asked again at a later look
PROBE_GAP_MAX = 64       # looks between two attempts with a server or model that cannot: five minutes
_NO_ROUTE = frozenset({404, 405, 501})
_ROUTE = frozenset({200, 400, 413, 422})


class Knock(Enum):
    """What came of knocking."""

    NO = "no"
    """There is no such route, or the server says that this is no decision model."""
    ROUTE = "route"
    """The route is there; whether the model can, only a question tells."""
    UNCLEAR = "unclear"
    """No answer, or one that says nothing: ask again later."""


def decide_card(model: str, *, description: str = "", vision: bool = False, dedicated: bool = True,
                context_tokens: int = 0) -> Card:
    """The card of a decision model. *dedicated*: made for it, by what its server says; else a chat model put to it."""
    what = ("a decision model: answers typed questions about a text (which of these, how much, yes or no) with "
            "probabilities and writes no text")
    if not dedicated:
        what += "; a language model read at its first token, not known to be calibrated"
    return Card(
        type=DECIDE_TYPE,
        description=f"{description or model}: {what}",
        model=model,
        inputs=("image", "text") if vision else ("text",),
        outputs=("data",),
        context_tokens=context_tokens,
        tools=DECIDE_TOOLS,
    )


@dataclass(slots=True)
class _Known:
    """What is known of a server or of one model."""

    can: bool = False
    gap: int = 1
    ask_again: int = 0
    """The look at which to try again."""

    def tried(self, look: int, can: bool | None) -> None:
        """*can*: None when there was no answer; that is tried again soon, a refusal ever more rarely."""
        self.can = bool(can)
        self.ask_again = look + (1 if can is None else self.gap)
        self.gap = min(self.gap * 2, PROBE_GAP_MAX)


class Finder:
    """Finds out which models of one server decide, with at most one knock per look and one question per model."""

    def __init__(self, upstream: Upstream, path: str, timeout_s: float = PROBE_TIMEOUT_S) -> None:
        self._upstream = upstream
        self._path = path
        self._timeout_s = timeout_s
        self._look = 0
        self._server = _Known()
        self._models: dict[str, _Known] = {}

    def __repr__(self) -> str:
        return f"<Finder {sum(known.can for known in self._models.values())} of {len(self._models)} models decide>"

    def poll(self, models: Iterable[str]) -> None:
        """A new look at the server, which serves *models* now."""
        self._look += 1
        self._models = {name: self._models[name] for name in models if name in self._models}

    async def decides(self, model: str) -> bool:
        """Whether *model*, which is in memory, is known to decide; asks where that is not known and due."""
        known = self._models.setdefault(model, _Known())
        if not known.can and self._look >= known.ask_again and await self._has_route(model):
            known.tried(self._look, await can_decide(self._upstream, self._path, model, self._timeout_s))
        return known.can

    async def _has_route(self, model: str) -> bool:
        server = self._server
        if not server.can and self._look >= server.ask_again:
            found = await knock(self._upstream, self._path, model, self._timeout_s)
            server.tried(self._look, None if found is Knock.UNCLEAR else found is Knock.ROUTE)
        return server.can


async def knock(upstream: Upstream, path: str, model: str, timeout_s: float) -> Knock:
    """Whether *upstream* takes decisions of *model* at *path*, at no cost to it."""
    body = {"model": model, "state": "", "questions": {}}
    try:
        answer = await upstream.exchange(b"POST", path, _encode(body), timeout_s=timeout_s)
    except UpstreamError:
        return Knock.UNCLEAR
    if answer.status in _NO_ROUTE:
        return Knock.NO
    return Knock.ROUTE if answer.status in _ROUTE else Knock.UNCLEAR


async def can_decide(upstream: Upstream, path: str, model: str, timeout_s: float) -> bool | None:
    """Whether *model* answers one small question believably; None: it did not answer."""
    try:
        answer = await upstream.exchange(b"POST", path, _encode({"model": model, **_PROBE}), timeout_s=timeout_s)
    except UpstreamError:
        return None
    if answer.status in (429, 503):
        return None
    if answer.status != 200:
        return False
    try:
        return bool(read_answers(_PROBE_QUESTIONS, answer.body))
    except AnswerError:
        return False


async def decide(upstream: Upstream, path: str, card: Card, call: ToolCall, who: str) -> bytes:
    """Ask *card*'s model. The answer is passed on as it came, once it was found believable.

    Raises CallError: INVALID for questions that break the contract, BACKEND for an answer that does.
    """
    body = call.arguments()
    try:
        questions = read_questions(body)
    except QuestionError as error:
        raise CallError(Code.INVALID, f"{error}") from None
    # Servers refuse fields that they do not know.
    request = {name: value for name, value in body.items() if name not in ("atmosphere", "stream")}
    request["model"] = card.model
    try:
        content = _encode(request)
    except RecursionError:
        raise CallError(Code.INVALID, "the request is nested too deeply; send flatter JSON") from None
    try:
        answer = await upstream.post(path, content)
    except UpstreamError as error:
        raise error.as_call_error(answered=False) from error
    if answer.status != 200:
        raise answer.call_error(who)
    try:
        read_answers(questions, answer.body)
    except AnswerError as error:
        raise CallError(Code.BACKEND, f"{who}: its answer cannot be believed: {error}") from None
    return answer.body


def _encode(value: dict[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
