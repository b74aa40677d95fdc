"""Greeting the nodes at the other end of connections, and fetching from them what this node does not know yet."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import trio

from atmosphere.env import Env
from atmosphere.identity import Identity
from atmosphere.mesh.intake import Intake
from atmosphere.mesh.library import Library
from atmosphere.mesh.members import Members
from atmosphere.mesh.table import GradientTable, Path, State
from atmosphere.mesh.trust import Heard, Trust
from protocols.sync.messages import (
    MAX_KEYS,
    PROTOCOL,
    TRUST_KINDS,
    Hello,
    Key,
    Kind,
    Known,
    Overview,
    Record,
    Refused,
    SyncError,
)
from protocols.sync.session import Session, open_session, serve_session
from transports.errors import PeerUnreachable
from transports.host import Host
from transports.peer_id import PeerId
from transports.stream import Stream, StreamClosed

logger = logging.getLogger(__name__)

GREETINGS_WAITING = 256
"""New connections whose greeting has not begun; more are closed, and dialled again by whoever wants them."""
PARALLEL_PULLS = 4
REFUSALS_KEPT = 256
PARTING_S = 1.0
"""A refused peer gets this long to read the reason before its connection is closed."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a peer is not let in, or does not let us in."""

    code: str
    message: str
    by_us: bool


