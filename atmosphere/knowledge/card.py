"""The meaning of what is indexed, as a card: taken from folder names, file names and headings, word for word.

Pure and deterministic: nodes that indexed equal folders offer an equal card, hence one capability with two providers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import zip_longest
from pathlib import PurePosixPath

from atmosphere.capabilities.card import Card, Effects, Tool
from atmosphere.knowledge.ranking import Entry

TYPE = "knowledge/answer"
MAX_DESCRIPTION_HEADINGS = 16  # the embedder reads 256 word pieces; what comes later would not be matched
MAX_TOPICS = 24
MAX_EXAMPLES = 24              # each is embedded by every node that learns of the card: 2 ms
MAX_PHRASE_CHARS = 80          # under the card's limits in bytes, whatever the script

_PASSAGES = (
    '{"type":"array","items":{"type":"object","properties":{"text":{"type":"string"},"source":{"type":"string"},'
    '"locator":{"type":"string"},"score":{"type":"number"}}}}'
)
TOOLS = (
    Tool(
        "search",
        f'Find passages. Returns {{"passages": {_PASSAGES}}}.',
        '{"type":"object","properties":{"query":{"type":"string"},'
        '"k":{"type":"integer","minimum":1,"maximum":20,"default":5}},"required":["query"]}',
        Effects.NONE,
    ),
    Tool(
        "answer",
        f'Quote the passages that answer a question. Returns {{"answer": string, "passages": {_PASSAGES}}}.',
        '{"type":"object","properties":{"question":{"type":"string"},'
        '"k":{"type":"integer","minimum":1,"maximum":20,"default":3}},"required":["question"]}',
        Effects.NONE,
    ),
    Tool(
        "chat",
        "The same for OpenAI clients: the last user message is the question. No tools, response_format or images.",
        '{"type":"object","properties":{"messages":{"type":"array"},"stream":{"type":"boolean"}},'
        '"required":["messages"]}',
        Effects.NONE,
    ),
)


def make_card(entries: Sequence[Entry]) -> Card:
    """The card of these passages (at least one). Their order does not matter, except within a document."""
    outlines: dict[str, dict[str, None]] = {}
    for entry in sorted(entries, key=lambda entry: entry.source):  # stable: passages stay in the document's order
        outlines.setdefault(entry.source, {}).setdefault(_phrase(entry), None)
    folders = sorted({entry.folder for entry in entries})
    titles = _unique(_title(source) for source in outlines)
    # One heading of every document, then the second ones, ...: a long document must not push the others out.
    rounds = zip_longest(*([(source, phrase) for phrase in phrases] for source, phrases in outlines.items()))
    outline = [(_title(pair[0]), pair[1]) for turn in rounds for pair in turn if pair and pair[1]]
    phrases = _unique(phrase for _, phrase in outline)
    description = (
        "Answers questions from documents by quoting passages with their sources. "
        f"Folders: {', '.join(folders[:MAX_TOPICS])}. About: {'; '.join(phrases[:MAX_DESCRIPTION_HEADINGS])}."
    )
    return Card(
        type=TYPE,
        description=description.encode()[:4000].decode("utf-8", "ignore"),
        topics=tuple(_unique([*map(_shorten, folders), *titles])[:MAX_TOPICS]),
        examples=tuple(
            _unique(phrase if phrase.endswith("?") else f"{title}: {phrase}" for title, phrase in outline)
        )[:MAX_EXAMPLES],
        features=("stream",),
        tools=TOOLS,
    )


def _phrase(entry: Entry) -> str:
    """What a passage is about: its heading, else the beginning of its text."""
    _, mark, heading = entry.locator.partition("#")
    if mark:
        return _shorten(heading)
    return _shorten(re.split(r"(?<=[.!?])\s|\n\n", entry.text, maxsplit=1)[0])


def _title(source: str) -> str:
    """``docs/heat-pump_manual.md`` -> ``heat pump manual``."""
    return _shorten(re.sub(r"[-_.]+", " ", PurePosixPath(source).stem) or source)


def _shorten(text: str) -> str:
    text = " ".join(text.split())
    if len(text) > MAX_PHRASE_CHARS:
        text = text[:MAX_PHRASE_CHARS].rpartition(" ")[0] or text[:MAX_PHRASE_CHARS]
    return text.encode()[:120].decode("utf-8", "ignore")  # a topic has at most 128 bytes


def _unique(words: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(word for word in words if word))
