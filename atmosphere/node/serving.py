"""Work for other nodes: who may have it, how much, and a note of what was done."""

from __future__ import annotations

import trio

from atmosphere.audit import AuditKind, AuditLog
from atmosphere.capabilities.backend import Emit, ToolCall
from atmosphere.capabilities.card import Card
from atmosphere.capabilities.registry import LocalRegistry
from atmosphere.env import Env
from atmosphere.mesh.service import Mesh
from atmosphere.rates import CallRates
from atmosphere.work.pieces import framed
from protocols.call import CallError, Code
from protocols.call.messages import IncomingCall, Load

UNKNOWN = "unknown"
"""The family of a card that this node does not offer, for rates and audit."""


class Serving:
    """Answers calls of other nodes. Everything about the caller is checked here, at every call."""

    def __init__(self, registry: LocalRegistry, mesh: Mesh, audit: AuditLog, env: Env) -> None:
        self._registry = registry
        self._mesh = mesh
        self._audit = audit
        self._env = env
        self._rates = CallRates()

    def __repr__(self) -> str:
        return f"<Serving {self._rates!r}>"

    async def serve(self, call: IncomingCall, emit: Emit) -> bytes:
        """Run *call* on this node's registry. Raises CallError."""
        await self._mesh.settled.wait()
        card = self._registry.cards().get(call.card)
        family = card.type if card is not None else UNKNOWN
        started = self._env.monotonic()
        try:
            self._permit(call, card, started)
        except CallError as error:
            self._audit.record(AuditKind.REFUSED_CALL, str(call.peer), f"{family}/{call.tool}", str(error.code))
            raise
        outcome = str(Code.INTERNAL)
        try:
            result = await self._registry.serve(call.card, self._tool_call(call), framed(emit))
            outcome = "ok"
            return result
        except CallError as error:
            outcome = str(error.code)
            raise
        except trio.Cancelled:
            outcome = str(Code.CANCELLED)
            raise
        finally:
            self._audit.served(str(call.peer), family, call.tool, outcome, self._env.monotonic() - started)

    def _permit(self, call: IncomingCall, card: Card | None, now: float) -> None:
        membership = self._mesh.members.of(call.peer)
        if membership is None:
            raise CallError(Code.FORBIDDEN, "the membership that was shown does not hold any more; greet again")
        # An unknown card is refused later, with a better reason.
        if not membership.allows(f"call:{card.type}" if card is not None else "call"):
            raise CallError(Code.FORBIDDEN, "the scopes of the membership do not cover this capability")
        wait = self._rates.take(call.peer.raw, card.type if card is not None else UNKNOWN, now)
        if wait:
            raise CallError(
                Code.RATE_LIMITED,
                f"more calls than this node takes from one other; try again in {wait:.1f} s",
                retryable=True,
                retry_after_ms=int(wait * 1000) + 1,
            )

    def _tool_call(self, call: IncomingCall) -> ToolCall:
        return ToolCall(
            tool=call.tool,
            args=call.args,
            caller=call.peer,
            trace_id=call.trace_id,
            idempotency_key=call.idempotency_key,
            deadline=None if call.deadline_s is None else self._env.monotonic() + call.deadline_s,
        )

    def load(self) -> Load:
        """How busy this node is, to be carried on call frames."""
        load = self._registry.load()
        return Load(load.permille, load.queue)
