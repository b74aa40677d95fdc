"""API keys at the door: who must show one. What a request with one may run is ``routing/permission``."""

from __future__ import annotations

import dataclasses

from atmosphere.audit import AuditKind, AuditLog
from atmosphere.http.errors import HttpError
from atmosphere.identity.api_keys import PREFIX, ApiKey, ApiKeys
from atmosphere.routing.permission import permitted as permitted

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


def _bearer(authorization: bytes | None) -> str:
    """The token of a Bearer header; empty for anything else."""
    scheme, _, token = (authorization or b"").decode("latin-1").strip().partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""