class Neighbours:
    """Admission and sync with directly connected peers. Its tasks live in the nursery given to :meth:`run`."""

    def __init__(
        self,
        host: Host,
        identity: Callable[[], Identity],
        trust: Trust,
        members: Members,
        intake: Intake,
        library: Library,
        table: GradientTable,
        env: Env,
        agent: str,
        joined: Callable[[PeerId], None],
        learned: Callable[[Record], None],
    ) -> None:
        """*joined*: called when a peer and this node have admitted each other. *learned*: a trust record was new here
        and came by sync, so others on this side may not have it either."""
        self._host = host
        self._identity = identity
        self._trust = trust
        self._members = members
        self._intake = intake
        self._library = library
        self._table = table
        self._env = env
        self._agent = agent
        self._joined = joined
        self._learned = learned
        self._nursery: trio.Nursery | None = None
        self._new, self._next = trio.open_memory_channel[PeerId](GREETINGS_WAITING)
        self._ready: dict[PeerId, trio.Event] = {}
        self._something_wanted = trio.Event()
        self.refusals: OrderedDict[PeerId, Refusal] = OrderedDict()

    def __repr__(self) -> str:
        ready = sum(1 for event in self._ready.values() if event.is_set())
        return f"<Neighbours {ready} ready, {len(self.refusals)} refusals>"

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Greet, serve and pull until cancelled."""
        self._host.handle(PROTOCOL, self._serve, public=True)
        self._host.add_listener(self._connected, self._disconnected)
        async with trio.open_nursery() as self._nursery:
            self._nursery.start_soon(self._pull)
            task_status.started()
            async for peer in self._next:
                self._nursery.start_soon(contained, self._greet, peer)

    # -- connections ---------------------------------------------------------------------------------------------

    def _connected(self, peer: PeerId) -> None:
        self._ready.setdefault(peer, trio.Event())
        connection = self._host.connections().get(peer)
        if connection is not None and not connection.inbound:
            try:
                self._new.send_nowait(peer)
            except trio.WouldBlock:
                logger.warning("too many new connections at once; %s is not greeted", peer.short)

    def _disconnected(self, peer: PeerId) -> None:
        self._ready.pop(peer, None)
        node = self._table.nodes.get(peer)
        self._table.disconnected(peer)
        if node is not None and node.state is State.ONLINE:
            self._table.doubt(peer, "the connection was lost", self._env.monotonic())

    async def wait_ready(self, peer: PeerId) -> None:
        """Return when *peer* and this node have admitted each other; at once for an old neighbour."""
        event = self._ready.setdefault(peer, trio.Event())
        await event.wait()

    def ready(self) -> list[PeerId]:
        """The neighbours that may be used now."""
        return [peer for peer, event in self._ready.items() if event.is_set()]

    # -- greeting ------------------------------------------------------------------------------------------------

    def _hello(self) -> Hello:
        return Hello(
            mesh=self._identity().mesh,
            membership=self._identity().chain,
            trust=self._trust.digest,
            agent=self._agent,
            now_ms=int(self._env.now() * 1000),
        )

    def _judge(self, peer: PeerId, hello: Hello) -> None:
        try:
            self._members.judge(peer, hello)
        except Refused as refusal:
            self._note_refusal(peer, Refusal(refusal.code, refusal.message, by_us=True))
            raise
        self._host.admit(peer)

    async def _greet(self, peer: PeerId) -> None:
        try:
            stream = await self._host.open_stream(peer, PROTOCOL)
            session = await open_session(stream, self._hello(), self._judge)
        except Refused as refusal:
            await self._part(peer, refusal)
        except (PeerUnreachable, SyncError, StreamClosed) as error:
            logger.debug("no greeting with %s: %s", peer.short, error)
        else:
            await self._catch_up(peer, session)

    async def _serve(self, stream: Stream) -> None:
        try:
            await serve_session(stream, self._hello, self._judge, self._served_ready, self)
        except Refused as refusal:
            await self._part(stream.peer, refusal)
        except (SyncError, StreamClosed) as error:
            logger.debug("sync session of %s ended: %s", stream.peer.short, error)
            await stream.reset()

    async def _part(self, peer: PeerId, refusal: Refused) -> None:
        if peer not in self.refusals:
            self._note_refusal(peer, Refusal(refusal.code, refusal.message, by_us=False))
        await trio.sleep(PARTING_S)
        await self._host.disconnect(peer)

    def _note_refusal(self, peer: PeerId, refusal: Refusal) -> None:
        if peer not in self.refusals:
            who = "refused" if refusal.by_us else "was refused by"
            logger.warning("this node %s %s: %s (%s)", who, peer.short, refusal.message, refusal.code)
        self.refusals[peer] = refusal
        if len(self.refusals) > REFUSALS_KEPT:
            self.refusals.popitem(last=False)

    def _served_ready(self, peer: PeerId) -> None:
        """The opener has admitted us. The first session of a connection is followed by one of ours."""
        if not self._ready.setdefault(peer, trio.Event()).is_set():
            assert self._nursery is not None
            self._nursery.start_soon(contained, self._catch_up, peer, None)

    def _is_ready(self, peer: PeerId) -> None:
        """Work and gossip with *peer* may begin: its news about who may act has been taken in."""
        event = self._ready.setdefault(peer, trio.Event())
        if event.is_set() or self._members.of(peer) is None:
            return
        event.set()
        self.refusals.pop(peer, None)
        connection = self._host.connections().get(peer)
        path = Path(connection.path) if connection is not None else Path.UNKNOWN
        self._table.connected(peer, path, self._env.monotonic())
        self._joined(peer)

    def expel(self, peer: PeerId, reason: str) -> None:
        """End everything with *peer*: its membership does not hold any more."""
        self._note_refusal(peer, Refusal("revoked", reason, by_us=True))
        self._ready.pop(peer, None)
        self._host.expel(peer)

    # -- what others ask of us ------------------------------------------------------------------------------------

    def overview(self) -> Overview:
        known = [
            Known(node.peer.public_key, node.beacon.epoch, node.beacon.sequence)
            for node in self._table.nodes.values()
            if node.beacon is not None and node.state is not State.LEFT
        ]
        return Overview(self._trust.keys(), known)

    def records(self, keys: Sequence[Key]) -> Iterable[Record]:
        yield from self._trust.records([key for key in keys if key.kind in TRUST_KINDS])
        yield from self._library.records([key for key in keys if key.kind not in TRUST_KINDS])

    # -- what we ask of others ------------------------------------------------------------------------------------

    def wake(self) -> None:
        """Something may be wanted now."""
        self._something_wanted.set()

    async def _catch_up(self, peer: PeerId, session: Session | None) -> None:
        """Take in all that *peer* knows and this node does not: who may act first, and before anything is routed."""
        try:
            session = session or await self._open(peer)
            overview = await session.overview()
            if session.hello.trust != self._trust.digest:
                await self._fetch_trust(session, [key for key in overview.trust if key not in self._trust])
            self._is_ready(peer)
            keys = self._intake.newer(iter(overview.known))
            for start in range(0, len(keys), MAX_KEYS):
                await self._fetch(session, keys[start : start + MAX_KEYS])
            # What the beacons name (memberships, offers, cards) comes from the same session while there is more.
            while wanted := self._intake.wanted.due([peer], self._env.monotonic()).get(peer):
                await self._fetch(session, wanted)
            await session.aclose()
        except (Refused, SyncError, StreamClosed, PeerUnreachable) as error:
            logger.debug("catching up with %s: %s", peer.short, error)
        self.wake()

    async def _fetch_trust(self, session: Session, keys: Sequence[Key]) -> None:
        for start in range(0, len(keys), MAX_KEYS):
            for record in await session.fetch(keys[start : start + MAX_KEYS]):
                if record.kind in TRUST_KINDS and self._trust.hear(record) is Heard.NEW:
                    self._learned(record)

    async def _open(self, peer: PeerId) -> Session:
        stream = await self._host.open_stream(peer, PROTOCOL)
        return await open_session(stream, self._hello(), self._judge)

    async def _fetch(self, session: Session, keys: Sequence[Key]) -> None:
        self._intake.wanted.asked(keys, self._env.monotonic())
        peer = session.peer
        asked = {(key.kind, key.key): key for key in keys}
        for record in await session.fetch(keys):
            key = _key_of(record, asked)
            if key is not None:
                self._intake.take(key, record, peer)

    async def _pull(self) -> None:
        """Fetch what gossip named and nobody has sent yet."""
        while True:
            wait = self._intake.wanted.next_due() - self._env.monotonic()
            if wait > 0:
                self._something_wanted = trio.Event()
                with trio.move_on_after(wait):
                    await self._something_wanted.wait()
                continue
            plan = self._intake.wanted.due(self.ready(), self._env.monotonic())
            if not plan:  # nobody to ask
                self._something_wanted = trio.Event()
                await self._something_wanted.wait()
                continue
            limiter = trio.CapacityLimiter(PARALLEL_PULLS)
            async with trio.open_nursery() as nursery:
                for peer, keys in plan.items():
                    nursery.start_soon(contained, self._pull_from, peer, keys, limiter)

    async def _pull_from(self, peer: PeerId, keys: list[Key], limiter: trio.CapacityLimiter) -> None:
        async with limiter:
            try:
                session = await self._open(peer)
                await self._fetch(session, keys)
                await session.aclose()
            except (Refused, SyncError, StreamClosed, PeerUnreachable) as error:
                logger.debug("pulling from %s: %s", peer.short, error)
                self._intake.wanted.asked(keys, self._env.monotonic())


async def contained(job: Callable[..., Awaitable[None]], *args: Any) -> None:
    """Run a task about one peer: a defect that the peer has found is logged, and ends nothing but this task."""
    try:
        await job(*args)
    except Exception:
        logger.exception("a task about a peer failed")


def _key_of(record: Record, asked: dict[tuple[Kind, bytes], Key]) -> Key | None:
    """Which of the keys that were asked for *record* answers: by digest, else by kind where one is left."""
    found = asked.pop((record.kind, record.digest), None)
    if found is not None or record.kind in (Kind.MEMBERSHIP, Kind.OFFER, Kind.CARD):
        return found
    # Beacons, leaves and vectors are named by what is inside; the intake checks that against the key.
    place = next((place for place in asked if place[0] is record.kind), None)
    return None if place is None else asked.pop(place)
