"""What a capability means, independent of who offers it, and the exact bytes that name it.

A card travels as protobuf (``capabilities.proto``, message ``Card``) and is content-addressed: its id is the SHA-256 of
those bytes. Equal cards encode to equal bytes on every node: fields are written in the order of their numbers, there
are no maps, and the fields that are sets are kept sorted. A received card is kept as the bytes it came in; its id is
never taken from a second serialisation, so fields that a newer node adds survive.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from google.protobuf.message import DecodeError

from atmosphere.capabilities import capabilities_pb2 as pb

CardId = bytes
"""SHA-256 of a card's exact bytes: 32 bytes."""

CARD_MAX_BYTES = 64 * 1024     # thousands of cards fit the cache of a small node, and one fits a sync frame
TYPE_MAX_BYTES = 64
NAME_MAX_BYTES = 256           # model and space names; Hugging Face repository ids stay under 200
TOOL_NAME_MAX_BYTES = 64       # what the OpenAI API allows for a function name
DESCRIPTION_MAX_BYTES = 4096
SCHEMA_MAX_BYTES = 16 * 1024
WORD_MAX_BYTES = 128           # a topic, feature or modality
EXAMPLE_MAX_BYTES = 512
MAX_WORDS = 64
MAX_EXAMPLES = 64
MAX_TOOLS = 64
MAX_CONTEXT_TOKENS = 2**31 - 1

CONTINUE = "continue"
"""A feature: it goes on with an answer whose beginning it is given (see atmosphere/work/continuation.py)."""

_TYPE = re.compile(r"[a-z0-9_-]+(/[a-z0-9_.-]+)+")


class CardError(ValueError):
    """These bytes or fields are no card, offer or vector within the limits; the message says which field and limit."""


class Effects(StrEnum):
    """What running a tool twice does. It decides when a call may be tried on another node."""

    NONE = "none"              # it only reads or computes
    IDEMPOTENT = "idempotent"  # twice with the same key is once
    ONCE = "once"              # twice is wrong (send a mail, open a door)


_EFFECTS_TO_WIRE = {
    Effects.NONE: pb.EFFECTS_NONE,
    Effects.IDEMPOTENT: pb.EFFECTS_IDEMPOTENT,
    Effects.ONCE: pb.EFFECTS_ONCE,
}
_EFFECTS_FROM_WIRE: dict[int, Effects] = {wire: effects for effects, wire in _EFFECTS_TO_WIRE.items()}


@dataclass(frozen=True, slots=True)
class Tool:
    """Something a caller can pull."""

    name: str
    description: str = ""
    input_schema: str = "{}"
    """JSON Schema of the arguments, as text."""
    effects: Effects = Effects.NONE


@dataclass(frozen=True, slots=True)
class Trigger:
    """Something the capability can push."""

    name: str
    description: str = ""
    payload_schema: str = "{}"


