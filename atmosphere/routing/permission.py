"""What may run with an API key.

A scope names capability types, and the router chooses the type. So an intent with a key is tied to a type that the key
covers before it runs: whatever the dispatcher tries after that, a failover too, is of this type.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Protocol

from atmosphere.identity.api_keys import ApiKey
from atmosphere.routing.decision import Decision
from atmosphere.routing.intent import Intent
from protocols.call.errors import CallError, Code


class Decides(Protocol):
    """The router."""

    async def decide(self, intent: Intent) -> Decision: ...


async def permitted(router: Decides, intent: Intent, key: ApiKey | None) -> Intent:
    """*intent* tied to a type that *key* may call, the best there is; the same one without a key or with one for all.

    Raises CallError: FORBIDDEN when the key covers nobody who can, NOT_FOUND when nobody can.
    """
    if key is None or key.may_call_all:
        return intent
    tool, wanted = intent.tool or "", intent.constraints.type
    if wanted is not None and key.may_call(wanted, tool):
        return intent  # exact, or a family that the key covers whole
    if wanted is not None and not wanted.endswith("/*"):
        raise _uncovered(key, wanted, tool)
    decision = await router.decide(intent)
    chosen = next((candidate for candidate in decision.candidates if key.may_call(candidate.card.type, tool)), None)
    if chosen is not None:
        return _of_type(intent, chosen.card.type)
    if wanted is None:  # a decision keeps the best only, and they may all be of other types
        for kind in _types(key, tool):
            tied = _of_type(intent, kind)
            if (await router.decide(tied)).candidates:
                return tied
    if not decision.candidates:
        raise CallError(Code.NOT_FOUND, decision.missing)
    raise _uncovered(key, decision.candidates[0].card.type, tool)


def _uncovered(key: ApiKey, kind: str, tool: str) -> CallError:
    return CallError(Code.FORBIDDEN, f"the API key {key.name!r} is for {', '.join(key.scopes)} and does not cover "
                     f"call:{kind[:64]}/{tool[:64]}; ask the owner of the node for one that does")


def _types(key: ApiKey, tool: str) -> Iterator[str]:
    """The type constraints that hold nothing but what *key* covers."""
    for scope in key.scopes:
        words = [word for word in scope.partition(":")[2].split("/") if word != "*"]
        yield "/".join((*words, "*"))
        for kind in ("/".join(words), "/".join(words[:-1])):
            if key.may_call(kind, tool):
                yield kind


def _of_type(intent: Intent, kind: str) -> Intent:
    return dataclasses.replace(intent, constraints=dataclasses.replace(intent.constraints, type=kind))
