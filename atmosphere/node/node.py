"""The node: its parts, and what the rooms above may ask of it."""

from __future__ import annotations

import dataclasses
import logging
import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import trio

from atmosphere.audit import AuditLog
from atmosphere.capabilities.adapters.embedder import EmbedderBackend
from atmosphere.capabilities.adapters.health import HealthBackend
from atmosphere.capabilities.backend import Backend
from atmosphere.capabilities.registry import LocalRegistry, RegistryStatistics
from atmosphere.capabilities.scanner import Scanner, TargetStatus, plan_targets
from atmosphere.config import BackendConfig, Config
from atmosphere.cost import Machine, Meter
from atmosphere.cost.keeper import CostKeeper
from atmosphere.cost.views import CostView, Price
from atmosphere.embedding import Embedder
from atmosphere.env import Env
from atmosphere.identity import Identity, JoinRequest, Keyring, MemoryKeyring, Target
from atmosphere.identity.api_keys import ApiKeys
from atmosphere.identity.identity import ISSUER_S
from atmosphere.knowledge import FolderInfo, IndexReport, Knowledge, KnowledgeBackend, KnowledgeError
from atmosphere.mesh.announcer import Announcer, Load, beacon_period
from atmosphere.mesh.detector import DetectorStatistics
from atmosphere.mesh.service import Mesh
from atmosphere.mesh.table import GradientTable
from atmosphere.mesh.views import (
    CapabilityView,
    ChangeView,
    IssuerView,
    NodeView,
    capability_views,
    change_views,
    node_views,
)
from atmosphere.node.standing import Standing
from atmosphere.routing.arbiter import ArbiterStatistics
from atmosphere.routing.decision import Decision, DecisionLog, Refused
from atmosphere.routing.filters import GPU, policy_of
from atmosphere.routing.intent import Intent
from atmosphere.routing.learnt import Learnt
from atmosphere.routing.lessons import SURE
from atmosphere.routing.models import levels_of
from atmosphere.routing.router import Router
from atmosphere.routing.vectorizer import Vectorizer
from atmosphere.store import Store
from atmosphere.work.dispatcher import Dispatcher
from atmosphere.work.plans.runner import PlanRunner
from atmosphere.work.statistics import DispatcherStatistics
from protocols.call.client import CallClient, ClientStatistics
from protocols.call.server import CallServer, ServerStatistics
from transports.host import Host, HostStatistics
from transports.peer_id import PeerId

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Status:
    """One screen of truth."""

    mesh: dict[str, str]
    me: dict[str, object]
    nodes: tuple[NodeView, ...]


@dataclass(frozen=True, slots=True)
class Statistics:
    """The parts of a node in numbers."""

    host: HostStatistics
    calls_out: ClientStatistics
    calls_in: ServerStatistics
    work: DispatcherStatistics
    second: ArbiterStatistics | None
    """What decision models were asked about routing."""
    detector: DetectorStatistics
    registry: RegistryStatistics


@dataclass(frozen=True, slots=True)
class Parts:
    """What a node is made of besides its settings: from a home folder, or in memory."""

    keyring: Keyring | MemoryKeyring
    store: Store
    embedder: Embedder
    backends: tuple[Backend, ...] = ()
    """Offered from the start, besides what is built in and what the settings name."""
    machine: Machine | None = None
    """What is read to know what work costs here; None: nothing is, only the settings count."""