@dataclass(frozen=True, slots=True)
class Card:
    """A capability's meaning. Equal cards have equal bytes and so one id, on every node that has the same thing.

    Topics, inputs, outputs and features are sets: whatever order they are given in, they are kept sorted.
    """

    type: str
    """``family/kind``: ``llm/chat``, ``llm/embed``, ``knowledge/answer``, ``system/health``, ..."""
    description: str
    model: str = ""
    """The model's name as clients write it; empty where there is none."""
    examples: tuple[str, ...] = ()
    """Things people say when they want this."""
    topics: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ("text",)
    outputs: tuple[str, ...] = ("text",)
    """Modalities: ``text``, ``image``, ``audio``, ``vector``, ``data``."""
    features: tuple[str, ...] = ()
    """What a request may ask for: ``tools``, ``json_schema``, ``stream``, ..."""
    context_tokens: int = 0
    """0: unknown."""
    space: str = ""
    """For ``llm/embed``: the name of the vector space, ``model:dimensions``."""
    tools: tuple[Tool, ...] = ()
    triggers: tuple[Trigger, ...] = ()

    def __post_init__(self) -> None:
        for name in ("topics", "inputs", "outputs", "features"):
            object.__setattr__(self, name, tuple(sorted(set(getattr(self, name)))))

    def tool(self, name: str) -> Tool | None:
        """The tool called *name*, if the card has it."""
        return next((tool for tool in self.tools if tool.name == name), None)

    def encode(self) -> bytes:
        """The canonical bytes. Raises :class:`CardError` for a card over a limit."""
        _check(self)
        message = pb.Card(
            type=self.type,
            description=self.description,
            model=self.model,
            examples=self.examples,
            topics=self.topics,
            inputs=self.inputs,
            outputs=self.outputs,
            features=self.features,
            context_tokens=self.context_tokens,
            space=self.space,
            tools=[
                pb.Tool(
                    name=tool.name,
                    description=tool.description,
                    input_schema=tool.input_schema,
                    effects=_EFFECTS_TO_WIRE[tool.effects],
                )
                for tool in self.tools
            ],
            triggers=[
                pb.Trigger(name=trigger.name, description=trigger.description, payload_schema=trigger.payload_schema)
                for trigger in self.triggers
            ],
        )
        data = message.SerializeToString(deterministic=True)
        _limit_bytes("card", len(data), CARD_MAX_BYTES)
        return data

    @classmethod
    def decode(cls, data: bytes) -> Card:
        """Read a card that anybody may have written; unknown fields are ignored. Raises :class:`CardError`."""
        _limit_bytes("card", len(data), CARD_MAX_BYTES)
        try:
            message = pb.Card.FromString(data)
        except DecodeError as error:
            raise CardError(f"not a card: {error}") from None
        card = cls(
            type=message.type,
            description=message.description,
            model=message.model,
            examples=tuple(message.examples),
            topics=tuple(message.topics),
            inputs=tuple(message.inputs),
            outputs=tuple(message.outputs),
            features=tuple(message.features),
            context_tokens=message.context_tokens,
            space=message.space,
            tools=tuple(
                Tool(
                    tool.name,
                    tool.description,
                    tool.input_schema,
                    _EFFECTS_FROM_WIRE.get(tool.effects, Effects.ONCE),
                )
                for tool in message.tools
            ),
            triggers=tuple(
                Trigger(trigger.name, trigger.description, trigger.payload_schema) for trigger in message.triggers
            ),
        )
        _check(card)
        return card


def card_id(data: bytes) -> CardId:
    """The id of the card with exactly these bytes."""
    return hashlib.sha256(data).digest()


def short_id(card: CardId) -> str:
    """The first ten hex digits: enough for a person to tell cards apart."""
    return card.hex()[:10]


def _check(card: Card) -> None:
    if len(card.type) > TYPE_MAX_BYTES or not _TYPE.fullmatch(card.type):
        raise CardError(f"card type {card.type[:80]!r}: expected family/kind in lower case, <= {TYPE_MAX_BYTES} bytes")
    _limit_text("description", card.description, DESCRIPTION_MAX_BYTES)
    _limit_text("model", card.model, NAME_MAX_BYTES)
    _limit_text("space", card.space, NAME_MAX_BYTES)
    _limit_list("examples", card.examples, MAX_EXAMPLES, EXAMPLE_MAX_BYTES)
    for name in ("topics", "inputs", "outputs", "features"):
        _limit_list(name, getattr(card, name), MAX_WORDS, WORD_MAX_BYTES)
    if not 0 <= card.context_tokens <= MAX_CONTEXT_TOKENS:
        raise CardError(f"context_tokens {card.context_tokens} is outside 0..{MAX_CONTEXT_TOKENS}")
    for kind, parts in (("tool", card.tools), ("trigger", card.triggers)):
        if len(parts) > MAX_TOOLS:
            raise CardError(f"{len(parts)} {kind}s; the limit is {MAX_TOOLS}")
        names = [part.name for part in parts]
        if len(set(names)) != len(names) or "" in names:
            raise CardError(f"every {kind} needs a name of its own: {names}")
        for part in parts:
            _limit_text(f"{kind} name", part.name, TOOL_NAME_MAX_BYTES)
            _limit_text(f"{kind} description", part.description, DESCRIPTION_MAX_BYTES)
            schema = part.input_schema if isinstance(part, Tool) else part.payload_schema
            _limit_text(f"{kind} schema", schema, SCHEMA_MAX_BYTES)


def _limit_bytes(what: str, size: int, limit: int) -> None:
    if size > limit:
        raise CardError(f"{what} has {size} bytes; the limit is {limit}")


def _limit_text(what: str, text: str, limit: int) -> None:
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        raise CardError(f"{what} is not Unicode text: {error.reason}") from None
    _limit_bytes(what, size, limit)


def _limit_list(what: str, texts: Iterable[str], count: int, size: int) -> None:
    texts = tuple(texts)
    if len(texts) > count:
        raise CardError(f"{len(texts)} {what}; the limit is {count}")
    for text in texts:
        _limit_text(what, text, size)
