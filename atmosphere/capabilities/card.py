"""What a capability means, independent of who offers it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Effects(StrEnum):
    """What running a tool twice does. It decides when a call may be tried on another node."""

    NONE = "none"              # it only reads or computes
    IDEMPOTENT = "idempotent"  # twice with the same key is once
    ONCE = "once"              # twice is wrong (send a mail, open a door)


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
    """A capability's meaning. Equal cards have equal bytes and so one id, on every node that has the same thing."""

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
