"""Why a statement of trust was refused: one exception, one code per reason."""

from __future__ import annotations

from enum import StrEnum

from protocols.records import EnvelopeError


class Reason(StrEnum):
    """The text is what travels and what logs and tests compare; the exception's message is for people."""

    OVERSIZED = "oversized"                  # over a stated size
    MALFORMED = "malformed"                  # not in the format
    UNKNOWN_VERSION = "unknown_version"      # a newer format than this node knows
    FORGED = "forged"                        # a signature does not fit
    FOREIGN_MESH = "foreign_mesh"            # valid somewhere, not here
    TOO_MANY_LINKS = "too_many_links"        # a chain of more than three
    NOT_ISSUER = "not_issuer"                # signed by somebody who may not sign this
    NOT_MEMBERSHIP = "not_membership"        # the chain ends in something else than what is needed
    WIDENED_SCOPE = "widened_scope"          # a link allows more than the one above it
    WIDENED_LIFETIME = "widened_lifetime"    # a link holds longer than the one above it
    WRONG_AUDIENCE = "wrong_audience"        # issued to another key
    NOT_YET_VALID = "not_yet_valid"
    EXPIRED = "expired"
    CLOCK = "clock"                          # this machine and the issuer disagree about the time
    REVOKED = "revoked"
    FORBIDDEN = "forbidden"                  # the scopes do not cover it
    ABOVE_REVOKER = "above_revoker"          # a revocation of somebody above the one who signed it
    USED_UP = "used_up"                      # the invite has enrolled as many keys as it may
    APPROVAL_REFUSED = "approval_refused"    # the owner was asked and said no
    TOO_MANY_REQUESTS = "too_many_requests"  # so many wait for the owner that no more are taken


class IdentityError(Exception):
    """A chain, invite or revocation that is not accepted. *reason* for programs; the text names cause and next step."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def from_envelope(error: EnvelopeError, what: str) -> IdentityError:
    """The same refusal in this room's terms; *what* names the statement."""
    return IdentityError(Reason(error.fault.value), f"{what}: {error}")
