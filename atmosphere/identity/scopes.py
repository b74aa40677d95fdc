"""Scopes: what a key may do, as paths that can be compared by structure alone.

    scope = "*" | word *( sep word ) [ sep "*" ]        sep: ":" after the first word, "/" after that

A scope covers itself and everything below it, so a trailing ``*`` is only there for the reader: ``call`` and
``call:*`` are equal, ``call:llm/*`` covers ``call:llm/chat``, and that covers the tool ``call:llm/chat/generate``.
``*`` covers all.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

from atmosphere.identity.errors import IdentityError, Reason

MAX_SCOPES = 16  # a link's list stays comparable in microseconds and fits the 700 bytes of a membership
MAX_SCOPE_BYTES = 64

ALL = "*"
CALL = "call"      # call:TYPE[/TOOL]: use capabilities of other nodes
SERVE = "serve"    # offer capabilities to the others
INVITE = "invite"  # hand out invites
ISSUE = "issue"    # appoint issuers
REVOKE = "revoke"  # revoke those who are not above
ADMIN = "admin"    # change settings of other nodes
DEPLOY = "deploy"  # place packages on other nodes

MEMBER = ("call:*", "serve")
"""What an invite gives unless told otherwise."""

_SCOPE = re.compile(r"\*|[a-z]+(:(\*|[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*(/\*)?))?")


@lru_cache(maxsize=1024)
def _path(scope: str) -> tuple[str, ...]:
    if len(scope) > MAX_SCOPE_BYTES or not _SCOPE.fullmatch(scope):
        raise IdentityError(
            Reason.MALFORMED, f"not a scope: {scope[:80]!r}. Examples: *, call:*, call:llm/chat, serve, invite."
        )
    head, _, rest = scope.partition(":")
    words = [head, *rest.split("/")] if rest else [head]
    return tuple(words[:-1] if words[-1] == "*" else words)


def covers(scopes: Iterable[str], wanted: str) -> bool:
    """Whether one of *scopes* covers *wanted*. Raises IdentityError (malformed) for what is not a scope."""
    path = _path(wanted)
    return any(path[: len(above)] == above for above in map(_path, scopes))


def is_subset(narrow: Iterable[str], wide: Iterable[str]) -> bool:
    """Whether *narrow* allows nothing that *wide* does not."""
    wide = tuple(wide)
    return all(covers(wide, scope) for scope in narrow)


def check(scopes: Iterable[str]) -> tuple[str, ...]:
    """*scopes* as a tuple. Raises IdentityError (malformed) unless they are 1 to 16 well-formed scopes."""
    result = tuple(scopes)
    if not 1 <= len(result) <= MAX_SCOPES:
        raise IdentityError(Reason.MALFORMED, f"{len(result)} scopes where 1 to {MAX_SCOPES} belong")
    for scope in result:
        _path(scope)
    return result
