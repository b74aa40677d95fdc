"""What a failed call means; above all the one rule of when work may be tried on the next candidate. Pure functions."""

from __future__ import annotations

from enum import Enum

from atmosphere.capabilities.card import Card, Effects
from protocols.call import CallError, Code

REFUSED = frozenset({Code.NOT_FOUND, Code.FORBIDDEN, Code.OVERLOADED, Code.RATE_LIMITED, Code.UNAVAILABLE})
"""The work was never started: any other candidate may do it, whatever its effects."""
BROKEN = frozenset({Code.UNKNOWN_OUTCOME, Code.INTERNAL, Code.CANCELLED})
"""It may have run: only what may run twice is tried again. (CANCELLED here is the node's, not the caller's.)"""


def declared(card: Card, tool: str) -> Effects:
    """The effects that *card* declares for *tool*; of a tool that it does not describe: the strictest."""
    for item in card.tools:
        if item.name == tool:
            return item.effects
    return Effects.ONCE


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


def may_have_run(effects: Effects, error: CallError) -> bool:
    """Whether *error* leaves it open if the work was done, where that matters: only `once` work may not be repeated.

    A deadline that passed before the call was sent is retryable (see the call client); any other one may have passed
    while the tool ran.
    """
    if effects is not Effects.ONCE:
        return False
    if error.code is Code.DEADLINE:
        return not error.retryable
    return error.code in BROKEN or (error.code is Code.BACKEND and error.retryable)


class Health(Enum):
    """What an error says of the (node, card) pair that gave it."""

    WELL = "well"  # it answered: the call itself was wrong, or it is busy
    UNSURE = "unsure"  # a slow one, or the caller was impatient
    ILL = "ill"  # something failed there; it may be this call's doing
    GONE = "gone"  # it was not reached, broke off or is stopping


def health(error: CallError) -> Health:
    """See :class:`Health`. The circuit breaker follows it."""
    if error.code in (Code.UNAVAILABLE, Code.UNKNOWN_OUTCOME, Code.CANCELLED):
        return Health.GONE
    if error.code is Code.INTERNAL or (error.code is Code.BACKEND and error.retryable):
        return Health.ILL
    return Health.UNSURE if error.code is Code.DEADLINE else Health.WELL


def broke_midway(error: CallError) -> bool:
    """Whether an answer that had begun was cut off, rather than ended by an error that the backend itself gave."""
    return error.code in BROKEN or error.code is Code.UNAVAILABLE or (error.code is Code.BACKEND and not error.details)
