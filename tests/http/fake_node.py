"""A small twin of the node: the surface that ``atmosphere/http`` uses, its work a function of the test."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import trio

from atmosphere.audit import AuditLog
from atmosphere.capabilities.card import Card
from atmosphere.config import BackendConfig, Config, CostConfig
from atmosphere.cost import Meter
from atmosphere.cost.views import CostView, Price
from atmosphere.env import SystemEnv
from atmosphere.identity import IdentityError, Reason
from atmosphere.identity.api_keys import ApiKeys
from atmosphere.identity.revocation import Target
from atmosphere.knowledge import KnowledgeError
from atmosphere.mesh.views import CapabilityRef, CapabilityView, ChangeView, NodeView
from atmosphere.routing.decision import Candidate, Decision, DecisionLog, Refused
from atmosphere.routing.intent import Intent
from atmosphere.store import Store
from atmosphere.work.execution import Execution
from atmosphere.work.plans.permission import PlanPermission
from atmosphere.work.plans.runner import PlanRunner
from atmosphere.work.units import Outcome, Unit, UnitResult
from protocols.call.errors import CallError, Code
from transports.peer_id import PeerId

PEER = PeerId.from_public_key(bytes(range(32)))
CARD_ID = bytes(range(32))
KEPT = 3
"""Candidates in a decision."""
CARD = Card(type="llm/chat", description="a model", model="tiny")

Emit = Callable[[bytes], Awaitable[None]]
Work = Callable[[Intent, bytes, Emit], Awaitable[bytes]]


@dataclass(frozen=True)
class FakeIssuer:
    peer_id: str
    name: str
    scopes: tuple[str, ...]
    not_after: float


@dataclass(frozen=True)
class FakeRequest:
    invite_id: bytes
    peer: PeerId
    name: str
    asked_at: float
    state: str


@dataclass(frozen=True)
class FakeStatus:
    mesh: dict[str, str]
    nodes: tuple[NodeView, ...]


def candidate(path: str = "local", kind: str = CARD.type) -> Candidate:
    return Candidate(PEER, "here", CARD_ID, replace(CARD, type=kind), 0.9, {"semantic": 0.9}, path, None)


class FakeWork:
    """The work as the dispatcher's end of a call sees it."""

    def __init__(self, pieces: trio.MemoryReceiveChannel[bytes]) -> None:
        self.outcome: bytes | CallError | None = None
        self.done = trio.Event()
        self.pieces = pieces

    async def next_piece(self) -> bytes | None:
        try:
            return await self.pieces.receive()
        except trio.EndOfChannel:
            return None

    async def aclose(self) -> None:
        self.pieces.close()

    async def result(self) -> bytes:
        await self.done.wait()
        if isinstance(self.outcome, CallError):
            raise self.outcome
        assert self.outcome is not None
        return self.outcome


