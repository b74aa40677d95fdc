"""How a call fails: one exception, one small set of codes, the same on the wire, in Python and over HTTP."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Code(StrEnum):
    """Why a call failed. The text is what travels; an unknown code is read as INTERNAL."""

    INVALID = "invalid"                        # the request itself is wrong; the same again fails again
    NOT_FOUND = "not_found"                    # no such card or tool here (any more)
    FORBIDDEN = "forbidden"                    # no membership, or its scopes do not cover this
    TOO_LARGE = "too_large"                    # over a stated limit
    OVERLOADED = "overloaded"                  # busy now; retry_after_ms says when to come back
    RATE_LIMITED = "rate_limited"              # this caller is over its rate
    UNAVAILABLE = "unavailable"                # the peer or its backend cannot be reached; never started
    BACKEND = "backend"                        # the backend answered with an error; details carry its answer
    DEADLINE = "deadline"                      # the caller's deadline passed
    CANCELLED = "cancelled"                    # the caller, or a stopping node, called it off
    UNKNOWN_OUTCOME = "unknown_outcome"        # it may have run: the connection was lost after it was sent
    INTERNAL = "internal"                      # a bug; the node's log has the details


@dataclass(eq=False)
class CallError(Exception):
    """A call that did not give its result.

    *message* names the cause and the next step. *retryable*: the same call may succeed elsewhere or later, and
    nothing was started that must not run twice. *details*: JSON bytes for the caller's program, at most 16 KiB, e.g.
    ``{"status": 400, "body": {...}}`` from an HTTP backend.
    """

    code: Code
    message: str
    retryable: bool = False
    retry_after_ms: int = 0
    details: bytes = b""

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"
