"""The node: one nursery, the parts and how they are wired, and what the rooms above may ask of it."""

from __future__ import annotations

import dataclasses
import logging
import os
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import trio

from atmosphere import __version__
from atmosphere.audit import AuditKind, AuditLog
from atmosphere.capabilities.adapters.embedder import EmbedderBackend
from atmosphere.capabilities.adapters.health import HealthBackend
from atmosphere.capabilities.backend import Backend, Emit, ToolCall
from atmosphere.capabilities.card import Card
from atmosphere.capabilities.registry import LocalRegistry
from atmosphere.capabilities.scanner import Scanner, TargetStatus, plan_targets
from atmosphere.config import BackendConfig, Config
from atmosphere.embedding import Embedder, MiniLM
from atmosphere.env import Env, SystemEnv
from atmosphere.identity import (
    Approvals,
    Enrolment,
    Identity,
    IdentityError,
    InviteBook,
    JoinRequest,
    Keyring,
    Reason,
    Target,
    open_revocation,
)
from atmosphere.identity.api_keys import ApiKeys
from atmosphere.identity.identity import ISSUER_S, MEMBERSHIP_S
from atmosphere.identity.scopes import MEMBER
from atmosphere.knowledge import FolderInfo, IndexReport, Knowledge, KnowledgeBackend
from atmosphere.mesh.announcer import Announcer, Load, beacon_addresses
from atmosphere.mesh.renewal import Renewal
from atmosphere.mesh.service import Mesh
from atmosphere.mesh.table import GradientTable
from atmosphere.mesh.views import CapabilityView, IssuerView, NodeView, capability_views, issuer_views, node_views
from atmosphere.rates import CallRates, JoinRates
from atmosphere.routing.router import Router
from atmosphere.routing.vectorizer import Vectorizer
from atmosphere.store import Store
from atmosphere.work.dispatcher import Dispatcher
from atmosphere.work.pieces import framed
from atmosphere.work.remote import MeshCalls
from protocols.call import CallError, Code
from protocols.call.client import CallClient
from protocols.call.messages import IncomingCall
from protocols.call.messages import Load as CallLoad
from protocols.call.server import CallServer
from protocols.join.messages import PROTOCOL as JOIN_PROTOCOL
from protocols.join.messages import Enrol, Enrolled, Refused, Reply, Request
from protocols.join.server import serve_join
from protocols.sync.messages import Kind, Record
from transports.addresses import split_peer
from transports.config import HostConfig
from transports.dialer import Dialer
from transports.host import Host, open_host
from transports.mdns import announce_and_browse
from transports.peer_id import PeerId

logger = logging.getLogger(__name__)

CALL_PROTOCOL = "/atmosphere/call/1"
INVITE_ADDRESSES = 2
"""More would make the QR code larger; the joiner learns the others later."""
GOODBYE_S = 0.3
"""For the goodbye to leave before the connections close."""


@dataclass(frozen=True, slots=True)
class Status:
    """One screen of truth."""

    mesh: dict[str, str]
    me: dict[str, object]
    nodes: tuple[NodeView, ...]