class Node:
    """A running node; made by :func:`open_node`."""

    def __init__(self, parts: Parts, config: Config, env: Env) -> None:
        self.keyring = parts.keyring
        self.home = parts.keyring.home
        self.config = config
        self.env = env
        self.store = store = parts.store
        self.embedder = embedder = parts.embedder
        identity = parts.keyring.load()
        self.peer_id: PeerId = identity.peer_id
        self.name = config.name or identity.name or socket.gethostname()
        self.mesh_id: str = identity.mesh_id
        self.mesh_name: str = identity.mesh_name
        self.started_at = env.now()
        self.stop_requested = trio.Event()
        self.audit = AuditLog(store, env)
        self.api_keys = ApiKeys(store, env)
        self.standing = Standing(parts.keyring, config, store, self.audit, env)
        self.table = GradientTable(self.peer_id)
        self.router = Router(
            self.table, embedder, env, config.aliases, levels=levels_of(config.names), policy=policy_of(config.routing)
        )
        self.learnt = Learnt(self.router.outcomes, self.router.vectors, store, env)
        self.learnt.load()
        self.standing.on_revoked = self._revoked
        self.cost = CostKeeper(parts.machine, Meter(config.cost), env, self._cost_changed)
        self.registry = LocalRegistry(
            env.monotonic, on_change=self._registry_changed, pace_pause_s=lambda: beacon_period(len(self.table.nodes))
        )
        self.knowledge = Knowledge(store, embedder, env)
        targets = plan_targets(config.backends, probe=config.probe, environ=os.environ)
        self.scanner = Scanner(self.registry, targets, concurrency=config.concurrency)
        self.announcer = Announcer(lambda: self.identity, store.next_counter("boot_epoch"), env, self._load)
        self._builtin: list[Backend] = [
            EmbedderBackend(embedder, env),
            HealthBackend(env, self.home),
            KnowledgeBackend(self.knowledge, embedder, env),
            *parts.backends,
        ]
        self._changed = trio.Event()
        # Set by open_node, in the order in which they come to life.
        self.host: Host
        self.mesh: Mesh
        self.vectorizer: Vectorizer
        self.calls: CallServer
        self.client: CallClient
        self.dispatcher: Dispatcher
        self.plans: PlanRunner

    def __repr__(self) -> str:
        return f"<Node {self.name} {self.peer_id.short} of {self.mesh_name}>"

    @property
    def identity(self) -> Identity:
        """Changes when the node renews or is appointed an issuer."""
        return self.standing.identity

    # -- what is offered --------------------------------------------------------------------------------------------

    def _registry_changed(self) -> None:
        self._changed.set()

    def _load(self) -> Load:
        load = self.registry.load()
        return Load(load.permille, load.queue, self.cost.meter.told_milli)

    def _cost_changed(self) -> None:
        self.mesh.load_moved()
        self._changed.set()  # a GPU is a label of the offer

    def _revoked(self, peer: PeerId) -> None:
        self.router.forget(peer)
        self.learnt.forget(peer)

    async def keep_offer(self) -> None:
        """Tell the mesh whenever what this node offers has changed, until cancelled."""
        while True:
            self._changed = trio.Event()
            self.tell_offer()
            await self._changed.wait()

    def tell_offer(self) -> None:
        """Tell the mesh what this node offers now."""
        described = []
        for card_id, card in self.registry.cards().items():
            body = self.registry.card_bytes(card_id)
            assert body is not None
            described.append((card_id, body, card))
            if card_id not in self.router.vectors:
                self.vectorizer.own_card(card_id, card)
        labels = {*self.config.labels, *((GPU,) if self.cost.meter.readings.gpus else ())}
        entries = [
            dataclasses.replace(entry, labels=tuple(sorted({*entry.labels, *labels})))
            for entry in self.registry.offer_entries()
        ]
        self.mesh.offer(self.name, entries, described)

    async def refresh_builtin(self) -> None:
        """Look again at what the node itself offers."""
        for backend in self._builtin:
            self.registry.update(backend, await backend.discover())

    # -- what the rooms above ask -----------------------------------------------------------------------------------

    def addresses(self) -> tuple[str, ...]:
        """Where others can reach this node, with its peer id."""
        return self.host.addresses

    def status(self) -> Status:
        """Who this node is and what it knows of every other one."""
        return Status(
            mesh={"id": self.mesh_id, "name": self.mesh_name},
            me={
                "peer_id": str(self.peer_id),
                "name": self.name,
                "addresses": list(self.addresses()),
                "membership": self.standing.view(),
            },
            nodes=node_views(self.table, self.env.monotonic()),
        )

    def changes(self, since: int) -> tuple[ChangeView, ...]:
        """What has changed in the table after change number *since*, oldest first."""
        return change_views(self.table, since)

    def statistics(self) -> Statistics:
        """Counters of the parts, for who looks for a leak or a bottleneck."""
        return Statistics(
            host=self.host.statistics(),
            calls_out=self.client.statistics(),
            calls_in=self.calls.statistics(),
            work=self.dispatcher.statistics(),
            second=None if self.router.arbiter is None else self.router.arbiter.statistics(),
            detector=self.mesh.watch.detector.statistics(),
            registry=self.registry.statistics(),
        )

    def capabilities(self) -> tuple[CapabilityView, ...]:
        """What can be routed to now."""
        return capability_views(self.table)

    def levels(self) -> Mapping[str, frozenset[str]]:
        """The capability names that somebody can serve now, with the types that do."""
        return self.router.offered_levels()

    @property
    def decisions(self) -> DecisionLog:
        """The last decisions that were acted on."""
        return self.router.log

    async def explain(self, intent: Intent, limit: int) -> tuple[Decision, tuple[Refused, ...]]:
        """How *intent* is decided now: up to *limit* candidates, up to *limit* pairs that were filtered out."""
        return await self.router.explain(intent, limit)

    async def judge(self, peer: PeerId, card_id: bytes, good: bool) -> float:
        """Somebody found an answer of that pair good, or bad; the opinion of it now, -1 to 1, on disk."""
        return await self.learnt.judge(peer, card_id, good)

    async def teach(self, decision: Decision, peer: PeerId, card_id: bytes, good: bool) -> bool:
        """Intents like *decision*'s are what that card of *peer* is right, or wrong, for; on disk.

        False: nothing to learn. Meaning had nothing to say (no text, a named model, a capability name that stands for
        many wishes), or the router was sure of this card and it was good.
        """
        intent = decision.intent
        if not intent.text or intent.names_model or intent.level:
            return False
        if good and card_id == decision.meant and (decision.right or 0.0) >= SURE:
            return False
        await self.learnt.teach(peer, card_id, await self.router.embed(intent.text), good)
        return True

    def cost_view(self) -> CostView:
        """What work here costs, and why."""
        cards = self.registry.cards()
        return CostView.of(self.cost.meter, [
            Price(entry.card.hex(), cards[entry.card].type, cards[entry.card].model, entry.price_micros)
            for entry in self.registry.offer_entries() if entry.price_micros
        ])

    def create_invite(
        self,
        uses: int,
        expires_s: float,
        *,
        approval: bool = False,
        offline: bool = False,
        scopes: Sequence[str] | None = None,
    ) -> str:
        """The text of an invite that enrols *uses* new keys within *expires_s* seconds. Raises IdentityError.

        *approval*: the owner is asked for each. *offline*: needs no issuer within reach, and cannot be counted.
        """
        return self.standing.create_invite(uses, expires_s, approval=approval, offline=offline, scopes=scopes)

    async def revoke(self, kind: Target, target: bytes, reason: str) -> None:
        """Revoke a membership (serial), a peer or an issuer (public key): in force here and told to the mesh.

        Raises IdentityError when this node may not.
        """
        await self.standing.revoke(kind, target, reason)

    async def appoint_issuer(self, peer: PeerId, scopes: Sequence[str], lifetime_s: float = ISSUER_S) -> None:
        """Let *peer* renew memberships and, with scope ``invite``, let others in. Raises IdentityError."""
        await self.standing.appoint_issuer(peer, scopes, lifetime_s)

    def issuers(self) -> tuple[IssuerView, ...]:
        """Every issuer that this node knows."""
        return self.standing.issuers()

    def join_requests(self) -> list[JoinRequest]:
        """Who waits for approval here."""
        return self.standing.join_requests()

    async def decide_join(self, peer: PeerId, approve: bool) -> None:
        """Approve or refuse a waiting join request. Raises IdentityError when there is none."""
        await self.standing.decide_join(peer, approve)

    async def add_knowledge(self, path: Path) -> IndexReport:
        """Index a folder or file and offer it. Raises KnowledgeError."""
        report = await self.knowledge.index(path)
        await self.refresh_builtin()
        return report

    async def refresh_knowledge(self) -> None:
        """Take in what has changed in the indexed folders."""
        try:
            await self.env.run_blocking(self.knowledge.refresh)
        except (KnowledgeError, OSError) as error:
            logger.warning("the knowledge folders could not be looked at again: %s", error)
        await self.refresh_builtin()

    async def list_knowledge(self) -> list[FolderInfo]:
        """The indexed folders."""
        return await self.env.run_blocking(self.knowledge.list)

    async def add_backend(self, backend: BackendConfig) -> None:
        """Use a backend from now on, in place of one at the same address (the caller keeps config.yaml)."""
        others = tuple(known for known in self.config.backends if known.url != backend.url)
        self._use_backends((*others, backend))

    async def remove_backend(self, url: str) -> None:
        """Use the backend at *url* no more."""
        self._use_backends(tuple(known for known in self.config.backends if known.url != url))

    def _use_backends(self, backends: tuple[BackendConfig, ...]) -> None:
        self.scanner.retarget(plan_targets(backends, probe=self.config.probe, environ=os.environ))
        self.config = dataclasses.replace(self.config, backends=backends)

    def backends(self) -> Sequence[TargetStatus]:
        """The backends that were named or found."""
        return self.scanner.statistics()

    async def leave(self) -> None:
        """Say goodbye for good: tell the mesh, forget the keys, stop."""
        await self.mesh.say_goodbye()
        await self.env.run_blocking(self.keyring.forget)
        self.stop_requested.set()
