"""Everything between this node and the others, except work: beacons out and in, neighbours, goodbyes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from math import inf

import trio
from google.protobuf.message import DecodeError

from atmosphere.capabilities.card import Card
from atmosphere.capabilities.offer import OfferEntry
from atmosphere.capabilities.vector import CardVector
from atmosphere.env import Env
from atmosphere.identity import Identity, IdentityError, Membership
from atmosphere.mesh.announcer import BASE_PERIOD_S, Announcer, beacon_addresses, beacon_period
from atmosphere.mesh.detector import Detector
from atmosphere.mesh.detector_settings import DetectorSettings
from atmosphere.mesh.intake import Hooks, Intake, Taken, vector_key
from atmosphere.mesh.library import Library
from atmosphere.mesh.members import Members
from atmosphere.mesh.neighbours import Neighbours, contained
from atmosphere.mesh.reconciler import STRETCH_ABOVE
from atmosphere.mesh.table import GradientTable, Path, State
from atmosphere.mesh.trust import Heard, Struck, Trust
from atmosphere.mesh.watch import Watch
from atmosphere.store import Store
from protocols.beacons import (
    Announcement,
    BeaconError,
    Health,
    HealthKind,
    beacons_topic,
    health_topic,
    revocations_topic,
)
from protocols.records import records_pb2
from protocols.sync.messages import Key, Kind, Record
from transports.dialer import Dialer
from transports.errors import PeerUnreachable
from transports.gossip import GossipMessage, Verdict
from transports.host import Host
from transports.peer_id import PeerId
from transports.stream import Stream

logger = logging.getLogger(__name__)

_VERDICTS = {
    Taken.NEW: Verdict.ACCEPT,
    Taken.OLD: Verdict.IGNORE,
    Taken.WAITING: Verdict.IGNORE,
    Taken.BAD: Verdict.REJECT,
}

FEW_NEIGHBOURS = 6
"""Up to GossipSub's degree a new neighbour may be this node's only way to part of the mesh."""
HOUSE_EVERY_S = 30.0
"""Between two looks for what has ended; a look at all nodes is rarer in a mesh of more than a thousand, so that its
cost for a second stays the same."""
GRAFT_S = 1.2
"""From meeting a neighbour until gossip reaches it, at most: GossipSub's heartbeat, and a round trip."""
GRAFT_LOOK_S = 0.05
SEEK_EVERY_S = 1.0
SOUGHT = 3
"""Nodes that a node with few neighbours dials in one such step, drawn by chance: not all dial the same ones."""
LOAD_GAP_S = 0.2
"""A load that crosses a step is told this soon; what moves within it is one look."""
SETTLE_S = 3.0
"""After a start: for the bootstrap nodes to say who was revoked meanwhile."""
READY_TIMEOUT_S = 5.0
"""For a node that is dialled because work has to go there: connection, greeting, admission."""