class Node:
    """A running node; made by :func:`open_node`."""

    def __init__(self, home: Path, config: Config, env: Env, identity: Identity, store: Store, embedder: Embedder):
        self.home = home
        self.config = config
        self.env = env
        self.identity = identity
        self.embedder = embedder
        self.peer_id: PeerId = identity.peer_id
        self.name = config.name or identity.name or socket.gethostname()
        self.mesh_id: str = identity.mesh_id
        self.mesh_name: str = identity.mesh_name
        self.started_at = env.now()
        self.stop_requested = trio.Event()
        self.table = GradientTable(self.peer_id)
        self.router = Router(self.table, embedder, env, config.aliases)
        self.registry = LocalRegistry(env.monotonic, on_change=self._registry_changed)
        self.knowledge = Knowledge(store, embedder, env)
        targets = plan_targets(config.backends, probe=config.probe, environ=os.environ)
        self.scanner = Scanner(self.registry, targets, concurrency=config.concurrency)
        self.store = store
        self.audit = AuditLog(store, env)
        self.api_keys = ApiKeys(store, env)
        self.approvals = Approvals(store)
        self._call_rates = CallRates()
        self._join_rates = JoinRates()
        self._announcer = Announcer(lambda: self.identity, store.next_counter("boot_epoch"), env, self._load)
        self._builtin: list[Backend] = [
            EmbedderBackend(embedder, env),
            HealthBackend(env, home),
            KnowledgeBackend(self.knowledge, embedder, env),
        ]
        self._changed = trio.Event()
        # Set by open_node, in the order in which they come to life.
        self.host: Host
        self.mesh: Mesh
        self.vectorizer: Vectorizer
        self.renewal: Renewal
        self.enrolment: Enrolment
        self.calls: CallServer
        self.dispatcher: Dispatcher

    def __repr__(self) -> str:
        return f"<Node {self.name} {self.peer_id.short} of {self.mesh_name}>"

    # -- what is offered --------------------------------------------------------------------------------------------

    def _registry_changed(self) -> None:
        self._changed.set()

    def _load(self) -> Load:
        load = self.registry.load()
        return Load(load.permille, load.queue)

    async def _offer(self) -> None:
        """Tell the mesh whenever what this node offers has changed."""
        while True:
            self._changed = trio.Event()
            self._tell()
            await self._changed.wait()

    def _tell(self) -> None:
        cards = self.registry.cards()
        described = []
        for card_id, card in cards.items():
            body = self.registry.card_bytes(card_id)
            assert body is not None
            described.append((card_id, body, card))
            if card_id not in self.router.vectors:
                self.vectorizer.own_card(card_id, card)
        entries = [
            dataclasses.replace(entry, labels=tuple(sorted({*entry.labels, *self.config.labels})))
            for entry in self.registry.offer_entries()
        ]
        self.mesh.offer(self.name, entries, described)

    async def refresh_builtin(self) -> None:
        """Look again at what the node itself offers."""
        for backend in self._builtin:
            self.registry.update(backend, await backend.discover())

    # -- work for others --------------------------------------------------------------------------------------------

    async def _serve(self, call: IncomingCall, emit: Emit) -> bytes:
        """A call of another node: who it is and how much it asks for is checked here, at every call."""
        await self.mesh.settled.wait()
        card = self.registry.cards().get(call.card)
        family = card.type if card is not None else "unknown"
        started = self.env.monotonic()
        try:
            self._permit(call, card, started)
        except CallError as error:
            self.audit.record(AuditKind.REFUSED_CALL, str(call.peer), f"{family}/{call.tool}", str(error.code))
            raise
        outcome = str(Code.INTERNAL)
        try:
            result = await self.registry.serve(call.card, self._tool_call(call), framed(emit))
            outcome = "ok"
            return result
        except CallError as error:
            outcome = str(error.code)
            raise
        except trio.Cancelled:
            outcome = str(Code.CANCELLED)
            raise
        finally:
            self.audit.served(str(call.peer), family, call.tool, outcome, self.env.monotonic() - started)

    def _permit(self, call: IncomingCall, card: Card | None, now: float) -> None:
        membership = self.mesh.members.of(call.peer)
        if membership is None:
            raise CallError(Code.FORBIDDEN, "the membership that was shown does not hold any more; greet again")
        if not membership.allows(_scope(card)):
            raise CallError(Code.FORBIDDEN, "the scopes of the membership do not cover this capability")
        wait = self._call_rates.take(call.peer.raw, card.type if card is not None else "unknown", now)
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
            deadline=None if call.deadline_s is None else self.env.monotonic() + call.deadline_s,
        )

    def _call_load(self) -> CallLoad:
        load = self.registry.load()
        return CallLoad(load.permille, load.queue)

    # -- membership -------------------------------------------------------------------------------------------------

    async def _judge_join(self, peer: PeerId, request: Request) -> Reply:
        """A stranger asks to be let in, or a member to be renewed."""
        connection = self.host.connections().get(peer)
        address = connection.remote_address.split("/tcp/")[0] if connection is not None else ""
        wait = self._join_rates.take(peer.raw, address, self.env.monotonic())
        if wait:
            self.audit.record(AuditKind.JOIN_REFUSED, str(peer), outcome="rate_limited")
            return Reply(
                Refused("rate_limited", f"too many requests to join; try again in {wait:.0f} s"),
                int(self.env.now() * 1000),
            )
        reply = await self.enrolment.judge(peer, request)
        what = request.name if isinstance(request, Enrol) else "renewal"
        if isinstance(reply.outcome, Enrolled):
            kind = AuditKind.JOIN if isinstance(request, Enrol) else AuditKind.RENEWAL
            self.audit.record(kind, str(peer), what, "granted")
        elif isinstance(reply.outcome, Refused):
            self.audit.record(AuditKind.JOIN_REFUSED, str(peer), what, reply.outcome.code, reply.outcome.message)
        return reply

    async def _redeemed(self, record: bytes) -> None:
        """An invite was used here: on disk and on its way to the mesh before the joiner has its answer."""
        await self.mesh.say(Record(Kind.REDEMPTION, record))

    async def _renewed(self, identity: Identity) -> None:
        await self.env.run_blocking(lambda: Keyring(self.home).save_membership(identity))
        self.identity = identity
        self.mesh.identity_changed()
        self.audit.record(AuditKind.RENEWAL, str(self.peer_id), "own membership", "granted")
        logger.info("the membership was renewed until %d", identity.membership.not_after)

    def _heard_trust(self, record: Record) -> None:
        """A new trust record is in force."""
        if record.kind is Kind.REVOCATION:
            entry = open_revocation(record.body, self.identity.mesh, self.env.now())
            whom = entry.target.hex() if entry.kind is Target.MEMBERSHIP else str(PeerId.from_public_key(entry.target))
            self.audit.record(AuditKind.REVOKED, str(entry.signer), whom, entry.kind.name.lower(), entry.reason)
        elif record.kind is Kind.ISSUER:
            mine = self.mesh.trust.issuers.chain_of(self.peer_id)
            if mine and mine != self.identity.issuer_chain:
                Keyring(self.home).save_issuer(mine)
                self.identity = self.identity.with_issuer(mine, self.env.now())
                logger.info("this node was appointed an issuer")

    def _expelled(self, peer: PeerId) -> None:
        self.audit.record(AuditKind.EXPELLED, str(peer))

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
                "membership": self._membership_view(),
            },
            nodes=node_views(self.table, self.env.monotonic()),
        )

    def _membership_view(self) -> dict[str, object]:
        membership = self.identity.membership
        renewal = self.renewal.state
        return {
            "not_after": membership.not_after,
            "expires_in_s": round(membership.not_after - self.env.now()),
            "renew_at": round(membership.renew_at),
            "renewal": renewal.state + (f": {renewal.reason}" if renewal.reason else ""),
            "revoked": self.table.nodes[self.peer_id].membership is None,
            "scopes": list(membership.scopes),
            "issuer": str(membership.issuers[-1]) if membership.issuers else None,
            "serial": membership.serial.hex(),
        }

    def capabilities(self) -> tuple[CapabilityView, ...]:
        """What can be routed to now."""
        return capability_views(self.table)

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
        addresses = beacon_addresses(self.addresses())[:INVITE_ADDRESSES]
        now, random = self.env.now(), self.env.token_bytes
        wanted = tuple(scopes) if scopes else MEMBER
        if offline:
            return self.identity.create_offline_invite(addresses, now, random, lifetime=expires_s, scopes=wanted).text
        return self.identity.create_invite(
            addresses, now, random, lifetime=expires_s, uses=uses, scopes=wanted, approval=approval
        ).text

    async def revoke(self, kind: Target, target: bytes, reason: str) -> None:
        """Revoke a membership (serial), a peer or an issuer (public key): in force here and told to the mesh.

        Raises IdentityError when this node may not.
        """
        until = 0
        if kind is Target.MEMBERSHIP:
            known = [n.membership for n in self.table.nodes.values() if n.membership and n.membership.serial == target]
            until = known[0].not_after if known else int(self.env.now() + self.config.membership_s)
        now = self.env.now()
        record = self.identity.revoke(kind, target, now, reason=reason, until=until)
        if not self._would_strike(record):
            keyring = Keyring(self.home)
            if not keyring.has_owner_key:
                raise IdentityError(
                    Reason.ABOVE_REVOKER, "it stands beside or above this node: revoke it where the owner key is"
                )
            record = keyring.revoke_as_owner(kind, target, now, reason=reason, until=until)
        await self.mesh.say(Record(Kind.REVOCATION, record))

    def _would_strike(self, record: bytes) -> bool:
        """Whether the revocation *record* has an effect on what is known of its target; True if nothing is."""
        revocation = open_revocation(record, self.identity.mesh, self.env.now())
        known = [
            credential
            for credential in (
                *(node.membership for node in self.table.nodes.values() if node.membership is not None),
                *self.mesh.trust.issuers.issuers(),
            )
            if revocation.target in (credential.serial, credential.peer.public_key)
        ]
        return not known or any(revocation.strikes(credential) for credential in known)

    async def appoint_issuer(self, peer: PeerId, scopes: Sequence[str], lifetime_s: float = ISSUER_S) -> None:
        """Let *peer* renew memberships and, with scope ``invite``, let others in. Raises IdentityError."""
        chain = self.identity.appoint_issuer(peer, scopes, self.env.now(), self.env.token_bytes, lifetime_s)
        await self.mesh.say(Record(Kind.ISSUER, chain))
        self.audit.record(AuditKind.ISSUER, str(peer), ", ".join(scopes))

    def issuers(self) -> tuple[IssuerView, ...]:
        """Every issuer that this node knows."""
        return issuer_views(self.table, self.mesh.trust.issuers)

    def join_requests(self) -> list[JoinRequest]:
        """Who waits for approval here."""
        return self.approvals.pending()

    async def decide_join(self, peer: PeerId, approve: bool) -> None:
        """Approve or refuse a waiting join request. Raises IdentityError when there is none."""
        if not await self.approvals.decide(peer, approve):
            raise IdentityError(Reason.FORBIDDEN, f"{peer.short} has not asked to join; see `join requests`")
        self.audit.record(AuditKind.APPROVAL, str(peer), outcome="approved" if approve else "refused")

    async def add_knowledge(self, path: Path) -> IndexReport:
        """Index a folder or file and offer it."""
        report = await self.knowledge.index(path)
        await self.refresh_builtin()
        return report

    async def refresh_knowledge(self) -> None:
        """Take in what has changed in the indexed folders."""
        await self.env.run_blocking(self.knowledge.refresh)
        await self.refresh_builtin()

    async def list_knowledge(self) -> list[FolderInfo]:
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
        await self.env.run_blocking(lambda: Keyring(self.home).forget())
        self.stop_requested.set()