@dataclass
class FakeNode:
    """``nursery`` runs the work, as the node's does: the request's task holds no scope of it.

    Whoever makes one closes it: a finalizer would run whenever the collector does, in the depth of a parser too.
    """

    nursery: trio.Nursery
    work: Work
    home: Path = Path("/nonexistent")
    config: Config = field(default_factory=lambda: Config(aliases={"small": ("tiny",)}, grace_s=0.3))

    def __post_init__(self) -> None:
        self.env = SystemEnv()
        self.store = Store.memory(self.env)
        self.audit = AuditLog(self.store, self.env)
        self.api_keys = ApiKeys(self.store, self.env)
        self.invited: list[tuple[int, bool, bool, tuple[str, ...] | None]] = []
        self.appointed: list[FakeIssuer] = []
        self.revoked: list[tuple[Target, bytes, str]] = []
        self.waiting = [FakeRequest(b"\1" * 16, PEER, "laptop", 5.0, "pending")]
        self.types = ("llm/chat",)
        self.peer_id = PEER
        self.name = "here"
        self.mesh_id = "mesh"
        self.started_at = 1_800_000_000.0
        self.stop_requested = trio.Event()
        self.seen: list[tuple[Intent, bytes, float | None]] = []
        self.cancelled = trio.Event()
        self.path = "local"
        self.left = False
        self.ran: list[Unit] = []
        self.plans = PlanRunner(self.run_unit, self.store, self.env,
                                PlanPermission(self, self.api_keys, self.audit))
        self._backends: list[BackendConfig] = []
        self.decisions = DecisionLog()
        self.judged: list[tuple[PeerId, bytes, bool]] = []
        self.taught: list[tuple[PeerId, bytes, bool]] = []
        self.calibrated: list[tuple[bytes, bool]] = []
        self.meter = Meter(CostConfig())
        self.capability_names: dict[str, frozenset[str]] = {}

    def close(self) -> None:
        """Close its store."""
        self.store.close()

    router = property(lambda self: self)
    dispatcher = property(lambda self: self)

    async def decide(self, intent: Intent) -> Decision:
        await trio.lowlevel.checkpoint()
        if intent.model == "nobody":
            return Decision(intent, (), {"model": 3}, missing="no node has the model 'nobody'")
        wanted = intent.constraints.type
        able = tuple(candidate(self.path, kind) for kind in self.types if intent.tool is None or wanted is None
                     or (kind.startswith(wanted[:-1]) if wanted.endswith("/*") else kind == wanted))[:KEPT]
        return Decision(intent, able, {"type": 2}, "" if able else "no node offers that", elapsed_ms=0.25)

    async def explain(self, intent: Intent, limit: int) -> tuple[Decision, tuple[Refused, ...]]:
        return await self.decide(intent), (Refused(PEER, "there", CARD_ID, "llm/embed", "e", "type"),)

    async def judge(self, peer: PeerId, card_id: bytes, good: bool) -> float:
        await trio.lowlevel.checkpoint()
        self.judged.append((peer, card_id, good))
        return 0.25 if good else -0.25

    async def teach(self, decision: Decision, peer: PeerId, card_id: bytes, good: bool) -> bool:
        await trio.lowlevel.checkpoint()
        self.taught.append((peer, card_id, good))
        return True

    def told(self, decision: Decision, card_id: bytes, good: bool) -> None:
        self.calibrated.append((card_id, good))

    def levels(self) -> dict[str, frozenset[str]]:
        return self.capability_names

    def cost_view(self) -> CostView:
        return CostView.of(self.meter, [Price("ab", "llm/chat", "tiny", 30_000)])

    @asynccontextmanager
    async def run(self, intent: Intent, args: bytes, *, deadline_s: float | None = None,
                  trace_id: bytes = b"") -> AsyncIterator[Execution]:
        self.seen.append((intent, args, deadline_s))
        send, receive = trio.open_memory_channel[bytes](0)
        work = FakeWork(receive)
        started = trio.Event()
        scope = trio.CancelScope()

        async def emit(piece: bytes) -> None:
            started.set()
            await send.send(piece)

        async def job() -> None:
            with scope:
                try:
                    work.outcome = await self.work(intent, args, emit)
                except CallError as error:
                    work.outcome = error
            if scope.cancelled_caught:
                self.cancelled.set()
            work.done.set()
            started.set()
            send.close()

        self.nursery.start_soon(job)
        try:
            await started.wait()
            first = await work.next_piece()
            if first is None:
                await work.result()
            chosen = candidate(self.path, intent.constraints.type or self.types[0])
            decision = Decision(intent, (chosen,), {"type": 2}, elapsed_ms=0.25)
            self.decisions.add(trace_id.hex(), decision, self.env.now()).ended(chosen, "ok", 0)
            yield Execution(decision, chosen, (), trace_id, work, first)
        finally:
            scope.cancel()
            with trio.CancelScope(shield=True):
                await work.done.wait()
            await work.aclose()

    async def run_unit(self, unit: Unit) -> UnitResult:
        """A unit of a plan: ``{"did": args}``; waits for ever where its arguments say so."""
        self.ran.append(unit)
        args = json.loads(unit.args)
        if args.get("wait"):
            await trio.sleep_forever()
        return UnitResult(0, Outcome.OK, json.dumps({"did": args}).encode(), node=self.name)

    def status(self) -> FakeStatus:
        ref = CapabilityRef(CARD_ID.hex(), CARD.type, CARD.model)
        view = NodeView("here", str(PEER), "online", "local", None, 0.0, (ref,), 0.0, "")
        return FakeStatus({"id": "mesh", "name": "mesh"}, (view,))

    def changes(self, since: int) -> tuple[ChangeView, ...]:
        log = (ChangeView(1, str(PEER), "here", "known"), ChangeView(2, str(PEER), "here", "online"))
        return tuple(view for view in log if view.number > since)

    def statistics(self) -> FakeStatus:
        return FakeStatus({"running": "0"}, ())

    def capabilities(self) -> tuple[CapabilityView, ...]:
        return (CapabilityView(CARD_ID.hex(), "llm/chat", "tiny", "a model", ("chat",), ("text",), (), "",
                               ((str(PEER), "here"),)),)

    def create_invite(self, uses: int, expires_s: float, *, approval: bool = False, offline: bool = False,
                      scopes: Sequence[str] | None = None) -> str:
        if uses > 5:
            raise ValueError("at most 5 uses")
        self.invited.append((uses, approval, offline, None if scopes is None else tuple(scopes)))
        return f"INVITE{uses}"

    def issuers(self) -> list[FakeIssuer]:
        return self.appointed

    async def appoint_issuer(self, peer: PeerId, scopes: Sequence[str], lifetime_s: float) -> None:
        if "*" in (wanted := tuple(scopes)):
            raise IdentityError(Reason.WIDENED_SCOPE, "that is more than you have")
        self.appointed.append(FakeIssuer(str(peer), "there", wanted, lifetime_s))

    async def revoke(self, kind: Target, target: bytes, reason: str) -> None:
        if len(target) not in (16, 32):
            raise IdentityError(Reason.MALFORMED, "a revocation whose target has the wrong length")
        if reason == "coup":
            raise IdentityError(Reason.ABOVE_REVOKER, "you are below")
        self.revoked.append((kind, target, reason))

    def join_requests(self) -> list[FakeRequest]:
        return self.waiting

    async def decide_join(self, peer: PeerId, approve: bool) -> None:
        self.waiting = [waiting for waiting in self.waiting if waiting.peer != peer]

    async def add_knowledge(self, path: Path) -> Any:
        if path.name == "missing":
            raise KnowledgeError(f"{path} is not there")
        return CapabilityRef("1", str(path), "")

    async def list_knowledge(self) -> list[Any]:
        return [CapabilityRef("1", "folder", "")]

    async def add_backend(self, backend: BackendConfig) -> None:
        self._backends.append(backend)

    async def remove_backend(self, url: str) -> None:
        self._backends = [backend for backend in self._backends if backend.url != url]

    def backends(self) -> list[BackendConfig]:
        return self._backends

    async def leave(self) -> None:
        self.left = True
        self.stop_requested.set()


def completion(content: str = "hello") -> dict[str, Any]:
    message = {"role": "assistant", "content": content}
    return {"id": "c1", "object": "chat.completion", "created": 1, "model": "tiny",
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}


def chunk(content: str) -> bytes:
    return json.dumps({"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "tiny", "choices": [
        {"index": 0, "delta": {"content": content}, "finish_reason": None}]}).encode()


async def echo(intent: Intent, args: bytes, emit: Emit) -> bytes:
    """A chat model that says ``hello``, in two pieces when streamed."""
    if json.loads(args).get("stream"):
        for word in ("hel", "lo"):
            await emit(chunk(word))
        return b""
    return json.dumps(completion()).encode()


def fails(code: Code, **more: Any) -> Work:
    async def work(intent: Intent, args: bytes, emit: Emit) -> bytes:
        raise CallError(code, f"it is {code}", **more)

    return work
