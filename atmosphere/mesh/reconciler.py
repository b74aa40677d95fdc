"""Anti-entropy: knowing what the neighbours know, whatever gossip has lost and however long they were apart.

Two neighbours compare digests when they meet, now and then, and as soon as one of them has learnt by sync what others
beyond it cannot know. So a healed partition is flooded link by link, each hop a few round trips, and a mesh whose nodes
agree exchanges little more than greetings. Trust records come first, always: nothing that a neighbour says of nodes
is taken in before what it knows of who may act.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import trio

from atmosphere.env import Env
from atmosphere.mesh.intake import Intake
from atmosphere.mesh.inventory import Inventory
from atmosphere.mesh.library import Library
from atmosphere.mesh.trust import Heard, Trust
from protocols.sync.messages import (
    MAX_KEYS,
    TRUST_KINDS,
    Ask,
    Key,
    Kind,
    Overview,
    Presence,
    Record,
    Refused,
    SyncError,
)
from protocols.sync.session import Session
from transports.errors import PeerUnreachable
from transports.peer_id import PeerId
from transports.stream import StreamClosed

logger = logging.getLogger(__name__)

RECONCILE_S = 10.0
"""Between two comparisons with some neighbour. Gossip brings the news; this finds what it has lost."""
JITTER = 0.2
STRETCH_ABOVE = 1000
"""Nodes; beyond, comparisons are rarer as digests are longer, so that their cost for a second stays the same."""
GRAFTED_S = 1.2
"""After a neighbour is ready: gossip reaches it from GossipSub's next heartbeat (1 s) on; what was said between the
first comparison and that has passed it by."""
DEBOUNCE_S = 0.1
"""News of one moment is one comparison."""
GAP_S = 0.5
"""From the end of one comparison with a neighbour to the next that news or its questions cause: it may say anything."""
SPREAD = 12
"""Neighbours that are compared with at a time because of news, GossipSub's upper degree, drawn by chance; they do the
same. A node with hundreds of them, through which a crowd joins, would else compare with all of them for each who comes.
"""
INQUIRIES = 2
"""Neighbours asked about who is suspected by hearsay: one of them may not have heard either."""
PARALLEL_PULLS = 4
BREATH = 16
"""Records taken in before other tasks have their turn: each costs about 0.2 ms of signatures."""

Lost = (Refused, SyncError, StreamClosed, PeerUnreachable)
"""How a session may end: the next one will find what this one has not."""


class Reconciler:
    """Asks the neighbours, and answers them. Its tasks live in the nursery given to :meth:`run`."""

    def __init__(
        self,
        open_session: Callable[[PeerId], Awaitable[Session]],
        inventory: Inventory,
        trust: Trust,
        intake: Intake,
        library: Library,
        env: Env,
        learned: Callable[[Record], None],
    ) -> None:
        """*open_session*: a greeted session with a neighbour; raises what :data:`Lost` names. *learned*: a trust
        record was new here and came by sync, so others on this side may not have it either."""
        self._open = open_session
        self._inventory = inventory
        self._trust = trust
        self._intake = intake
        self._library = library
        self._env = env
        self._learned = learned
        self._links: dict[PeerId, _Link] = {}
        self._compared: dict[PeerId, tuple[bytes, bytes]] = {}
        """Digests of trust, theirs and ours, after theirs was fetched: what still differs does not hold here."""
        self._something_wanted = trio.Event()
        self._asleep_until = float("inf")
        self._nursery: trio.Nursery | None = None

    def __repr__(self) -> str:
        return f"<Reconciler {len(self._links)} links, {self._inventory!r}>"

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Compare and fetch until cancelled."""
        async with trio.open_nursery() as self._nursery:
            self._nursery.start_soon(self._pull)
            task_status.started()
            try:
                await self._now_and_then()
            finally:
                self._links.clear()  # before it closes: connections are lost at the end, too

    # -- neighbours ------------------------------------------------------------------------------------------------

    def attend(self, peer: PeerId) -> None:
        """*peer* is a ready neighbour: compare with it whenever there is cause to, until :meth:`leave`."""
        assert self._nursery is not None
        self.leave(peer)
        self._links[peer] = _Link()
        self._nursery.start_soon(self._once_grafted, peer, self._links[peer])

    async def _once_grafted(self, peer: PeerId, link: _Link) -> None:
        await trio.sleep(GRAFTED_S)
        if self._links.get(peer) is link:
            if link.untold:
                self._spread_from(peer)
            self._stir(peer, link, answering=True)

    def _stir(self, peer: PeerId, link: _Link, *, answering: bool) -> None:
        """There is cause to compare with *peer*; a task does, until there is none."""
        link.answering = link.answering and answering
        link.cause = True
        if link.scope is None:
            assert self._nursery is not None
            link.scope = trio.CancelScope()
            self._nursery.start_soon(self._follow, peer, link, link.scope)

    async def _follow(self, peer: PeerId, link: _Link, scope: trio.CancelScope) -> None:
        with scope:
            while link.cause:
                await trio.sleep(DEBOUNCE_S)
                answering = link.answering
                link.cause, link.answering = False, True
                await contained(self._compare, peer, answering)
                await trio.sleep(GAP_S)
        link.scope = None

    async def _compare(self, peer: PeerId, answering: bool) -> None:
        await self.reconcile(peer, answering=answering)

    def leave(self, peer: PeerId) -> None:
        """*peer* is no neighbour any more."""
        self._compared.pop(peer, None)
        link = self._links.pop(peer, None)
        if link is not None and link.scope is not None:
            link.scope.cancel()

    async def _now_and_then(self) -> None:
        while True:
            seconds = RECONCILE_S * max(1.0, len(self._inventory.nodes) / STRETCH_ABOVE)
            await trio.sleep(seconds * self._env.random.uniform(1 - JITTER, 1 + JITTER))
            if self._links:
                peer = self._env.random.choice(list(self._links))
                self._stir(peer, self._links[peer], answering=False)

    def _spread_from(self, source: PeerId) -> None:
        """Compare with the others; with those first that are compared with already, if there are many."""
        others = [peer for peer in self._links if peer != source]
        busy = [peer for peer in others if self._links[peer].scope is not None]
        if len(others) > SPREAD:
            idle = [peer for peer in others if self._links[peer].scope is None]
            others = busy + self._env.random.sample(idle, min(len(idle), max(0, SPREAD - len(busy))))
        for peer in others:
            self._stir(peer, self._links[peer], answering=False)

    def inquire(self) -> None:
        """Others hear nothing of somebody: ask some neighbours what they have heard, once for all doubts of now."""
        idle = [peer for peer, link in self._links.items() if not link.cause]
        wanted = INQUIRIES - (len(self._links) - len(idle))
        for peer in self._env.random.sample(idle, max(0, min(wanted, len(idle)))):
            self._stir(peer, self._links[peer], answering=True)

    def heard(self, peer: PeerId) -> None:
        """A beacon that *peer* has just said has come by gossip, so it has gone to others, too."""
        link = self._links.get(peer)
        if link is not None:
            link.untold = False

    # -- what others ask of us -------------------------------------------------------------------------------------

    def overview(self, peer: PeerId, ask: Ask) -> Overview:
        """Answer *peer*, and ask it in return if it may know more."""
        link = self._links.get(peer)
        if link is not None and not ask.answering and self._inventory.differs(ask):
            self._stir(peer, link, answering=True)
        return self._inventory.answer(ask)

    def records(self, keys: Sequence[Key]) -> Iterable[Record]:
        yield from self._trust.records([key for key in keys if key.kind in TRUST_KINDS])
        yield from self._library.records([key for key in keys if key.kind not in TRUST_KINDS])

    # -- what we ask of others -------------------------------------------------------------------------------------

    async def reconcile(
        self,
        peer: PeerId,
        *,
        answering: bool,
        session: Session | None = None,
        trusted: Callable[[PeerId, bool], None] | None = None,
    ) -> None:
        """Take in all that *peer* knows and this node does not.

        *session*: an open one to use. *trusted*: of a greeting; called once its trust records are in force here, before
        anything else is taken from it, with whether it knows of this node, or nobody else. Who was given up here has
        been away from it, too: those behind may hold this node for dead, whatever it thinks itself since they met.
        """
        try:
            session = session or await self._open(peer)
            before = self._inventory.presence(peer)
            ask = self._inventory.question(session.hello, answering=answering)
            overview = await self._ask(session, ask)
            if trusted is not None:
                known = ask is None or self._inventory.is_known(peer, ask, overview)
                trusted(peer, known and before is not Presence.OFFLINE)
            greeted = self._links.get(peer) if trusted is not None and before is None else None
            believed = {item.author: item.presence for item in overview.known}
            keys = self._intake.newer(overview.known)
            for start in range(0, len(keys), MAX_KEYS):
                await self._fetch(session, keys[start : start + MAX_KEYS], believed, greeted)
            # What the beacons name (memberships, offers, cards) comes from the same session while there is more.
            while wanted := self._intake.wanted.due([peer], self._env.monotonic()).get(peer):
                await self._fetch(session, wanted)
            await session.aclose()
        except Lost as error:
            logger.debug("comparing with %s: %s", peer.short, error)
        self.wake()

    async def _ask(self, session: Session, ask: Ask | None) -> Overview:
        """What the other side knows otherwise; its trust records are in force on return."""
        overview = await session.overview(ask) if ask is not None else Overview((), ())
        keys = [key for key in overview.trust if key.kind in TRUST_KINDS and key not in self._trust]
        for start in range(0, len(keys), MAX_KEYS):
            for record in await session.fetch(keys[start : start + MAX_KEYS]):
                if record.kind in TRUST_KINDS and self._trust.hear(record) is Heard.NEW:
                    self._learned(record)
        self._compared[session.peer] = session.hello.trust, self._trust.digest
        return overview

    async def _fetch(
        self, session: Session, keys: Sequence[Key], believed: Mapping[bytes, Presence] = MappingProxyType({}),
        link: _Link | None = None,
    ) -> None:
        """*believed*: what the other side thinks of the authors of the beacons that are asked for. *link*: of a
        neighbour that is new here. What it says of itself it tells the others by gossip, or else they are told once it
        is grafted; of those behind it nobody else here may ever hear."""
        self._intake.wanted.asked(keys, self._env.monotonic())
        asked = {(key.kind, key.key): key for key in keys}
        news = False
        for number, record in enumerate(await session.fetch(keys), 1):
            key, before = _key_of(record, asked), self._intake.news
            if key is not None:
                self._intake.take(key, record, session.peer, believed)
            if self._intake.news != before:
                if link is not None and key == Key(Kind.BEACON, session.peer.public_key):
                    link.untold = True
                else:
                    news = True
            if number % BREATH == 0:
                await trio.lowlevel.checkpoint()
        if news:
            self._spread_from(session.peer)

    # -- what is wanted --------------------------------------------------------------------------------------------

    def wake(self) -> None:
        """Something may be wanted now."""
        if self._intake.wanted.next_due() < self._asleep_until:
            self._something_wanted.set()

    async def _sleep(self, until: float) -> None:
        """Until that time of the node's clock, or until something is wanted earlier."""
        self._asleep_until = until
        self._something_wanted = trio.Event()
        with trio.move_on_after(until - self._env.monotonic()):
            await self._something_wanted.wait()

    async def _pull(self) -> None:
        """Fetch what gossip named and nobody has sent yet."""
        while True:
            if (due := self._intake.wanted.next_due()) > self._env.monotonic():
                await self._sleep(due)
                continue
            plan = self._intake.wanted.due(self._links, self._env.monotonic())
            if not plan:  # nobody to ask
                await self._sleep(float("inf"))
                continue
            limiter = trio.CapacityLimiter(PARALLEL_PULLS)
            async with trio.open_nursery() as nursery:
                for peer, keys in plan.items():
                    nursery.start_soon(contained, self._pull_from, peer, keys, limiter)

    async def _pull_from(self, peer: PeerId, keys: list[Key], limiter: trio.CapacityLimiter) -> None:
        async with limiter:
            try:
                session = await self._open(peer)
                theirs, ours = session.hello.trust, self._trust.digest
                if theirs != ours and self._compared.get(peer) != (theirs, ours):
                    await self._ask(session, self._inventory.question(session.hello, answering=True))
                await self._fetch(session, keys)
                await session.aclose()
            except Lost as error:
                logger.debug("pulling from %s: %s", peer.short, error)
                self._intake.wanted.asked(keys, self._env.monotonic())


class _Link:
    """A ready neighbour and the cause there is to compare with it."""

    __slots__ = ("answering", "cause", "scope", "untold")

    def __init__(self) -> None:
        self.cause = False
        self.answering = True
        self.untold = False
        """The neighbour itself was new here, and has not told the others by gossip yet."""
        self.scope: trio.CancelScope | None = None
        """Of the task that compares, while there is one."""


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
