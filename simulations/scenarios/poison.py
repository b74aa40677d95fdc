"""``poison``: a share of the members is malicious, each in one of four ways, and the others go on.

All of them have valid memberships, and otherwise run the same node. Floods: valid beacons of its own, one after the
other. Forgers: beacons in the name of others. Load liars: idle and free, they say, and fail every call. False
suspicions: all of these say together of one honest node after the other that it refuses connections. Peer scoring is on
in both fidelities. Measured is, among the honest: whether news and calls get through, whom the tables wrongly keep work
from, and how soon liars are cut off. That means: of floods and forgers, that an honest node which had given them a
place in its gossip mesh shuns them; of false accusers, that an honest node does not count their word, and passes it on
to nobody; load liars are cut off by every caller for itself, so what is counted is the calls that still go to them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import cycle

import trio

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
from transports.score import Standing

FLOOD_PER_S = 50
FORGED_PER_S = 5
ACCUSED_EVERY_S = 2.0
"""From one honest node that all accusers turn on to the next."""
BUILD_UP_S = 5.0
"""Of malice, before the honest nodes' news and calls are counted."""
NEWS_EVERY_S = 2.0
WITHIN_S = 15.0
"""What has not arrived by then counts as lost."""
LOOK_EVERY_S = 0.5
"""At who is cut off."""
RIPE_S = 10.0
"""Pairs that have met later than so long before the end are not counted: a liar goes on and finds new neighbours."""
CALLS_SHOWN_S = 5.0
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
    """Of some nodes, by others: over the pairs of both of which the second could have been harmed."""

    nodes: int
    pairs: int
    ever: float
    """Share of the pairs in which the second has cut off the first, at some time."""
    in_the_end: float
    """The same in the end, or nothing of the first comes to the second any more."""
    after_ms: Spread | None
    """Over the pairs, since malice began or, if that was later, they met."""


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
    calls_over_time: Sequence[tuple[float, int, int]]
    """Seconds since the calls began, calls that ended in this stretch, and their attempts that went to load liars."""
    cut_off: Mapping[str, CutOff]
    """By kind, without load liars."""
    honest_shunned: CutOff
    honest_not_believed: CutOff
    """The same of honest nodes by honest nodes, wrongly."""
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
        cut = {
            malice: _Cut(honest, [m for m, its in liars.items() if its is malice], how)
            for malice, how in ((Malice.FLOOD, _shuns), (Malice.FORGERY, _shuns), (Malice.SUSPICION, _does_not_believe))
        }
        wrongly = [_Cut(honest, honest, how) for how in (_shuns, _does_not_believe)]
        arrivals: list[float] = []
        options.progress(f"{len(liars)} of {options.nodes} nodes turn malicious")
        with measured(world) as during:
            async with trio.open_nursery() as nursery:
                for member, malice in liars.items():
                    nursery.start_soon(_MALICE[malice], world, member, honest)
                nursery.start_soon(_keep_looking, [*cut.values(), *wrongly])
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
            calls_over_time=calls.over_time(),
            cut_off={malice.value: seen.result() for malice, seen in cut.items()},
            honest_shunned=wrongly[0].result(),
            honest_not_believed=wrongly[1].result(),
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
    member.node.announcer.load = lambda: Load(0, 0, 0)
    member.node.mesh.speak()


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
        self._began = trio.current_time()
        self._ended: list[tuple[float, int]] = []
        """When each call ended, and its attempts at load liars."""
        self._liars_of: set[tuple[int, PeerId]] = set()

    async def keep_calling(self, member: Member, draw: Callable[[], float]) -> None:
        intent = Intent(tool=WORK.tool, constraints=Constraints(type=WORK.type))
        while True:
            await trio.sleep(0.5 + draw())
            done = await member.node.dispatcher.unit(Unit(intent, b"{}", deadline_s=CALL_DEADLINE_S))
            self.made += 1
            self.failed += not done.ok
            fooled = [each.candidate.peer for each in done.attempts if each.candidate.peer in self._fail]
            self._liars_of.update((member.number, liar) for liar in fooled)
            self._ended.append((trio.current_time() - self._began, len(fooled)))

    @property
    def to_liars(self) -> int:
        """Attempts."""
        return sum(fooled for _, fooled in self._ended)

    @property
    def again(self) -> int:
        """Of these: beyond the first of the same caller at the same liar."""
        return self.to_liars - len(self._liars_of)

    def over_time(self) -> list[tuple[float, int, int]]:
        """See :class:`PoisonResult`."""
        stretches: dict[int, list[int]] = {}
        for at, fooled in self._ended:
            stretches.setdefault(int(at // CALLS_SHOWN_S), []).append(fooled)
        return [(CALLS_SHOWN_S * number, len(each), sum(each)) for number, each in sorted(stretches.items())]


class _Cut:
    """Which of some nodes the honest have cut off, looked at again and again."""

    def __init__(
        self, honest: Sequence[Member], others: Sequence[Member], how: Callable[[Member, Member], bool | None]
    ) -> None:
        """*how*: whether the first cuts off the second now; None: nothing of it came to the first in this moment."""
        self._honest = honest
        self._others = others
        self._how = how
        self._harmed: dict[tuple[int, int], float] = {}
        self._after: dict[tuple[int, int], float] = {}

    def look(self) -> None:
        """At every pair, now."""
        now = trio.current_time()
        for member in self._honest:
            for other in self._others:
                cuts, pair = self._how(member, other), (member.number, other.number)
                if cuts is not None:
                    self._harmed.setdefault(pair, now)
                if cuts:
                    self._after.setdefault(pair, now - self._harmed[pair])

    def result(self) -> CutOff:
        """In the end."""
        end = trio.current_time()
        ripe = [pair for pair, since in self._harmed.items() if end - since >= RIPE_S]
        members = {member.number: member for member in (*self._honest, *self._others)}
        cut = [self._after[pair] for pair in ripe if pair in self._after]
        now = sum(self._how(members[first], members[second]) is not False for first, second in ripe)
        pairs = max(1, len(ripe))
        return CutOff(
            len(self._others), len(ripe), round(len(cut) / pairs, 4), round(now / pairs, 4), Spread.of(cut)
        )


def _shuns(member: Member, other: Member) -> bool | None:
    gossip = member.node.host.gossip
    if gossip.standing(other.peer) is not Standing.GOOD:
        return True
    return False if other.peer in gossip.mesh_peers(beacons_topic(member.node.mesh_id)) else None


def _does_not_believe(member: Member, other: Member) -> bool | None:
    return None if member is other else not member.node.mesh.watch.detector.trusts(other.peer)


async def _keep_looking(seen: Sequence[_Cut]) -> None:
    while True:
        for each in seen:
            each.look()
        await trio.sleep(LOOK_EVERY_S)
