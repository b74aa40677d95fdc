"""Request bodies: strict JSON, the field ``atmosphere``, and typed access that names the field that is wrong. Pure.

Nothing of the body is rewritten unless it must be: a body without the field ``atmosphere`` goes on as the bytes that
came in.
"""

from __future__ import annotations

import json
import re
import sys
from dataclasses import dataclass, field
from typing import Any

from atmosphere.http.errors import HttpError, invalid
from atmosphere.routing.intent import Constraints, Prefer
from transports.peer_id import PeerId

FIELD = "atmosphere"
MAX_DEADLINE_MS = 24 * 3600 * 1000
"""A day; whoever means longer should leave the deadline out."""
LARGEST = sys.float_info.max
"""A JSON number may be larger: an integer of 400 digits, 1e999."""
MIN_CARD_PREFIX = 8
_SURROGATE = re.compile("[\ud800-\udfff]")

Body = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Extension:
    """The body field ``atmosphere``: what a client asks of the mesh, not of the model."""

    constraints: Constraints = field(default_factory=Constraints)
    deadline_s: float | None = None
    explain: bool = False
    """Add the decision with its reasons to the answer."""
    prefer: Prefer = Prefer.BALANCED


NO_EXTENSION = Extension()


def parse_body(data: bytes) -> Body:
    """The JSON object in *data*. Raises :class:`HttpError` (400) for anything else, with the place of the mistake.

    Stricter than Python's parser: UTF-8 only, no NaN or Infinity, no field twice (which of the two counts would
    depend on who reads it).
    """
    try:
        body = _decode(data.decode())
    except UnicodeDecodeError as error:
        raise invalid(f"the body is not UTF-8 (byte {error.start}); send JSON in UTF-8") from None
    except json.JSONDecodeError as error:
        place = f"line {error.lineno} column {error.colno}"
        raise invalid(f"the body is not JSON: {error.msg} at {place}; send one JSON object") from None
    except RecursionError:
        raise invalid("the body is nested too deeply; send flatter JSON") from None
    except ValueError as error:  # an integer with thousands of digits
        raise invalid(f"the body has a number that cannot be read: {error}") from None
    if not isinstance(body, dict):
        raise invalid(f"the body is a JSON {_name(body)}; send a JSON object like {{\"model\": \"auto\", ...}}")
    return body


def dump_body(body: Body) -> bytes:
    """*body* as JSON bytes, losslessly (escapes keep lone surrogates)."""
    try:
        return json.dumps(body, allow_nan=False, separators=(",", ":")).encode()
    except ValueError:
        raise invalid("the body has a number beyond the range of a double; send it as text") from None
    except RecursionError:
        raise invalid("the body is nested too deeply; send flatter JSON") from None


def take_extension(body: Body) -> Extension:
    """Remove the field ``atmosphere`` from *body* and return its meaning. Unknown keys are an error that names them."""
    if FIELD not in body:
        return NO_EXTENSION
    value = body.pop(FIELD)
    if value is None:
        return NO_EXTENSION
    fields = _object(value, FIELD)
    _known(fields, FIELD, ("constraints", "deadline_ms", "explain", "prefer"))
    deadline_ms = positive(fields, "deadline_ms", FIELD, most=MAX_DEADLINE_MS)
    return Extension(
        constraints=_constraints(fields.get("constraints")),
        deadline_s=None if deadline_ms is None else deadline_ms / 1000,
        explain=flag(fields, "explain", FIELD),
        prefer=_prefer(text(fields, "prefer", FIELD)),
    )


def _constraints(value: Any) -> Constraints:
    where = f"{FIELD}.constraints"
    if value is None:
        return Constraints()
    fields = _object(value, where)
    _known(fields, where, ("type", "node", "card", "labels", "local_only", "max_latency_ms", "space",
                           "min_context_tokens", "avoid_labels", "gpu_required"))
    least = fields.get("min_context_tokens") or 0
    if not isinstance(least, int) or isinstance(least, bool) or least < 0:
        raise invalid(f"{where}.min_context_tokens must be a whole number", f"{where}.min_context_tokens")
    node = text(fields, "node", where)
    card = text(fields, "card", where)
    return Constraints(
        type=text(fields, "type", where),
        node=None if node is None else peer(node, f"{where}.node"),
        card=None if card is None else card_id(card, f"{where}.card"),
        labels=_labels(fields, "labels", where),
        avoid_labels=_labels(fields, "avoid_labels", where),
        gpu_required=flag(fields, "gpu_required", where),
        local_only=flag(fields, "local_only", where),
        max_latency_ms=positive(fields, "max_latency_ms", where),
        space=text(fields, "space", where),
        min_context_tokens=least,
    )


