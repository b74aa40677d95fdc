"""Every failure as an HTTP answer in OpenAI's envelope: ``{"error": {message, type, param, code}}``."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from typing import Any

from protocols.call.errors import CallError, Code

Headers = tuple[tuple[bytes, bytes], ...]


@dataclass(eq=False)
class HttpError(Exception):
    """A request that is refused before any work is done. *message* names the cause and the fix."""

    status: int
    message: str
    code: str
    param: str | None = None
    headers: Headers = ()

    def __str__(self) -> str:
        return f"{self.status} {self.code}: {self.message}"


@dataclass(frozen=True, slots=True)
class Answer:
    """A finished answer with a JSON body."""

    status: int
    body: bytes
    headers: Headers = ()


def invalid(message: str, param: str | None = None) -> HttpError:
    """The client's request is wrong."""
    return HttpError(400, message, "invalid_request", param)


# What type OpenAI's documentation gives to each status; SDKs choose the exception by the status alone.
_TYPES = {
    400: "invalid_request_error", 401: "authentication_error", 403: "permission_error", 404: "not_found_error",
    405: "invalid_request_error", 408: "timeout_error", 413: "invalid_request_error", 415: "invalid_request_error",
    429: "rate_limit_error", 431: "invalid_request_error", 503: "overloaded_error", 504: "timeout_error",
}

_STATUS = {
    Code.INVALID: 400, Code.FORBIDDEN: 403, Code.NOT_FOUND: 404, Code.TOO_LARGE: 413, Code.RATE_LIMITED: 429,
    Code.OVERLOADED: 503, Code.UNAVAILABLE: 503, Code.BACKEND: 502, Code.DEADLINE: 504, Code.CANCELLED: 503,
    Code.UNKNOWN_OUTCOME: 502, Code.INTERNAL: 500,
}

_WAIT = frozenset({Code.OVERLOADED, Code.RATE_LIMITED, Code.CANCELLED})
"""Worth trying again after a while: the answer says when."""


def envelope(status: int, message: str, code: str, param: str | None = None) -> bytes:
    """OpenAI's error object as JSON."""
    kind = _TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
    return json.dumps({"error": {"message": message, "type": kind, "param": param, "code": code}}).encode()


def refusal(error: HttpError) -> Answer:
    """The answer for a request that was refused here."""
    return Answer(error.status, envelope(error.status, error.message, error.code, error.param), error.headers)


def failure(error: CallError) -> Answer:
    """The answer for work that failed.

    A backend's own HTTP error keeps its status and body. ``unknown_outcome`` tells the SDK not to send it again.
    """
    headers: Headers = ()
    if error.code is Code.UNKNOWN_OUTCOME:
        headers = ((b"x-should-retry", b"false"),)  # SDKs retry a 502 by themselves: here that could do it twice
    elif error.code in _WAIT or error.retry_after_ms:
        headers = ((b"retry-after", str(max(1, math.ceil(error.retry_after_ms / 1000))).encode()),)
    if error.code is Code.BACKEND:
        own = _backend_answer(error)
        if own is not None:
            return replace(own, headers=headers)
    status = _STATUS.get(error.code, 500)
    return Answer(status, envelope(status, error.message, error.code), headers)


def event(error: CallError) -> bytes:
    """The failure as the last server-sent event of a stream that had begun."""
    answer = failure(error)
    body = json.loads(answer.body)
    if not isinstance(body.get("error"), dict):  # SDKs raise on this key alone
        body = json.loads(envelope(answer.status, str(error.message), error.code))
    return b"data: " + json.dumps(body).encode() + b"\n\n"


def _backend_answer(error: CallError) -> Answer | None:
    """The backend's own error answer, if the details carry one."""
    try:
        details: Any = json.loads(error.details or b"null")
    except (ValueError, RecursionError):  # another node wrote them
        return None
    status = details.get("status") if isinstance(details, dict) else None
    if not isinstance(status, int) or not 400 <= status <= 599:
        return None
    body = details.get("body")
    if isinstance(body, dict):
        return Answer(status, json.dumps(body).encode())
    return Answer(status, envelope(status, str(body) if body else error.message, error.code))
