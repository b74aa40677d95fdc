"""``knowledge/answer``: the indexed folders as a capability."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from atmosphere.capabilities.backend import Backend, Emit, Provision, ToolCall
from atmosphere.capabilities.card import Card
from atmosphere.embedding import Embedder
from atmosphere.env import Env
from atmosphere.knowledge import chat
from atmosphere.knowledge.card import TYPE, make_card
from atmosphere.knowledge.knowledge import Knowledge
from atmosphere.knowledge.ranking import Hit, PassageIndex
from protocols.call import CallError, Code

CONCURRENCY = 4     # a search is some milliseconds of one core; more at once would only wait for each other
MAX_RESULTS = 20
SEARCH_RESULTS = 5
ANSWER_RESULTS = 3
RELEVANT = 0.3
"""Score of a passage worth quoting, with all-MiniLM-L6-v2. Measured on ten technical documents: the best passage scored
0.31-0.72 for 12 questions about them; for 200 requests of a public set about daily life 90 % stayed below 0.31."""

NOTHING = "I found nothing relevant to this in the indexed documents."


@dataclass(frozen=True, slots=True)
class Answer:
    """An extractive answer: *pieces* joined are the text; *hits* are what it quotes, none if nothing was relevant."""

    pieces: tuple[str, ...]
    hits: tuple[Hit, ...]

    @property
    def text(self) -> str:
        return "".join(self.pieces)


def quote(hits: Sequence[Hit], relevant: float) -> Answer:
    """Quote the hits that score at least *relevant*, word for word, each with its source; say so if there is none."""
    good = tuple(hit for hit in hits if hit.score >= relevant)
    if not good:
        return Answer((NOTHING,), ())
    quotes = [
        f"{hit.entry.text}\n[{number}] {hit.entry.source}, {hit.entry.locator}" for number, hit in enumerate(good, 1)
    ]
    return Answer(("From the indexed documents:", *(f"\n\n{text}" for text in quotes)), good)


class KnowledgeBackend(Backend):
    """Answers from the indexed folders, by quotation. It has a card while something is indexed.

    Every tool only reads. Searches run off the event loop; a cancelled one ends unseen a few milliseconds later.
    """

    name = "knowledge"

    def __init__(self, knowledge: Knowledge, embedder: Embedder, env: Env, relevant: float = RELEVANT) -> None:
        """*relevant*: the lowest score that ``answer`` and ``chat`` quote; it depends on the embedder."""
        self._knowledge = knowledge
        self._embedder = embedder
        self._env = env
        self._relevant = relevant
        self._described: tuple[PassageIndex, Card] | None = None

    def __repr__(self) -> str:
        return f"<KnowledgeBackend {self._knowledge!r}>"

    async def discover(self) -> Sequence[Provision]:
        index = self._knowledge.loaded
        if index is None:
            index = await self._env.run_blocking(self._knowledge.snapshot)
        if len(index) == 0:
            return ()
        if self._described is None or self._described[0] is not index:
            entries = index.entries
            self._described = (index, await self._env.run_blocking(lambda: make_card(entries)))
        return (Provision(self._described[1], concurrency=CONCURRENCY),)

    async def invoke(self, card: Card, call: ToolCall, emit: Emit) -> bytes:
        if card.type != TYPE or call.tool not in ("search", "answer", "chat"):
            raise CallError(Code.NOT_FOUND, f"{card.type} {call.tool}: this backend has {TYPE} search, answer, chat")
        args = _arguments(call.args)
        if call.tool == "chat":
            return await self._chat(chat.parse(args), emit)
        name, default = ("query", SEARCH_RESULTS) if call.tool == "search" else ("question", ANSWER_RESULTS)
        text, k = args.get(name), args.get("k", default)
        if not isinstance(text, str) or not text.strip():
            raise CallError(Code.INVALID, f"{call.tool} needs a text `{name}`")
        if not isinstance(k, int) or isinstance(k, bool) or not 1 <= k <= MAX_RESULTS:
            raise CallError(Code.INVALID, f"k must be a whole number from 1 to {MAX_RESULTS}")
        hits = await self._search(text, k)
        if call.tool == "search":
            return _json({"passages": [_plain(hit) for hit in hits]})
        answer = quote(hits, self._relevant)
        return _json({"answer": answer.text, "passages": [_plain(hit) for hit in answer.hits]})

    async def _chat(self, request: chat.ChatRequest, emit: Emit) -> bytes:
        answer = quote(await self._search(request.question, ANSWER_RESULTS), self._relevant)
        usage = await self._env.run_blocking(
            lambda: chat.Usage(self._embedder.count_tokens(request.prompt), self._embedder.count_tokens(answer.text))
        )
        answer_id, created = f"chatcmpl-{self._env.token_bytes(12).hex()}", int(self._env.now())
        if not request.stream:
            return chat.completion(answer_id, created, answer.text, usage)
        for chunk in chat.chunks(answer_id, created, list(answer.pieces), usage, request.include_usage):
            await emit(chunk)
        return b""

    async def _search(self, text: str, k: int) -> Sequence[Hit]:
        return await self._env.run_blocking(lambda: self._knowledge.search(text, k))


def _arguments(args: bytes) -> dict[str, Any]:
    try:
        value = json.loads(args)
    except ValueError as error:
        raise CallError(Code.INVALID, f"the arguments are not JSON: {error}") from error
    except RecursionError:
        raise CallError(Code.INVALID, "the arguments are nested too deeply") from None
    if not isinstance(value, dict):
        raise CallError(Code.INVALID, "the arguments must be a JSON object")
    return value


def _plain(hit: Hit) -> dict[str, object]:
    entry = hit.entry
    return {"text": entry.text, "source": entry.source, "locator": entry.locator, "score": round(hit.score, 4)}


def _json(value: dict[str, object]) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()
