"""When work may be tried on the next candidate: the one rule of DESIGN "the way of an intent", as a pure function."""

from __future__ import annotations

from atmosphere.capabilities.card import Effects
from protocols.call import CallError, Code

REFUSED = frozenset({Code.NOT_FOUND, Code.FORBIDDEN, Code.OVERLOADED, Code.RATE_LIMITED, Code.UNAVAILABLE})
"""The work was never started: any other candidate may do it, whatever its effects."""
BROKEN = frozenset({Code.UNKNOWN_OUTCOME, Code.INTERNAL, Code.CANCELLED})
"""It may have run: only what may run twice is tried again. (CANCELLED here is the node's, not the caller's.)"""


def may_try_next(effects: Effects, error: CallError) -> bool:
    """Whether a call that ended in *error* before its first piece may run on another node."""
    if error.code in REFUSED:
        return True
    if error.code in BROKEN or (error.code is Code.BACKEND and error.retryable):
        return effects is not Effects.ONCE
    return False


def says_node_failed(error: CallError) -> bool:
    """Whether *error* is a sign that the node itself, not only this call, is in trouble."""
    return error.code in (Code.UNAVAILABLE, Code.UNKNOWN_OUTCOME)