def _scope(card: Card | None) -> str:
    """The scope that a call of *card* needs; an unknown card is refused later, with a better reason."""
    return f"call:{card.type}" if card is not None else "call"


def host_config(config: Config, epoch: int) -> HostConfig:
    """The host's settings from the node's."""
    listen = config.listen or (
        f"/ip4/0.0.0.0/tcp/{config.port}",
        f"/ip4/0.0.0.0/tcp/{config.port + 1 if config.port else 0}/ws",
    )
    return HostConfig(listen=listen, gossip_epoch=epoch)


@asynccontextmanager
async def open_node(
    home: Path,
    config: Config,
    *,
    env: Env | None = None,
    embedder: Callable[[], Embedder] = MiniLM.load,
) -> AsyncIterator[Node]:
    """Run the node of *home* for the length of the block.

    *home* must hold keys and a membership. *embedder*: loads the embedding model (in a thread). On exit the mesh is
    told goodbye, work for others may finish within the grace period, then everything ends. Raises HomeError,
    IdentityError, StoreError, ListenError, EmbedderError.
    """
    env = env or SystemEnv()
    identity = Keyring(home).load()
    async with AsyncExitStack() as stack:
        store = Store(home / "node.db", env)
        stack.callback(store.close)
        node = Node(home, config, env, identity, store, await env.run_blocking(embedder))
        host = await stack.enter_async_context(
            open_host(host_config(config, node._announcer.epoch), identity.seed)
        )
        nursery = await stack.enter_async_context(trio.open_nursery())
        stack.callback(nursery.cancel_scope.cancel)
        await _start(node, host, nursery)
        stack.push_async_callback(_farewell, node)
        yield node


