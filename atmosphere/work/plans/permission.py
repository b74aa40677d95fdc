"""What a plan's units may run, looked at anew for every unit: a key may have been revoked since the plan was given."""

from __future__ import annotations

from atmosphere.audit import AuditKind, AuditLog
from atmosphere.capabilities.card import Effects
from atmosphere.identity.api_keys import ApiKeys
from atmosphere.routing.decision import Decision
from atmosphere.routing.intent import Intent
from atmosphere.routing.permission import Decides, permitted
from atmosphere.work.units import UnitResult
from protocols.call import CallError, Code


class PlanPermission:
    """The rights of API keys, for plans that run on after the request that gave them."""

    def __init__(self, router: Decides, keys: ApiKeys, audit: AuditLog) -> None:
        self._router = router
        self._keys = keys
        self._audit = audit

    async def judge(self, owner: str, intent: Intent) -> tuple[Intent, Effects]:
        """*intent* as *owner* (a key's id; empty: the node's owner) may run it, and what running it twice does.

        The effects are the strictest among all who can do it now. Raises CallError: FORBIDDEN.
        """
        if owner:
            await self._keys.refresh()
            key = self._keys.in_force(owner)
            if key is None:
                raise CallError(Code.FORBIDDEN, "the API key that gave this plan is revoked; give the plan again with "
                                "one that is in force")
            intent = await permitted(self._router, intent, key)
        return intent, strictest(await self._router.decide(intent))

    def note(self, owner: str, intent: Intent, result: UnitResult | CallError) -> None:
        """Write down in the audit log what a key was used for."""
        if not owner:
            return
        kind, tool = intent.constraints.type or "*", intent.tool or ""
        if isinstance(result, CallError):
            self._audit.record(AuditKind.REFUSED_CALL, f"key:{owner}", f"{kind}/{tool}", str(result.code))
        else:
            outcome = "ok" if result.ok or result.error is None else str(result.error.code)
            self._audit.served(f"key:{owner}", kind, tool, outcome, result.seconds)


def strictest(decision: Decision) -> Effects:
    """The strictest effects among the candidates; of nobody, or of a tool that a card does not describe: once."""
    found = set()
    for candidate in decision.candidates:
        tool = candidate.card.tool(decision.intent.tool or "")
        found.add(Effects.ONCE if tool is None else tool.effects)
    return next((each for each in (Effects.ONCE, Effects.IDEMPOTENT, Effects.NONE) if each in found), Effects.ONCE)
