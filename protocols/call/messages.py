"""The messages of ``/atmosphere/call/1`` as values, and their way on and off the wire. No I/O.

Only what is more than a field of the generated classes is here: checks, bounds, and :class:`CallError` as a frame.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Final

from google.protobuf.message import DecodeError

from protocols.call import call_pb2 as pb
from protocols.call.errors import CallError, Code
from transports.peer_id import PeerId

PROTOCOL: Final = "/atmosphere/call/1"

CARD_BYTES: Final = 32
MAX_NAME_BYTES: Final = 128  # a tool or trigger
MAX_KEY_BYTES: Final = 32  # an idempotency key
TRACE_BYTES: Final = 16
MAX_MESSAGE_CHARS: Final = 1000  # a reason for people; more is a log, and belongs there
MAX_DETAILS_BYTES: Final = 16 * 1024
MAX_CALL_ID: Final = 2**32 - 1


class ProtocolViolation(Exception):
    """The peer sent what this protocol does not allow. The stream ends; the text is the reason it is told."""


@dataclass(frozen=True, slots=True)
class Load:
    """How busy a callee is: *permille* of its concurrency in use, *queue* calls waiting."""

    permille: int = 0
    queue: int = 0


@dataclass(frozen=True, slots=True)
class IncomingCall:
    """One call as its handler sees it."""

    peer: PeerId
    """Who calls, proved by the connection."""
    card: bytes
    """Card id, 32 bytes."""
    tool: str
    args: bytes
    """JSON, UTF-8; not looked at here."""
    deadline_s: float | None = None
    """Time left when the call arrived, seconds; None: the caller named none."""
    trace_id: bytes = b""
    idempotency_key: bytes = b""


@dataclass(frozen=True, slots=True)
class IncomingSubscription:
    """One subscription to a trigger as its handler sees it."""

    peer: PeerId
    card: bytes
    trigger: str
    filter: bytes
    """JSON, UTF-8; not looked at here."""
    trace_id: bytes = b""


def parse_frame(payload: bytes) -> pb.Frame:
    """The frame in *payload*. Raises ProtocolViolation: not protobuf, or call id 0 on anything but an Error."""
    try:
        frame = pb.Frame.FromString(payload)
    except DecodeError:
        raise ProtocolViolation("a frame that is not a protobuf Frame message") from None
    if frame.call == 0 and not frame.HasField("error"):
        raise ProtocolViolation("call id 0 names the stream itself and can only carry an Error")
    return frame


def open_fault(card: bytes, name: str, trace_id: bytes, idempotency_key: bytes = b"") -> str | None:
    """What is wrong with the fixed-size fields of an Open or Subscribe; None if nothing is."""
    if len(card) != CARD_BYTES:
        return f"a card id has {CARD_BYTES} bytes, this one {len(card)}"
    if not name or len(name.encode()) > MAX_NAME_BYTES:
        return f"a tool or trigger name has 1 to {MAX_NAME_BYTES} bytes"
    if trace_id and len(trace_id) != TRACE_BYTES:
        return f"a trace id has {TRACE_BYTES} bytes, this one {len(trace_id)}"
    if len(idempotency_key) > MAX_KEY_BYTES:
        return f"an idempotency key has at most {MAX_KEY_BYTES} bytes, this one {len(idempotency_key)}"
    return None


def load_message(load: Load) -> pb.Load:
    return pb.Load(permille=min(max(load.permille, 0), 1000), queue=min(max(load.queue, 0), MAX_CALL_ID))


def error_frame(call: int, error: CallError, load: pb.Load | None = None) -> bytes:
    """The Error frame of *error*. Message and details are cut to their bounds: details that do not fit are left out,
    since half a JSON document is worse than none, and replaced by ``{"truncated": true}``."""
    details = error.details
    if len(details) > MAX_DETAILS_BYTES:
        details = json.dumps({"truncated": True}).encode()
    return pb.Frame(
        call=call,
        error=pb.Error(
            code=error.code.value,
            message=error.message[:MAX_MESSAGE_CHARS],
            retryable=error.retryable,
            retry_after_ms=max(error.retry_after_ms, 0),
            details=details,
            load=load,
        ),
    ).SerializeToString()


def call_error(message: pb.Error) -> CallError:
    """The exception that an Error frame stands for. An unknown code is read as INTERNAL and named in the message."""
    text = message.message[:MAX_MESSAGE_CHARS] or "the peer gave no reason"
    try:
        code = Code(message.code)
    except ValueError:
        code, text = Code.INTERNAL, f"{text} (unknown code {message.code[:40]!r})"
    details = message.details if len(message.details) <= MAX_DETAILS_BYTES else b""
    return CallError(code, text, message.retryable, message.retry_after_ms, details)