def _labels(fields: Body, name: str, where: str) -> frozenset[str]:
    labels = fields.get(name) or []
    if not isinstance(labels, list) or not all(isinstance(label, str) and _is_text(label) for label in labels):
        raise invalid(f"{where}.{name} must be a list of strings like [\"gpu\"]", f"{where}.{name}")
    return frozenset(labels)


def _prefer(word: str | None) -> Prefer:
    found = next((preference for preference in Prefer if preference == (word or "")), None)
    if found is None:
        known = ", ".join(filter(None, Prefer))
        raise invalid(f"'{FIELD}.prefer' must be one of {known}, not {word!r:.40}", f"{FIELD}.prefer")
    return found


def text(fields: Body, name: str, where: str = "") -> str | None:
    """A string field; None when absent, null or empty."""
    value = fields.get(name)
    if value is None or (isinstance(value, str) and _is_text(value)):
        return value or None
    raise _wrong(name, where, "a string", value)


def required(fields: Body, name: str) -> str:
    """A string field that must be there."""
    value = text(fields, name)
    if value is None:
        raise invalid(f"'{name}' is missing; it must be a string", name)
    return value


def texts(fields: Body, name: str) -> tuple[str, ...]:
    """A field with a list of strings; empty when absent or null."""
    value = fields.get(name)
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(item, str) and _is_text(item) for item in value):
        raise _wrong(name, "", "a list of strings", value)
    return tuple(value)


def flag(fields: Body, name: str, where: str = "") -> bool:
    """A boolean field; False when absent or null."""
    value = fields.get(name)
    if value is None or isinstance(value, bool):
        return bool(value)
    raise _wrong(name, where, "true or false", value)


def positive(fields: Body, name: str, where: str = "", most: float = LARGEST) -> float | None:
    """A positive number field; None when absent or null."""
    value = fields.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= most:
        limit = "" if most == LARGEST else f" up to {most:g}"
        raise _wrong(name, where, f"a positive number{limit}", value)
    return float(value)


def only(fields: Body, *names: str) -> None:
    """Refuse fields that this route does not know: they would be ignored silently."""
    _known(fields, "", names)


def peer(value: str, where: str) -> PeerId:
    """A peer id in a request."""
    try:
        return PeerId.parse(value)
    except ValueError as error:
        raise invalid(f"{where}: {error}; GET /v1/mesh/nodes lists the peer ids", where) from None


def card_id(value: str, where: str) -> str:
    """A card id in hex, or a beginning of one."""
    digits = value.lower()
    if MIN_CARD_PREFIX <= len(digits) <= 64 and all(digit in "0123456789abcdef" for digit in digits):
        return digits
    raise invalid(f"{where} must be a card id in hex or its first {MIN_CARD_PREFIX} or more digits; "
                  "GET /v1/mesh/capabilities lists them", where)


def _is_text(value: str) -> bool:
    """JSON can write half a character (a lone surrogate), which no database, message or file name can hold."""
    return value.isascii() or not _SURROGATE.search(value)


def _pairs(pairs: list[tuple[str, Any]]) -> Body:
    result = dict(pairs)
    if len(result) != len(pairs):
        names = [name for name, _ in pairs]
        double = next(name for name in names if names.count(name) > 1)
        raise invalid(f"the field {double!r} stands twice in one object; send it once", double)
    return result


def _constant(name: str) -> Any:
    raise invalid(f"the body has {name}, which is not JSON; send a number or null")


_decode = json.JSONDecoder(object_pairs_hook=_pairs, parse_constant=_constant).decode


def _object(value: Any, where: str) -> Body:
    if not isinstance(value, dict):
        raise invalid(f"'{where}' must be an object, not {_name(value)}", where)
    return value


def _known(fields: Body, where: str, names: tuple[str, ...]) -> None:
    unknown = sorted(set(fields) - set(names))
    if unknown:
        full = [f"{where}.{name}" if where else name for name in unknown]
        raise invalid(f"unknown field {', '.join(full)[:400]}; known are {', '.join(names)}", full[0][:100])


def _wrong(name: str, where: str, expected: str, value: Any) -> HttpError:
    full = f"{where}.{name}" if where else name
    return invalid(f"'{full}' must be {expected}, not {_name(value)}", full)


def _name(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return f"number {value!r:.40}"
    if isinstance(value, str):
        return "string" if _is_text(value) else "text with half a character"
    return "array" if isinstance(value, list) else "object"
