"""From a request body to the intent that the router decides on. Pure."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from atmosphere.capabilities.decisions import DECIDE_TOOL, DECIDE_TYPE
from atmosphere.http.errors import invalid
from atmosphere.http.requests import Body, Extension, card_id, text
from atmosphere.routing.intent import Constraints, Intent
from atmosphere.routing.prompt import chat_prompt, count_tokens

TEXT = frozenset({"text"})
_MODALITY = {"image_url": "image", "image": "image", "input_image": "image",
             "input_audio": "audio", "audio_url": "audio", "audio": "audio"}
"""Types of message parts, OpenAI's and those of common servers -> what the model must understand."""
_FORMATS = frozenset({"json_schema", "json_object"})
MAX_TEXT = 8_000
"""Characters of the intent's text: the embedder reads far less, and a pasted book must not slow the choice down."""


def chat(body: Body, extension: Extension) -> Intent:
    """A chat request: what is meant is the last message of the user."""
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise invalid("'messages' must be a list with at least one message like "
                      '{"role": "user", "content": "..."}', "messages")
    inputs = set(TEXT)
    meant = ""
    for index, message in enumerate(messages):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise invalid(f"'messages[{index}]' must be an object with a string 'role'", f"messages[{index}]")
        content = message.get("content")
        if isinstance(content, list):
            inputs.update(_modalities(content, index))
        elif content is not None and not isinstance(content, str):
            raise invalid(f"'messages[{index}].content' must be a string or a list of parts",
                          f"messages[{index}].content")
        if message["role"] == "user":
            meant = content if isinstance(content, str) else _joined(content or [])
    tokens, prefixes = chat_prompt(body)
    return Intent(
        tool="chat",
        text=meant[:MAX_TEXT],
        model=text(body, "model"),
        inputs=frozenset(inputs) if len(inputs) > 1 else TEXT,
        features=_features(body),
        tokens=tokens,
        prefixes=prefixes,
        prefer=extension.prefer,
        constraints=extension.constraints,
    )


def completion(body: Body, extension: Extension) -> Intent:
    """A completion of a bare prompt."""
    prompt = body.get("prompt")
    if not isinstance(prompt, str | list) or prompt == []:
        raise invalid("'prompt' must be a string or a list of strings", "prompt")
    last = prompt if isinstance(prompt, str) else prompt[-1]
    return Intent(
        tool="complete",
        text=last[:MAX_TEXT] if isinstance(last, str) else "",  # tokens mean nothing without their model
        model=text(body, "model"),
        tokens=count_tokens(last) if isinstance(last, str) else 0,
        prefer=extension.prefer,
        constraints=extension.constraints,
    )


def embedding(body: Body, extension: Extension) -> Intent:
    """An embedding. Its input is material, not a wish: nothing to match cards with."""
    value = body.get("input")
    if not isinstance(value, str | list) or not value:
        raise invalid("'input' must be a non-empty string or a list of strings or of tokens", "input")
    if body.get("encoding_format") not in (None, "float", "base64"):
        raise invalid("'encoding_format' must be \"float\" or \"base64\"", "encoding_format")
    return Intent(tool="embed", model=text(body, "model"), prefer=extension.prefer,
                  constraints=extension.constraints)


def decision(body: Body, extension: Extension) -> Intent:
    """Typed questions in System One's form, checked. The state is material, not a wish: nothing to match cards with.

    Each question is read with the state, so the longest of them has to fit beside it.
    """
    seen = _shows_images(body)
    longest = max((count_tokens(json.dumps(question)) for question in body["questions"].values()), default=0)
    return Intent(
        tool=DECIDE_TOOL,
        model=text(body, "model"),
        inputs=TEXT | {"image"} if seen else TEXT,
        tokens=0 if seen else count_tokens(json.dumps(body["state"])) + longest,  # pictures are no text
        prefer=extension.prefer,
        constraints=_of_type(extension.constraints, DECIDE_TYPE),
    )


def tool_call(body: Body, tool: str, extension: Extension) -> Intent:
    """Any tool by hand, of a named card or of a type."""
    card, kind = text(body, "capability"), text(body, "type")
    constraints = extension.constraints
    if card is not None:
        digits = card_id(card, "capability")
        _agree("capability", digits, "card", constraints.card)
        constraints = dataclasses.replace(constraints, card=digits)
    if kind is not None:
        constraints = _of_type(constraints, kind)
    if constraints.card is None and constraints.type is None:
        raise invalid("say whose tool: 'capability' (a card id) or 'type' (like \"llm/embed\")", "type")
    return Intent(tool=tool, prefer=extension.prefer, constraints=constraints)


def dry_run(body: Body, extension: Extension) -> Intent:
    """What ``/v1/mesh/route`` asks about: any tool."""
    meant, kind = text(body, "intent"), text(body, "type")
    constraints = extension.constraints if kind is None else _of_type(extension.constraints, kind)
    model = text(body, "model")
    if meant is None and model is None and constraints.type is None and constraints.card is None:
        raise invalid("'intent' is missing: say in words what is wanted, or name a 'model' or a 'type'", "intent")
    return Intent(tool=None, text=(meant or "")[:MAX_TEXT], model=model, prefer=extension.prefer,
                  constraints=constraints)


def _modalities(parts: list[Any], index: int) -> set[str]:
    found = set()
    for part in parts:
        if not isinstance(part, dict):
            raise invalid(f"'messages[{index}].content' has a part that is not an object",
                          f"messages[{index}].content")
        modality = _MODALITY.get(str(part.get("type")))
        if modality is not None:
            found.add(modality)
    return found


def _shows_images(body: Body) -> bool:
    """In any of the ways that servers take them: beside the state, or as parts of the messages that it is."""
    state = body.get("state")
    messages = [message for message in state if isinstance(message, dict)] if isinstance(state, list) else []
    parts = [part for message in messages if isinstance(message.get("content"), list) for part in message["content"]]
    return bool(body.get("images") or body.get("assets")) or any(
        isinstance(part, dict) and _MODALITY.get(str(part.get("type"))) == "image" for part in parts
    )


def _joined(parts: list[Any]) -> str:
    texts = [part["text"] for part in parts if part.get("type") == "text" and isinstance(part.get("text"), str)]
    return "\n".join(texts)


def _features(body: Body) -> frozenset[str]:
    found = set()
    if body.get("tools") or body.get("functions"):
        found.add("tools")
    wanted = body.get("response_format")
    if isinstance(wanted, dict) and wanted.get("type") in _FORMATS:
        found.add(str(wanted["type"]))
    return frozenset(found)


def _of_type(constraints: Constraints, kind: str) -> Constraints:
    _agree("type", kind, "type", constraints.type)
    return dataclasses.replace(constraints, type=kind)


def _agree(field: str, value: str, name: str, other: str | None) -> None:
    if other is not None and other != value:
        raise invalid(f"'{field}' is {value!r} but atmosphere.constraints.{name} is {other!r}; give one", field)
