"""``poison``: a share of the members is malicious, each in one of four ways, and the others go on.

All of them have valid memberships, and otherwise run the same node. Floods: valid beacons of its own, one after the
other. Forgers: beacons in the name of others. Load liars: idle and free, they say, and fail every call. False
suspicions: all of these say together of one honest node after the other that it refuses connections. Peer scoring is on
in both fidelities. Measured is, among the honest: whether news and calls get through, whom the tables wrongly keep work
from, and which liars have lost their place in the gossip mesh (shunned) or are not listened to (muted).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import cycle

import trio
from libp2p.peer.id import ID

from atmosphere.capabilities.backend import Emit, ToolCall
from atmosphere.capabilities.card import Card, card_id
from atmosphere.mesh.announcer import Load
from atmosphere.routing.intent import Constraints, Intent
from atmosphere.work.units import Unit
from protocols.beacons import Announcement, Health, HealthKind, Suspicion, beacons_topic, health_topic
from protocols.call.errors import CallError, Code
from protocols.records import domains
from protocols.sync.messages import Key, Kind
from simulations.metrics import Spread
from simulations.scenarios.growing import Views
from simulations.scenarios.running import Measured, Options, measured, rest
from simulations.twins import WORK, card_about
from simulations.virtual import Virtual
from simulations.world import Member, World, open_world, until
from transports.peer_id import PeerId

FLOOD_PER_S = 50
FORGED_PER_S = 5
ACCUSED_EVERY_S = 2.0
"""From one honest node that all accusers turn on to the next."""
BUILD_UP_S = 5.0
"""Of malice, before the honest nodes' news and calls are counted."""
NEWS_EVERY_S = 2.0
WITHIN_S = 15.0
"""What has not arrived by then counts as lost."""
CALLERS = 10
CALL_DEADLINE_S = 10.0


class Malice(StrEnum):
    """How a liar lies."""

    FLOOD = "flood"
    FORGERY = "forgery"
    LOAD = "load"
    SUSPICION = "suspicion"


@dataclass(frozen=True, slots=True)
class CutOff:
    """Of one kind, over the honest nodes that are connected with such a liar, in the end."""

    liars: int
    links: int
    shunned: float
    muted: float


@dataclass(frozen=True, slots=True)
class PoisonResult:
    """See the module."""

    liars: int
    news: int
    delivered: float
    """Share of the honest nodes that could send work for an honest node's new card in time."""
    delivered_ms: Spread | None
    calls: int
    calls_failed: int
    to_load_liars: int
    """Attempts that went to them."""
    to_load_liars_again: int
    """Of these: beyond the first of the same caller at the same liar."""
    wrongly_avoided: float
    """Share of pairs of honest nodes, over the time, in which the first sent no work to the second."""
    worst_avoided: float
    """At its worst moment."""
    doubts: int
    """Times that an honest node began to keep work from another one."""
    cut_off: Mapping[str, CutOff]
    honest_by_honest: CutOff
    """The same of honest nodes, wrongly."""
    messages_per_node_s: float
    bytes_per_node_s: float
    cpu_ms_per_node_s: float
    """These three of the mesh at rest, before."""
    during: Measured


