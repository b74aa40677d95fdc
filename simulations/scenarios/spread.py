"""``spread``: how news travels through a mesh at rest.

Alternately a random node offers a card that nobody has seen, and the issuer revokes a membership. Measured is the
gossip message (the beacon that names the new offer; the revocation itself), which every node judges before it passes
it on, and for a card also when work could be sent for it: the offer and the card are fetched after the beacon.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import trio

from atmosphere.capabilities.card import card_id
from atmosphere.identity import Target
from atmosphere.mesh.table import GradientTable
from protocols.sync.messages import Kind
from simulations.metrics import Hops, Said, Spread
from simulations.scenarios.running import Measured, Options, measured, rest
from simulations.twins import card_about
from simulations.virtual import Virtual
from simulations.world import Member, World, open_world, until

WITHIN_S = 15.0
"""What has not arrived by then counts as lost."""
AT_LEAST_S = 2.0
"""From one piece of news to the next; later, if it has not come to all before."""
SERIAL_BYTES = 16
ISSUER = 0


@dataclass(frozen=True, slots=True)
class SpreadResult:
    """See the module. Shares are of all nodes but the author's, of all news."""

    degree: float
    news: int
    delivered: float
    """Share of nodes that knew it when its time was over, however it came."""
    by_gossip: float
    virtual_ms: Spread | None
    hops: Hops | None
    copies: float
    """Of each piece of news that come to a node by gossip, on average."""
    usable_ms: Spread | None
    """Cards alone: until a node could send work for it."""
    usable: float
    messages_per_node_s: float
    bytes_per_node_s: float
    cpu_ms_per_node_s: float
    """These three of the mesh at rest."""
    at_rest: Measured
    during: Measured
    build_cpu_s: Mapping[str, float]


@dataclass
class News:
    """A piece of news, and who has it."""

    author: Member
    knows: Callable[[Member], bool]
    usable: dict[int, float] | None = None
    """Node -> seconds; of a card."""
    said: Said | None = None

    def is_everywhere(self, members: Sequence[Member]) -> bool:
        everybody = self.usable is None or len(self.usable) == len(members) - 1
        return everybody and all(self.knows(member) for member in members)


async def spread(virtual: Virtual, options: Options, count: int) -> SpreadResult:
    """Tell *count* pieces of news, one after the other."""
    draw = virtual.random("spread")
    async with open_world(virtual, options.nodes, degree=options.degree, progress=options.progress) as world:
        at_rest = await rest(world, options)
        news: list[News] = []
        delivered = usable = 0
        with measured(world) as during:
            for number in range(count):
                options.progress(f"news {number + 1} of {count}", number / count)
                piece = await tell(world, number, draw.randrange(options.nodes), draw.randbytes(SERIAL_BYTES))
                delivered += sum(piece.knows(member) for member in world.members if member is not piece.author)
                usable += len(piece.usable or ())
                news.append(piece)
        return _result(world, news, delivered, usable, at_rest, during())


async def tell(world: World, number: int, author: int, serial: bytes) -> News:
    """Have one piece of news told, a card by node *author* or a revocation; wait until it has come to all."""
    meter = world.meter
    meter.said.clear()
    meter.following = True
    news = await (_new_card(world, author, number) if number % 2 == 0 else _revocation(world, serial))
    await trio.sleep(AT_LEAST_S)
    await until(lambda: news.is_everywhere(world.members), WITHIN_S - AT_LEAST_S)
    meter.following = False
    news.said = next((said for said in meter.said.values() if said.author == news.author.number), None)
    return news


async def _new_card(world: World, author: int, number: int) -> News:
    member = world.members[author]
    card = card_about(f"news {number}")
    wanted = card_id(card.encode())
    began = trio.current_time()
    usable: dict[int, float] = {}
    for other in world.members:
        if other is not member:
            _when_usable(other, member, wanted, lambda n: usable.setdefault(n, trio.current_time() - began))
    member.worker.cards.append(card)
    await member.node.refresh_builtin()

    def knows(other: Member) -> bool:
        seen = other.node.table.nodes[member.peer].beacon
        own = member.node.table.nodes[member.peer].beacon
        return seen is not None and own is not None and seen.offer == own.offer

    return News(member, knows, usable)


def _when_usable(member: Member, author: Member, card: bytes, then: Callable[[int], object]) -> None:
    table: GradientTable = member.node.table

    def look() -> None:
        offer = table.nodes[author.peer].offer
        if card in table.cards and offer is not None and any(entry.card == card for entry in offer.entries):
            table.listeners.discard(look)
            then(member.number)

    table.listeners.add(look)


async def _revocation(world: World, serial: bytes) -> News:
    issuer = world.members[ISSUER]
    before = set(issuer.node.mesh.trust.keys())
    await issuer.node.revoke(Target.MEMBERSHIP, serial, "simulated")
    (key,) = [key for key in set(issuer.node.mesh.trust.keys()) - before if key.kind is Kind.REVOCATION]
    return News(issuer, lambda member: key in member.node.mesh.trust)


def _result(
    world: World, news: list[News], delivered: int, usable: int, at_rest: Measured, during: Measured
) -> SpreadResult:
    others = len(world.members) - 1
    arrivals = [
        arrival
        for piece in news
        if piece.said is not None
        for number, arrival in piece.said.heard.items()
        if number != piece.author.number
    ]
    cards = [piece for piece in news if piece.usable is not None]
    return SpreadResult(
        degree=round(world.degree, 2),
        news=len(news),
        delivered=delivered / (others * len(news)),
        by_gossip=len(arrivals) / (others * len(news)),
        virtual_ms=Spread.of([seconds for seconds, _ in arrivals]),
        hops=Hops.of([hops for _, hops in arrivals], len(world.members)),
        copies=round(sum(piece.said.copies for piece in news if piece.said is not None) / (others * len(news)), 2),
        usable_ms=Spread.of([seconds for piece in cards for seconds in (piece.usable or {}).values()]),
        usable=usable / (others * max(1, len(cards))),
        messages_per_node_s=at_rest.messages_per_node_s,
        bytes_per_node_s=at_rest.bytes_per_node_s,
        cpu_ms_per_node_s=at_rest.cpu_ms_per_node_s,
        at_rest=at_rest,
        during=during,
        build_cpu_s=world.build_cpu_s,
    )
