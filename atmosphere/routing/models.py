"""Model names: which name means which model, what an alias stands for, and the name that a backend is given. Pure.

An alias is this node's own word; no other node knows it. So it travels as far as the decision, and where the candidate
is known its model's name takes the alias's place in the arguments: here, once, for HTTP, the CLI and plans alike.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType

from atmosphere.config import NameConfig
from atmosphere.routing.decision import Candidate
from atmosphere.routing.intent import Intent, Prefer
from protocols.call.errors import CallError, Code

Aliases = Mapping[str, tuple[str, ...]]
"""What clients write -> the models that the owner holds for equivalent, best first."""

EMBED_TOOL = "embed"

Levels = Mapping[str, NameConfig]
"""Capability names, as clients write them into ``model``."""

BUILT_IN: Levels = MappingProxyType({
    "fast": NameConfig(type="llm/chat", prefer="fast"),
    "vision": NameConfig(inputs=("text", "image")),
    "best-code": NameConfig(type="llm/chat", text="writes, explains, reviews and corrects program code"),
})
"""There from the start; a setting of the same name replaces one, and so does a model of that very name."""


def levels_of(names: Mapping[str, NameConfig]) -> Levels:
    """The built-in capability names and the owner's."""
    return {**BUILT_IN, **names}


def same_model(asked: str, model: str) -> bool:
    """Whether *asked* names *model*. Ollama's default tag may be left out: ``llama3.2`` is ``llama3.2:latest``."""
    return bool(model) and (asked == model or f"{asked}:latest" == model or asked == f"{model}:latest")


def preference(models: Iterable[str], model: str) -> int:
    """The place of *model* among *models*, best first: 0, 1, ..."""
    return next((place for place, asked in enumerate(models) if same_model(asked, model)), 0)


def resolve_alias(intent: Intent, aliases: Aliases) -> Intent:
    """*intent* with what its alias stands for; the same object where it names none.

    For embeddings only the first model counts: vectors of two models must never be mixed, not even over time.
    """
    models = aliases.get(intent.model) if intent.model is not None else None
    if not models:
        return intent
    return replace(intent, equivalents=models[:1] if intent.tool == EMBED_TOOL else models)


def resolve_level(intent: Intent, levels: Levels, serves: Callable[[str], bool]) -> Intent:
    """*intent* with what its capability name asks for; the same object where it names none.

    *serves*: whether a model of that name is served, which the name then means.
    """
    level = levels.get(intent.model) if intent.model is not None and not intent.equivalents else None
    if level is None or intent.level or serves(intent.model or ""):
        return intent
    asked = intent.constraints
    return replace(
        intent,
        level=intent.model or "",
        text=level.text or intent.text,
        inputs=intent.inputs | set(level.inputs),
        features=intent.features | set(level.features),
        prefer=intent.prefer or Prefer(level.prefer),
        constraints=replace(
            asked,
            type=level.type if asked.type is None else asked.type,
            labels=asked.labels | set(level.labels),
            min_context_tokens=max(asked.min_context_tokens, level.min_context_tokens),
            gpu_required=asked.gpu_required or level.gpu_required,
        ),
    )


def args_for(candidate: Candidate, intent: Intent, args: bytes) -> bytes:
    """*args* as *candidate* is to get them: its own model's name in place of an alias or a capability name.

    *intent* as the router resolved it (``decision.intent``). The same bytes, unread, where no alias was used. Raises
    CallError (invalid) for arguments that are no JSON object.
    """
    if not intent.equivalents and not intent.level:
        return args
    try:
        body = json.loads(args)
        if not isinstance(body, dict):
            raise ValueError("a JSON object is needed")
        if body.get("model") == candidate.card.model:
            return args
        body["model"] = candidate.card.model
        return json.dumps(body, allow_nan=False, separators=(",", ":")).encode()
    except (ValueError, RecursionError) as error:
        raise CallError(Code.INVALID, f"the arguments of {intent.tool} cannot be sent: {error}") from None