async def poison(
    virtual: Virtual, options: Options, share: float, lasts_s: float, kinds: Sequence[Malice] = tuple(Malice)
) -> PoisonResult:
    """Turn *share* of the members for *lasts_s* seconds, of all *kinds* as many."""
    async with open_world(virtual, options.nodes, degree=options.degree, progress=options.progress) as world:
        at_rest = await rest(world, options)
        draw = virtual.random("poison")
        chosen = draw.sample(range(1, options.nodes), round(share * options.nodes))  # not the issuer
        liars = {world.members[number]: malice for number, malice in zip(chosen, cycle(kinds), strict=False)}
        honest = [member for member in world.members if member not in liars]
        calls, avoided = _Calls(liars), _Avoided(world, honest)
        arrivals: list[float] = []
        options.progress(f"{len(liars)} of {options.nodes} nodes turn malicious")
        with measured(world) as during:
            async with trio.open_nursery() as nursery:
                for member, malice in liars.items():
                    nursery.start_soon(_MALICE[malice], world, member, honest)
                await trio.sleep(BUILD_UP_S)
                for member in honest[:CALLERS]:
                    nursery.start_soon(calls.keep_calling, member, draw.random)
                news = round(lasts_s / NEWS_EVERY_S)
                async with trio.open_nursery() as told:
                    for number in range(news):
                        told.start_soon(_tell, world, draw.choice(honest), number, honest, arrivals)
                        await trio.sleep(NEWS_EVERY_S)
                        options.progress(f"news {number + 1} of {news}")
                nursery.cancel_scope.cancel()
            cost = during()
        virtual.trace.note("poison", len(arrivals), calls.made, calls.failed)
        return PoisonResult(
            liars=len(liars),
            news=news,
            delivered=len(arrivals) / (news * (len(honest) - 1)),
            delivered_ms=Spread.of(arrivals),
            calls=calls.made,
            calls_failed=calls.failed,
            to_load_liars=calls.to_liars,
            to_load_liars_again=calls.again,
            wrongly_avoided=round(avoided.mean(), 6),
            worst_avoided=round(avoided.at_worst(), 6),
            doubts=avoided.doubts,
            cut_off={kind.value: _cut_off(honest, [m for m, its in liars.items() if its is kind]) for kind in Malice},
            honest_by_honest=_cut_off(honest, honest),
            messages_per_node_s=at_rest.messages_per_node_s,
            bytes_per_node_s=at_rest.bytes_per_node_s,
            cpu_ms_per_node_s=at_rest.cpu_ms_per_node_s,
            during=cost,
        )


# -- malice ------------------------------------------------------------------------------------------------------------


async def _flood(world: World, member: Member, honest: Sequence[Member]) -> None:
    node = member.node
    while True:
        body, _ = node.announcer.beacon(len(node.table.nodes))
        await node.host.gossip.publish(beacons_topic(node.mesh_id), Announcement(body).encode())
        await trio.sleep(1 / FLOOD_PER_S)


async def _forge(world: World, member: Member, honest: Sequence[Member]) -> None:
    node, draw = member.node, world.virtual.random(f"forger {member.number}")
    while True:
        body = node.mesh.library.get(Key(Kind.BEACON, draw.choice(honest).peer.public_key))
        if body is not None:
            forged = body[:-1] + bytes([body[-1] ^ 1])
            await node.host.gossip.publish(beacons_topic(node.mesh_id), Announcement(forged).encode())
        await trio.sleep(1 / FORGED_PER_S)


async def _lie_about_load(world: World, member: Member, honest: Sequence[Member]) -> None:
    async def fail(card: Card, call: ToolCall, emit: Emit) -> bytes:
        raise CallError(Code.BACKEND, "this node only said that it could")

    member.worker.invoke = fail  # type: ignore[method-assign]
    member.node.announcer._load = lambda: Load(0, 0, 0)
    member.node.mesh._speak_now()


async def _accuse(world: World, member: Member, honest: Sequence[Member]) -> None:
    node = member.node
    while True:
        subject = honest[int(trio.current_time() / ACCUSED_EVERY_S) % len(honest)]
        known = node.table.nodes[subject.peer].beacon
        if known is not None:
            said = Suspicion(subject.peer, *known.order, refused=True, issued_at_ms=int(member.env.now() * 1000))
            envelope = node.identity.sign(domains.SUSPICION, said.encode())
            await node.host.gossip.publish(
                health_topic(node.mesh_id), Health(HealthKind.SUSPICION, envelope).encode()
            )
        await trio.sleep(ACCUSED_EVERY_S)


