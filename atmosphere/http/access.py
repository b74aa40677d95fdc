"""API keys at the door: who must show one, and what a request with one may run.

A scope names capability types, and the router chooses the type. So an intent with a key is tied to a type that the key
covers before it runs: whatever the dispatcher tries after that, a failover too, is of this type.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from atmosphere.audit import AuditKind, AuditLog
from atmosphere.http.errors import HttpError
from atmosphere.http.port import Decides
from atmosphere.identity.api_keys import PREFIX, ApiKey, ApiKeys
from atmosphere.routing.intent import Intent
from protocols.call.errors import CallError, Code

_CHALLENGE = ((b"www-authenticate", b"Bearer"),)
_MISSING = HttpError(401, "this address of the node needs an API key: send 'Authorization: Bearer atm_...'; its owner "
                     "makes one with `atmosphere-p2p keys add NAME`", "missing_api_key", headers=_CHALLENGE)
_INVALID = HttpError(401, "this API key is unknown or revoked; the owner of the node makes a new one with "
                     "`atmosphere-p2p keys add NAME`", "invalid_api_key", headers=_CHALLENGE)


class Access:
    """The rule of one TCP listener. *required*: every request needs a key; else only what looks like one is checked."""

    def __init__(self, keys: ApiKeys, audit: AuditLog, *, required: bool) -> None:
        self._keys = keys
        self._audit = audit
        self._required = required

    def __repr__(self) -> str:
        return f"<Access {'with a key' if self._required else 'free'}>"

    async def admit(self, authorization: bytes | None, client: str) -> ApiKey | None:
        """The key that a request shows, None where it needs none. Raises HttpError (401).

        SDKs send a dummy key when they have none, so without *required* a text that is none of ours passes; one of
        ours that is revoked does not.
        """
        token = _bearer(authorization)
        if not self._required and not token.startswith(PREFIX):
            return None
        await self._keys.refresh()
        key = self._keys.check(token)
        if key is None:
            error = _INVALID if token else _MISSING
            self._audit.record(AuditKind.REFUSED_CALL, f"http:{client}", "http", error.code)
            raise dataclasses.replace(error)  # a new one: what was raised holds on to its traceback
        return key


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


def _bearer(authorization: bytes | None) -> str:
    """The token of a Bearer header; empty for anything else."""
    scheme, _, token = (authorization or b"").decode("latin-1").strip().partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""
