"""The failure detector's hands: it pings, asks, dials and tells what :class:`Detector` wants; verdicts go to the table.

All judgement is in detector.py; here are the streams, the tasks and the clock. Besides, once a second, one node that is
offline is dialled whatever its back-off says, so that the halves of a parted mesh find each other again.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable
from math import inf

import trio

from atmosphere.env import Env
from atmosphere.identity import Identity
from atmosphere.mesh.announcer import longest_period
from atmosphere.mesh.detector import (
    Action,
    Alive,
    Ask,
    Dead,
    Detector,
    Dial,
    Evidence,
    Order,
    Ping,
    Refute,
    Statement,
    Suspect,
    Tell,
)
from atmosphere.mesh.intake import Taken
from atmosphere.mesh.neighbours import contained
from atmosphere.mesh.reconciler import STRETCH_ABOVE
from atmosphere.mesh.table import GradientTable, Path, State
from protocols.beacons import BeaconError, Health, HealthKind, Suspicion, open_suspicion
from protocols.probe.client import ask
from protocols.probe.messages import PROTOCOL, ProbeError, ProbeOutcome
from protocols.probe.server import ProbeServer
from protocols.records import domains
from transports.dialer import Dialer
from transports.errors import PeerUnreachable
from transports.host import Host
from transports.peer_id import PeerId
from transports.rates import TokenBuckets
from transports.stream import Stream, StreamClosed

logger = logging.getLogger(__name__)

MISSED_BEACONS = 2
"""Stated periods without a beacon that make a node doubtful which nobody near is connected to."""
UNHEARD_OFFLINE_S = 10.0
"""Of further silence, after which such a node is offline."""
TICKS_PER_DIAL = 2
"""One dial to who is offline, every second (a tick is half of one)."""
TICKS_PER_LOOK = 10
"""A look at all nodes for beacons that have stopped, and one round trip: links that are busy are never pinged. The look
is rarer in a large mesh, where beacons are, too: its cost for a second stays the same."""
CONTEST_S = 0.5
"""Within this time one of those who doubt the same node at the same moment asks it to speak; the others hear that."""
CONTESTS = 8
"""Nodes that this one asks to speak at a heal: an accusation that is refuted is held against its author a little, and
the others of its half ask for the rest."""
CONTESTS_PER_S = 0.1
ACCUSED_S = 5.0
"""Who was accused answers within this time, or is asked again: a node that joined meanwhile has not heard of it, and
would otherwise believe in a dead one until two of its beacons have not come."""
MAX_ACCUSED = 4096
NEVER: Order = (0, 0)
SMOOTHING = 0.3
"""Weight of the newest round trip."""
ROUND_TRIP_TIMEOUT_S = 5.0


class Watch:
    """Who lives, as this node sees it. :meth:`run` owns its tasks."""

    def __init__(
        self,
        host: Host,
        dialer: Dialer,
        table: GradientTable,
        detector: Detector,
        identity: Callable[[], Identity],
        env: Env,
        *,
        publish: Callable[[bytes], Awaitable[None]],
        refute: Callable[[], None],
        ready: Callable[[], list[PeerId]],
        inquire: Callable[[], None],
    ) -> None:
        """*publish*: a message on the topic of health. *refute*: say a beacon now. *ready*: the admitted neighbours.
        *inquire*: ask some of them what they have heard of those who are suspected."""
        self.detector = detector
        self._host = host
        self._dialer = dialer
        self._table = table
        self._identity = identity
        self._env = env
        self._publish = publish
        self._refute = refute
        self._ready = ready
        self._inquire = inquire
        self._witness = ProbeServer(self.check)
        self._measured = 0
        self._ticks_done = 0
        self._looked = -inf
        self._contests: TokenBuckets[None] = TokenBuckets(CONTESTS_PER_S, CONTESTS, 1)
        self._accused: dict[PeerId, tuple[Order, float]] = {}
        """Of whom somebody has said that it failed, after which of its beacons, and when."""
        self._nursery: trio.Nursery | None = None

    def __repr__(self) -> str:
        return f"<Watch {self.detector!r} {self._witness!r}>"

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Watch the neighbours until cancelled."""
        self._host.handle(PROTOCOL, self._witness.serve)
        self._host.add_listener(lambda peer: None, self._disconnected, self.left)
        async with trio.open_nursery() as self._nursery:
            task_status.started()
            try:
                await self._ticks()
            finally:
                self._nursery = None  # before it closes: connections are lost at the end, too

    async def _ticks(self) -> None:
        tick_s = self.detector.settings.tick_s
        due = trio.current_time()
        while True:
            self._tick()
            due = max(due + tick_s, trio.current_time())
            await trio.sleep_until(due)

    def _tick(self) -> None:
        now = self._env.monotonic()
        self._act(self.detector.tick(now, self._host.heard))
        self._ticks_done += 1
        if self._ticks_done % TICKS_PER_DIAL == 0:
            self._find_again()
        if self._ticks_done % TICKS_PER_LOOK == 0:
            self._measure_one()
            self._unheard(now)

    # -- what the node tells ---------------------------------------------------------------------------------------

    def joined(self, peer: PeerId) -> None:
        """*peer* and this node have admitted each other."""
        self._act(self.detector.watch(peer, self._env.monotonic()))
        self._start(self._measure, peer)

    def failed(self, peer: PeerId, reason: str) -> None:
        """A call or a stream in use broke or timed out, or could not begin."""
        self._act(self.detector.failed(peer, reason, self._env.monotonic()))
        if not self._host.is_connected(peer):
            self._table.doubt(peer, reason, self._env.monotonic())

    def proves(self, peer: PeerId, order: Order) -> bool:
        """A verified beacon of *peer* has come, or this node has said one: whether it shows that its author lives."""
        self._act(self.detector.proof(peer, order, self._env.monotonic()))
        return not self.detector.doubts(peer)

    def contest(self, peer: PeerId, order: Order) -> None:
        """A neighbour believes otherwise of *peer*, and both know its beacon in *order*: let it speak for itself."""
        if peer == self._table.me:
            self._refute()
        elif not self._is_accused(peer, order):
            self._start(self._ask_to_speak, peer, order)

    async def _ask_to_speak(self, peer: PeerId, order: Order) -> None:
        """Accuse *peer*, so that it answers; after a random while, because at a heal many find the same at once."""
        await trio.sleep(CONTEST_S * self._env.random.random())
        node = self._table.nodes.get(peer)
        if node is None or node.beacon is None or node.beacon.order > order or self._is_accused(peer, order):
            return  # it has spoken, or somebody has asked it to
        if self._contests.take(None, self._env.monotonic()):
            return
        self._note_accused(peer, order)
        await self._tell(Statement(peer, order, Evidence.SILENT))

    def _is_accused(self, peer: PeerId, order: Order) -> bool:
        after, at = self._accused.get(peer, (NEVER, -inf))
        return after >= order and self._env.monotonic() - at < ACCUSED_S

    def _note_accused(self, peer: PeerId, order: Order) -> None:
        after, _ = self._accused.get(peer, (NEVER, 0.0))
        self._accused[peer] = max(order, after), self._env.monotonic()
        if len(self._accused) > MAX_ACCUSED:
            del self._accused[next(iter(self._accused))]

    def left(self, peer: PeerId) -> None:
        """*peer* said goodbye, is put out, or one side let go of an idle connection: its end says nothing about its
        health."""
        self.detector.unwatch(peer, self._env.monotonic())

    def forget(self, peer: PeerId) -> None:
        """Nothing is known of *peer* any more."""
        self.detector.forget(peer)

    def hear(self, envelope: bytes, author: PeerId) -> Taken:
        """A member's suspicion of another one, or of this node."""
        try:
            suspicion = open_suspicion(envelope, author)
        except BeaconError as error:
            logger.debug("a suspicion was refused: %s", error)
            return Taken.BAD
        witness = self._table.nodes.get(author)
        if witness is None or witness.membership is None:
            return Taken.OLD
        if suspicion.subject not in self._table.nodes and suspicion.subject != self._table.me:
            return Taken.OLD
        if not suspicion.timely(int(self._env.now() * 1000)):
            return Taken.OLD
        evidence = Evidence.REFUSED if suspicion.refused else Evidence.SILENT
        statement = Statement(suspicion.subject, suspicion.order, evidence)
        news = self.detector.worth_passing(statement, author)
        if news:
            self._note_accused(suspicion.subject, suspicion.order)
        self._act(self.detector.stated(statement, author, self._env.monotonic()))
        return Taken.NEW if news else Taken.OLD

    def _disconnected(self, peer: PeerId) -> None:
        node = self._table.nodes.get(peer)
        if node is not None and node.state is not State.LEFT:
            self._act(self.detector.lost(peer, self._env.monotonic()))

    # -- what the detector wants -----------------------------------------------------------------------------------

    def _act(self, actions: Iterable[Action]) -> None:
        now = self._env.monotonic()
        for action in actions:
            match action:
                case Ping(peer, timeout_s):
                    self._start(self._ping, peer, timeout_s)
                case Ask(via, subject, timeout_s):
                    self._start(self._ask, via, subject, timeout_s)
                case Dial(peer, timeout_s):
                    self._start(self._dial, peer, timeout_s)
                case Tell(statement):
                    self._start(self._tell, statement)
                case Suspect(peer, reason):
                    self._table.doubt(peer, reason, now)
                    node = self._table.nodes.get(peer)  # a full table may have dropped it meanwhile
                    if node is not None and node.path is Path.UNKNOWN:
                        self._inquire()
                case Alive(peer):
                    self._table.alive(peer, now)
                case Dead(peer, reason):
                    self._table.gone(peer, reason)
                    self._start(self._host.disconnect, peer)
                case Refute():
                    self._refute()

    def _start(self, job: Callable[..., Awaitable[None]], *args: object) -> None:
        if self._nursery is not None:
            self._nursery.start_soon(contained, job, *args)

    async def _ping(self, peer: PeerId, timeout_s: float) -> None:
        try:
            with trio.fail_after(timeout_s):
                seconds = await self._host.ping(peer)
        except (trio.TooSlowError, PeerUnreachable):
            self._act(self.detector.missed(peer, self._env.monotonic()))
            return
        self._act(self.detector.pong(peer, self._env.monotonic()))
        self._note_round_trip(peer, seconds)

    async def _ask(self, via: PeerId, subject: PeerId, timeout_s: float) -> None:
        outcome: ProbeOutcome | None = None
        try:
            with trio.fail_after(timeout_s):
                stream = await self._host.open_stream(via, PROTOCOL)
                outcome = await _asked(stream, subject, timeout_s)
        except (trio.TooSlowError, PeerUnreachable, ProbeError, StreamClosed) as error:
            logger.debug("%s says nothing about %s: %s", via.short, subject.short, error)
        self._act(self.detector.answered(via, subject, outcome, self._env.monotonic()))

    async def _dial(self, peer: PeerId, timeout_s: float) -> None:
        node = self._table.nodes.get(peer)
        addresses = node.beacon.addresses if node is not None and node.beacon is not None else ()
        try:
            await self._host.connect(peer, addresses, timeout_s=timeout_s)
        except PeerUnreachable as error:
            self._act(self.detector.dialled(peer, error.refused, self._env.monotonic()))

    async def _tell(self, statement: Statement) -> None:
        epoch, sequence = statement.order
        suspicion = Suspicion(
            subject=statement.subject,
            epoch=epoch,
            sequence=sequence,
            refused=statement.evidence is Evidence.REFUSED,
            issued_at_ms=int(self._env.now() * 1000),
        )
        envelope = self._identity().sign(domains.SUSPICION, suspicion.encode())
        await self._publish(Health(HealthKind.SUSPICION, envelope).encode())

    # -- as a witness ----------------------------------------------------------------------------------------------

    async def check(self, subject: PeerId) -> ProbeOutcome:
        """Try to reach *subject* now, for another node that cannot. The caller bounds the time."""
        node = self._table.nodes.get(subject)
        if subject == self._table.me:
            return ProbeOutcome.ALIVE
        if node is None or node.beacon is None:
            return ProbeOutcome.UNKNOWN
        try:
            if not self._host.is_connected(subject):
                await self._host.connect(subject, node.beacon.addresses)
            await self._host.ping(subject)
        except PeerUnreachable as error:
            return ProbeOutcome.REFUSED if error.refused else ProbeOutcome.SILENT
        return ProbeOutcome.ALIVE

    # -- what needs no judgement -----------------------------------------------------------------------------------

    def _unheard(self, now: float) -> None:
        """Nodes that no neighbour is connected to have nobody to state anything about them: only their beacons stop."""
        nodes = len(self._table.nodes)
        if now - self._looked < TICKS_PER_LOOK * self.detector.settings.tick_s * nodes / STRETCH_ABOVE:
            return
        self._looked = now
        usual = longest_period(nodes)
        for node in list(self._table.nodes.values()):
            if now - node.last_seen <= MISSED_BEACONS * usual or node.path is not Path.UNKNOWN or node.beacon is None:
                continue
            period = max(usual, node.beacon.period_ms / 1000)  # it may have stated its own before it knew the mesh
            silence = now - node.last_seen - MISSED_BEACONS * period
            if node.state is State.ONLINE and silence > 0:
                self._table.doubt(node.peer, "its beacons have stopped", now)
            elif node.state is State.SUSPECT and silence > UNHEARD_OFFLINE_S:
                self._table.gone(node.peer, node.reason)

    def _find_again(self) -> None:
        """Dial one node that is offline: the cost is the same in any mesh, and some link comes back at once."""
        if self._table.offline:
            node = self._table.nodes[self._env.random.choice(tuple(self._table.offline))]
            if node.beacon is not None and node.beacon.addresses:
                self._dialer.hurry(node.peer, node.beacon.addresses)

    def _measure_one(self) -> None:
        ready = self._ready()
        if ready:
            self._measured += 1
            self._start(self._measure, ready[self._measured % len(ready)])

    async def _measure(self, peer: PeerId) -> None:
        with trio.move_on_after(ROUND_TRIP_TIMEOUT_S):
            try:
                self._note_round_trip(peer, await self._host.ping(peer))
            except PeerUnreachable as error:
                logger.debug("no round trip to %s: %s", peer.short, error)

    def _note_round_trip(self, peer: PeerId, seconds: float) -> None:
        node = self._table.nodes.get(peer)
        if node is not None:
            measured, usual = seconds * 1000, node.rtt_ms
            usual = measured if usual is None else (1 - SMOOTHING) * usual + SMOOTHING * measured
            self._table.measured(peer, usual)


async def _asked(stream: Stream, subject: PeerId, timeout_s: float) -> ProbeOutcome:
    outcome = await ask(stream, subject, timeout_s)
    await stream.close()
    return outcome