_MALICE: dict[Malice, Callable[[World, Member, Sequence[Member]], Awaitable[None]]] = {
    Malice.FLOOD: _flood,
    Malice.FORGERY: _forge,
    Malice.LOAD: _lie_about_load,
    Malice.SUSPICION: _accuse,
}


# -- what the honest see -----------------------------------------------------------------------------------------------


async def _tell(world: World, author: Member, number: int, honest: Sequence[Member], arrivals: list[float]) -> None:
    card = card_about(f"news {number}")
    wanted, began, waiting = card_id(card.encode()), trio.current_time(), set(honest) - {author}
    author.worker.cards.append(card)
    await author.node.refresh_builtin()

    def look() -> bool:
        for member in [each for each in waiting if _offers(each, author, wanted)]:
            waiting.discard(member)
            arrivals.append(trio.current_time() - began)
        return not waiting

    await until(look, WITHIN_S)


def _offers(member: Member, author: Member, card: bytes) -> bool:
    table = member.node.table
    seen = table.nodes.get(author.peer)
    offer = seen.offer if seen is not None else None
    return offer is not None and card in table.cards and any(entry.card == card for entry in offer.entries)


class _Avoided:
    """For how long honest nodes kept work from honest ones."""

    def __init__(self, world: World, honest: Sequence[Member]) -> None:
        self.doubts = self.worst = 0
        self._honest = {member.number for member in honest}
        self._views = Views(world, self._changed)
        for member in honest:
            self._views.follow(member)
        self._began = self._since = trio.current_time()
        self._pairs_now, self._pair_seconds = self._views.missing, 0.0

    def _changed(self, viewer: int, seen: int, usable: bool) -> None:
        if seen in self._honest:
            self._count()
            self._pairs_now += -1 if usable else 1
            self.doubts += not usable
            self.worst = max(self.worst, self._pairs_now)

    def _count(self) -> None:
        now = trio.current_time()
        self._pair_seconds += self._pairs_now * (now - self._since)
        self._since = now

    def mean(self) -> float:
        """Pairs, as a share of all."""
        self._count()
        return self._pair_seconds / (self._since - self._began) / self._views.pairs

    def at_worst(self) -> float:
        return self.worst / self._views.pairs


class _Calls:
    """Some honest nodes' calls for work that every node offers."""

    def __init__(self, liars: Mapping[Member, Malice]) -> None:
        self.made = self.failed = 0
        self._fail = {member.peer for member, malice in liars.items() if malice is Malice.LOAD}
        self._to_liars: Counter[tuple[int, PeerId]] = Counter()

    async def keep_calling(self, member: Member, draw: Callable[[], float]) -> None:
        intent = Intent(tool=WORK.tool, constraints=Constraints(type=WORK.type))
        while True:
            await trio.sleep(0.5 + draw())
            done = await member.node.dispatcher.unit(Unit(intent, b"{}", deadline_s=CALL_DEADLINE_S))
            self.made += 1
            self.failed += not done.ok
            self._to_liars.update(
                (member.number, each.candidate.peer) for each in done.attempts if each.candidate.peer in self._fail
            )

    @property
    def to_liars(self) -> int:
        """Attempts."""
        return self._to_liars.total()

    @property
    def again(self) -> int:
        """Of these: beyond the first of the same caller at the same liar."""
        return self.to_liars - len(self._to_liars)


def _cut_off(honest: Sequence[Member], others: Sequence[Member]) -> CutOff:
    links = shunned = muted = 0
    now = trio.current_time()
    for member in honest:
        scores, connected = member.node.host.gossip._pubsub.scores, member.node.host.connections()
        for other in others:
            if other.peer in connected:
                links += 1
                shunned += scores.shunned(ID(other.peer.raw), now)
                muted += scores.muted(ID(other.peer.raw), now)
    return CutOff(len(others), links, round(shunned / max(1, links), 3), round(muted / max(1, links), 3))