class Mesh:
    """This node's part in the mesh. :meth:`run` owns its tasks."""

    def __init__(
        self,
        host: Host,
        dialer: Dialer,
        identity: Callable[[], Identity],
        announcer: Announcer,
        table: GradientTable,
        store: Store,
        env: Env,
        *,
        agent: str,
        detector: DetectorSettings,
        on_card: Callable[[bytes, Card], None],
        on_vector: Callable[[CardVector], None],
        on_trust: Callable[[Record], None],
        on_expelled: Callable[[PeerId], None],
        on_pruned: Callable[[], None],
        membership_s: float,
        degree: int,
    ) -> None:
        """*on_card*, *on_vector*: what came of others. *on_trust*: a new trust record; *on_expelled*: a peer whose
        membership does not hold any more; *on_pruned*: cards may have gone from the table. All are called
        synchronously. *degree*: connections that this node makes on its own to nodes it hears of."""
        self.table = table
        self.library = Library()
        self.trust = Trust(identity().mesh, store, env, self._trust_changed, membership_s)
        self.members = Members(identity().mesh, self.trust, self.library, env)
        hooks = Hooks(
            on_card, on_vector, self._heard_of_myself,
            contested=lambda peer, order: self.watch.contest(peer, order),  # the watch comes last, it needs the others
            proves=lambda peer, order: self.watch.proves(peer, order),
        )
        self.intake = Intake(table, self.library, self.members, env, hooks)
        self.neighbours = Neighbours(
            host, identity, self.trust, self.members, self.intake, self.library, table, env, agent, self._joined,
            self._learned,
        )
        self.watch = Watch(
            host, dialer, table, Detector(table.me, detector, env.random.random), identity, env,
            publish=self._say_health, refute=self.speak, ready=self.neighbours.ready, inquire=self.neighbours.inquire,
        )
        self._host = host
        self._dialer = dialer
        self._identity = identity
        self._announcer = announcer
        self._env = env
        self._on_trust = on_trust
        self._degree = degree
        self._on_expelled = on_expelled
        self._on_pruned = on_pruned
        self.settled = trio.Event()
        """The neighbours that this node knew have told it who may act, or have had their time to."""
        self._speak = trio.Event()
        self._load_moved = trio.Event()
        self._leaving = False
        self._gossipers: trio.Nursery | None = None

    def __repr__(self) -> str:
        return f"<Mesh {self.table!r} {self.neighbours!r} {self._announcer!r}>"

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Take part until cancelled. Started once the topics are subscribed and connections are greeted."""
        mesh_id = self._identity().mesh_id
        self.table.connected(self.table.me, Path.LOCAL, self._env.monotonic())
        self.identity_changed()
        await self._host.gossip.subscribe(beacons_topic(mesh_id), self._hear_beacon)
        await self._host.gossip.subscribe(health_topic(mesh_id), self._hear_health)
        await self._host.gossip.subscribe(revocations_topic(mesh_id), self._hear_trust)
        async with trio.open_nursery() as nursery:
            self._gossipers = nursery
            await nursery.start(self.neighbours.run)
            nursery.start_soon(self._beacons)
            await nursery.start(self.watch.run)
            nursery.start_soon(self._watch_load)
            nursery.start_soon(self._seek_neighbours)
            nursery.start_soon(self._keep_house)
            task_status.started()

    async def settle(self, expected: Iterable[PeerId]) -> None:
        """Wait for the first news of *expected*, at most SETTLE_S, before this node routes or serves anything."""
        with trio.move_on_after(SETTLE_S):
            for peer in expected:
                await self.neighbours.wait_ready(peer)
        self.settled.set()

    # -- what this node says --------------------------------------------------------------------------------------

    def identity_changed(self) -> None:
        """This node's membership is new: let the others know."""
        try:
            own: Membership | None = self.members.learn(self._identity().chain)
        except IdentityError as error:
            logger.error("this node's own membership does not hold: %s", error)
            own = None
        self.table.certified(own)
        self._speak.set()

    async def say(self, record: Record) -> None:
        """Make a trust record of this node's own: on disk and in force here when this returns, and told to the mesh."""
        if self.trust.hear(record) in (Heard.BAD, Heard.EARLY):
            raise ValueError(f"this node made a {record.kind.name.lower()} record that it would refuse itself")
        await self._spread(record)

    def _learned(self, record: Record) -> None:
        """Pass on what came from beyond a partition or from before this node's start; who knows it ignores it."""
        assert self._gossipers is not None
        self._gossipers.start_soon(contained, self._spread, record)

    async def _spread(self, record: Record) -> None:
        body = record.to_proto().SerializeToString()
        await self._host.gossip.publish(revocations_topic(self._identity().mesh_id), body)

    def offer(self, name: str, entries: Sequence[OfferEntry], cards: Sequence[tuple[bytes, bytes, Card]]) -> None:
        """This node now offers *entries*; *cards*: (id, exact bytes, card) of each. Told to the mesh at once."""
        for card_id, body, card in cards:
            self.library.put(Key(Kind.CARD, card_id), body)
            self.table.described(card_id, card)
        if self._announcer.set_offer(name, entries):
            self.library.put(Key(Kind.OFFER, self._announcer.offer_digest), self._announcer.offer_bytes)
            self.table.node(self.table.me, self._env.monotonic())
            self.table.offered(self.table.me, self._announcer.offer)
            self._speak.set()

    def give_vector(self, vector: CardVector) -> None:
        """Let others fetch a card's vector that this node has computed."""
        self.library.put(vector_key(vector.card, vector.space), vector.encode())

    def want_vector(self, card_id: bytes, space: str) -> None:
        """Fetch a card's vector from whoever has it."""
        self.intake.wanted.add(vector_key(card_id, space), None, self._env.monotonic())
        self.neighbours.wake()

    def load_moved(self) -> None:
        """Calls of this node have begun or ended: its load is looked at, and told if it has crossed a step."""
        self._load_moved.set()

    def _look_at_load(self) -> float:
        """Tell the load if it is time to; seconds until it will be, for ever if there is nothing (more) to tell."""
        load = self._announcer.load()
        self.table.load(self.table.me, load.permille, load.queue, self._env.monotonic())
        due = self._announcer.load_due(len(self.table.nodes))
        if due == 0.0:
            self._speak.set()
        return due or inf

    async def _beacons(self) -> None:
        topic = beacons_topic(self._identity().mesh_id)
        while not self._leaving:  # a beacon after the goodbye would say that the node is back
            self._speak = trio.Event()
            self._announcer.addresses = beacon_addresses(self._host.addresses)
            body, beacon = self._announcer.beacon(len(self.table.nodes))
            self.library.put(Key(Kind.BEACON, self.table.me.public_key), body)
            self.table.spoke(beacon)
            self.watch.proves(self.table.me, beacon.order)
            announcement = self._announcer.announcement(body, lambda card: self.library.get(Key(Kind.CARD, card)))
            await self._host.gossip.publish(topic, announcement.encode())
            await trio.sleep(self._announcer.gap())
            await self._next_beacon()

    async def _next_beacon(self) -> None:
        """Wait until there is something to say, or the period is over; it grows with the mesh meanwhile."""
        began, share = self._env.monotonic(), self._announcer.share()
        while (left := began + share * beacon_period(len(self.table.nodes)) - self._env.monotonic()) > 0:
            with trio.move_on_after(min(left, BASE_PERIOD_S)):
                await self._speak.wait()
                return

    def speak(self) -> None:
        """Say a beacon now, or as soon as the pace of beacons allows."""
        self._speak.set()

    def _heard_of_myself(self, order: tuple[int, int]) -> None:
        if self._announcer.jump(order):
            logger.warning("the mesh knows later beacons of this node (a restored backup?); counting on from there")
            self._speak.set()

    async def say_goodbye(self) -> None:
        """Tell the mesh that this node is going; it says nothing more after that."""
        self._leaving = True
        await self._say_health(Health(HealthKind.LEAVE, self._announcer.leave()).encode())

    async def _say_health(self, message: bytes) -> None:
        await self._host.gossip.publish(health_topic(self._identity().mesh_id), message)

    # -- what this node hears -------------------------------------------------------------------------------------

    def _hear_beacon(self, message: GossipMessage) -> Verdict:
        try:
            announcement = Announcement.decode(message.data)
        except BeaconError as error:
            logger.debug("an announcement of %s was refused: %s", message.author.short, error)
            return Verdict.REJECT
        taken = self.intake.announcement(announcement, message.author, message.forwarder)
        self.neighbours.heard(message.author)
        self.neighbours.wake()
        if taken is Taken.NEW:
            self._seek(message.author)
        return _VERDICTS[taken]

    def _hear_health(self, message: GossipMessage) -> Verdict:
        try:
            health = Health.decode(message.data)
        except BeaconError as error:
            logger.debug("a health message of %s was refused: %s", message.author.short, error)
            return Verdict.REJECT
        if health is None:
            return Verdict.ACCEPT  # of a later release: not for this node, but perhaps for others
        if health.kind is HealthKind.LEAVE:
            taken = self.intake.leave(health.envelope, message.author)
            if taken is Taken.NEW:
                self._dialer.forget(message.author)
                self.watch.left(message.author)
        else:
            taken = self.watch.hear(health.envelope, message.author)
        self.neighbours.wake()
        return _VERDICTS[taken]

    def _hear_trust(self, message: GossipMessage) -> Verdict:
        try:
            wire = records_pb2.Record.FromString(message.data)
            record = Record(Kind(wire.kind), wire.body)
        except (DecodeError, ValueError):
            return Verdict.REJECT
        heard = self.trust.hear(record)
        return {Heard.NEW: Verdict.ACCEPT, Heard.BAD: Verdict.REJECT}.get(heard, Verdict.IGNORE)

    def _trust_changed(self, record: Record, struck: Struck) -> None:
        """A new trust record is in force: whoever has fallen by it is put out at once."""
        for peer in self.members.fallen():
            self._expel(peer)
        for peer in self._struck(struck):
            node = self.table.nodes.get(peer)
            if node is not None and node.membership is not None and not self._holds(node.membership):
                self._expel(peer)
        me = self.table.nodes.get(self.table.me)
        if me is not None and me.membership is not None and not self._holds(me.membership):
            logger.error("this node has been revoked: the others refuse it from now on")
            self.table.certified(None)
        self._on_trust(record)

    def _struck(self, struck: Struck) -> list[PeerId]:
        """The other nodes of the table whose memberships are to be looked at."""
        anybody = struck.anybody or (bool(struck.serial) and self.table.doubles)
        peers = list(self.table.nodes) if anybody else list(struck.peers)
        holder = self.table.holders.get(struck.serial)
        if holder is not None and not anybody:
            peers.append(holder)
        return [peer for peer in peers if peer != self.table.me]

    def _forget(self, peer: PeerId) -> None:
        self.intake.forget(peer)
        self.watch.forget(peer)

    def _holds(self, membership: Membership) -> bool:
        try:
            self.trust.check(membership)
        except IdentityError:
            return False
        return True

    def _expel(self, peer: PeerId) -> None:
        self._dialer.forget(peer)
        self._forget(peer)
        self.neighbours.expel(peer, "its membership was revoked")
        self._on_expelled(peer)

    def _seek(self, peer: PeerId) -> None:
        """Keep a few connections to nodes that this node has heard of."""
        node = self.table.nodes.get(peer)
        if node is None or node.beacon is None or node.state is State.LEFT:
            return
        if self._host.is_connected(peer) or self._room() > 0:
            self._dialer.want(peer, node.beacon.addresses, forever=False)

    def _room(self) -> int:
        """Connections that this node would like to have and has not begun to make."""
        return self._degree - self._host.degree - self._dialer.beginning

    def _joined(self, peer: PeerId, known: bool) -> None:
        assert self._gossipers is not None
        self._gossipers.start_soon(contained, self._gossip_with, peer, known)
        self.watch.joined(peer)
        self._seek(peer)

    async def _gossip_with(self, peer: PeerId, known: bool) -> None:
        try:
            await self._host.gossip.add_peer(peer)
        except PeerUnreachable as error:
            logger.debug("no gossip with %s: %s", peer.short, error)
            return
        if not known and len(self.neighbours.ready()) <= FEW_NEIGHBOURS:
            met = self._env.monotonic()
            with trio.move_on_after(GRAFT_S):
                # What is said before that passes it by. The library's event would stay for ever if it does not come.
                while not self._host.gossip.is_grafted(peer):  # noqa: ASYNC110
                    await trio.sleep(GRAFT_LOOK_S)
            if self._announcer.introduce(met):  # whoever is behind it has not heard of this node yet
                self._speak.set()

    # -- how the others are ---------------------------------------------------------------------------------------

    async def open_stream(self, peer: PeerId, protocol: str) -> Stream:
        """A stream to a member, dialled and greeted first if need be. Raises PeerUnreachable."""
        if not self._host.is_connected(peer):
            node = self.table.nodes.get(peer)
            addresses = node.beacon.addresses if node is not None and node.beacon is not None else ()
            await self._host.connect(peer, addresses)
        with trio.move_on_after(READY_TIMEOUT_S):
            await self.neighbours.wait_ready(peer)
            return await self._host.open_stream(peer, protocol)
        refusal = self.neighbours.refusals.get(peer)
        reason = refusal.message if refusal else f"{peer.short} did not greet within {READY_TIMEOUT_S:g} s"
        raise PeerUnreachable(reason)

    async def _keep_house(self) -> None:
        pruned = self._env.monotonic()
        while True:
            await trio.sleep(HOUSE_EVERY_S)
            now = self._env.monotonic()
            if now - pruned >= HOUSE_EVERY_S * len(self.table.nodes) / STRETCH_ABOVE:
                pruned = now
                for peer in self.table.prune(now):
                    self._forget(peer)  # the dialer gives up by itself, but not whom the owner named
                self._on_pruned()
            for peer in self.members.fallen():  # memberships that have expired
                self._expel(peer)
            self.trust.forget_ended()

    async def _seek_neighbours(self) -> None:
        while True:
            await trio.sleep(SEEK_EVERY_S)
            wanted = min(SOUGHT, self._room())
            if wanted > 0:
                nodes = self.table.nodes.values()
                far = [node.peer for node in nodes if node.state is State.ONLINE and node.path is Path.UNKNOWN]
                for peer in self._env.random.sample(far, min(wanted, len(far))):
                    self._seek(peer)

    async def _watch_load(self) -> None:
        while True:
            self._load_moved = trio.Event()
            with trio.move_on_after(self._look_at_load()):
                await self._load_moved.wait()
            await trio.sleep(LOAD_GAP_S)