async def _start(node: Node, host: Host, nursery: trio.Nursery) -> None:
    env, config = node.env, node.config
    node.host = host
    dialer = Dialer(host, jitter=env.random.random)
    node.mesh = Mesh(
        host,
        dialer,
        lambda: node.identity,
        node._announcer,
        node.table,
        node.store,
        env,
        agent=f"atmosphere-p2p/{__version__}",
        on_card=lambda card_id, card: node.vectorizer.card(card_id, card),
        on_vector=lambda vector: node.vectorizer.fetched(vector),
        on_trust=node._heard_trust,
        on_expelled=node._expelled,
        membership_s=max(config.membership_s, MEMBERSHIP_S),
    )
    trust = node.mesh.trust
    node.renewal = Renewal(
        lambda: node.identity, node._renewed, trust, node.mesh.neighbours, host, env, config.membership_s
    )
    node.vectorizer = Vectorizer(
        node.router.vectors,
        node.embedder,
        env,
        want=lambda card_id: node.mesh.want_vector(card_id, node.router.vectors.space),
        give=node.mesh.give_vector,
    )
    client = CallClient(lambda peer: node.mesh.open_stream(peer, CALL_PROTOCOL))
    node.dispatcher = Dispatcher(
        node.router, node.table, node.registry.serve, MeshCalls(client, node.table, env), env, nursery,
        node.mesh.settled,
    )
    node.calls = CallServer(node._serve, load=node._call_load)
    await node.refresh_builtin()
    nursery.start_soon(client.run)
    await nursery.start(node.mesh.run)
    host.handle(CALL_PROTOCOL, node.calls.serve)
    node.enrolment = Enrolment(
        lambda: node.identity,
        InviteBook(node.store),
        trust.revocations,
        env.now,
        env.token_bytes,
        trust.issuers.chain_of,
        used_elsewhere=trust.redemptions.uses_of,
        lost=trust.redemptions.lost,
        on_redeemed=node._redeemed,
        approvals=node.approvals,
        membership_s=config.membership_s,
    )
    host.handle(JOIN_PROTOCOL, lambda stream: serve_join(stream, node._judge_join, env.now), public=True)
    node._tell()
    if node.identity.issuer_chain:
        trust.hear(Record(Kind.ISSUER, node.identity.issuer_chain))
    nursery.start_soon(node.audit.run)
    nursery.start_soon(node.renewal.run)
    nursery.start_soon(node.vectorizer.run)
    nursery.start_soon(node._offer)
    nursery.start_soon(node.scanner.run)
    nursery.start_soon(node.refresh_knowledge)
    nursery.start_soon(dialer.run)
    known = [split_peer(address) for address in config.bootstrap]
    for peer, plain in known:
        dialer.want(peer, (plain,), forever=True)
    nursery.start_soon(node.mesh.settle, {peer for peer, _ in known} - {node.peer_id})
    if config.mdns:
        nursery.start_soon(_find_on_lan, node, host, dialer)


async def _find_on_lan(node: Node, host: Host, dialer: Dialer) -> None:
    """Announce this node on the LAN and connect to those of its mesh; their membership is checked as everybody's."""
    def found(peer: PeerId, addresses: tuple[str, ...]) -> None:
        dialer.want(peer, addresses, forever=False)

    async with announce_and_browse(host.peer_id, lambda: host.addresses, node.mesh_id, found):
        await trio.sleep_forever()


async def _farewell(node: Node) -> None:
    """Tell the mesh, so that nobody sends new work; let what runs for others finish within the grace period."""
    with trio.move_on_after(node.config.grace_s + GOODBYE_S) as scope:
        scope.shield = True
        await node.mesh.say_goodbye()
        await trio.sleep(GOODBYE_S)
        await node.calls.drain()

