"""Greeting the nodes at the other end of connections: who is let in, and when it may be used."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import trio

from atmosphere.env import Env
from atmosphere.identity import Identity
from atmosphere.mesh.intake import Intake
from atmosphere.mesh.inventory import Inventory
from atmosphere.mesh.library import Library
from atmosphere.mesh.members import Members
from atmosphere.mesh.reconciler import Reconciler, contained
from atmosphere.mesh.table import GradientTable, Path
from atmosphere.mesh.trust import Trust
from protocols.sync.messages import PROTOCOL, Hello, Record, Refused, SyncError
from protocols.sync.session import Session, greeting, open_session, serve_session
from transports.errors import PeerUnreachable
from transports.host import Host
from transports.peer_id import PeerId
from transports.stream import Stream, StreamClosed

__all__ = ["Neighbours", "Refusal", "contained"]

logger = logging.getLogger(__name__)

GREETINGS_WAITING = 256
"""New connections whose greeting has not begun; more are closed, and dialled again by whoever wants them."""
GREETINGS = 3
GREET_AGAIN_S = 1.0
"""After a greeting that broke off, or trust records that did not come: until then the connection is of no use."""
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
    """Admission of directly connected peers; what they know is the Reconciler's business. Its tasks live in the nursery
    of :meth:`run`."""

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
        joined: Callable[[PeerId, bool], None],
        learned: Callable[[Record], None],
    ) -> None:
        """*joined*: called when a peer and this node have admitted each other, with whether it knows of
        this node, or nobody else.
        *learned*: a trust record was new here and came by sync, so others on this side may not have it either."""
        self._host = host
        self._identity = identity
        self._trust = trust
        self._members = members
        self._table = table
        self._env = env
        self._agent = agent
        self._joined = joined
        self.inventory = Inventory(table, trust)
        self._reconciler = Reconciler(self._open, self.inventory, trust, intake, library, env, learned)
        self._nursery: trio.Nursery | None = None
        self._new, self._next = trio.open_memory_channel[PeerId](GREETINGS_WAITING)
        self._ready: dict[PeerId, trio.Event] = {}
        self.refusals: OrderedDict[PeerId, Refusal] = OrderedDict()

    def __repr__(self) -> str:
        ready = sum(1 for event in self._ready.values() if event.is_set())
        return f"<Neighbours {ready} ready, {len(self.refusals)} refusals>"

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Greet, serve and reconcile until cancelled."""
        self._host.handle(PROTOCOL, self._serve, public=True)
        self._host.add_listener(self._connected, self._disconnected)
        async with trio.open_nursery() as self._nursery:
            await self._nursery.start(self._reconciler.run)
            task_status.started()
            async for peer in self._next:
                self._nursery.start_soon(contained, self._greet, peer)

    # -- connections ---------------------------------------------------------------------------------------------

    def _connected(self, peer: PeerId) -> None:
        self._ready.setdefault(peer, trio.Event())
        connection = self._host.connections().get(peer)
        # Who dials greets, also where the other's dial was there first.
        if connection is not None and (not connection.inbound or self._host.is_dialling(peer)):
            try:
                self._new.send_nowait(peer)
            except trio.WouldBlock:
                logger.warning("too many new connections at once; %s is not greeted", peer.short)

    def _disconnected(self, peer: PeerId) -> None:
        self._ready.pop(peer, None)
        self._reconciler.leave(peer)
        self._table.disconnected(peer)

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
            nodes=self.inventory.nodes.root,
        )

    def _judge(self, peer: PeerId, hello: Hello) -> None:
        try:
            self._members.judge(peer, hello)
        except Refused as refusal:
            self._note_refusal(peer, Refusal(refusal.code, refusal.message, by_us=True))
            raise
        self._host.admit(peer)

    async def _greet(self, peer: PeerId) -> None:
        """Until both may use each other. Who cannot be greeted is let go: the dialer knows when to try again."""
        for _ in range(GREETINGS):
            try:
                session = await self._open(peer)
            except Refused as refusal:
                await self._part(peer, refusal)
                return
            except (PeerUnreachable, SyncError, StreamClosed) as error:
                logger.debug("no greeting with %s: %s", peer.short, error)
            else:
                await self._catch_up(peer, session)
            ready = self._ready.get(peer)
            if ready is None or ready.is_set():  # it has gone, or all is well
                return
            await trio.sleep(GREET_AGAIN_S)
        logger.debug("%s is let go: it could not be greeted", peer.short)
        await self._host.disconnect(peer)

    async def _catch_up(self, peer: PeerId, session: Session | None) -> None:
        await self._reconciler.reconcile(peer, answering=True, session=session, trusted=self._is_ready)

    async def _open(self, peer: PeerId) -> Session:
        stream = await self._host.open_stream(peer, PROTOCOL, greeting(self._hello()))
        return await open_session(stream, None, self._judge)

    async def _serve(self, stream: Stream) -> None:
        try:
            await serve_session(stream, self._hello, self._judge, self._served_ready, self._reconciler)
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

    def _is_ready(self, peer: PeerId, known: bool) -> None:
        """Work and gossip with *peer* may begin: its news about who may act has been taken in."""
        event = self._ready.setdefault(peer, trio.Event())
        if event.is_set() or self._members.of(peer) is None:
            return
        event.set()
        self.refusals.pop(peer, None)
        connection = self._host.connections().get(peer)
        path = Path(connection.path) if connection is not None else Path.UNKNOWN
        self._table.connected(peer, path, self._env.monotonic())
        self._reconciler.attend(peer)
        self._joined(peer, known)

    def expel(self, peer: PeerId, reason: str) -> None:
        """End everything with *peer*: its membership does not hold any more."""
        self._note_refusal(peer, Refusal("revoked", reason, by_us=True))
        self._ready.pop(peer, None)
        self._reconciler.leave(peer)
        self._host.expel(peer)

    async def reconcile(self, peer: PeerId) -> None:
        """Compare with a ready neighbour now; it does the same if it knows otherwise. Never raises for what it does."""
        await self._reconciler.reconcile(peer, answering=False)

    def inquire(self) -> None:
        """Somebody is suspected by hearsay: ask whether a neighbour knows better."""
        self._reconciler.inquire()

    def heard(self, peer: PeerId) -> None:
        """A beacon of *peer* has come by gossip."""
        self._reconciler.heard(peer)

    def wake(self) -> None:
        """Something may be wanted now."""
        self._reconciler.wake()
