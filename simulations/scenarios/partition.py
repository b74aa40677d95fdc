"""``partition``: the mesh falls into two halves, each goes on and has news of its own, and the halves meet again.

While it is parted a node of each half offers a new card and the issuer revokes a membership. Measured is how long
after the healing each node's state is whole: it could send work to every node, has everybody's present offer and cards,
and knows the same trust records as all others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import trio

from atmosphere.identity import Target
from atmosphere.mesh.table import State
from simulations.metrics import Spread
from simulations.scenarios.running import Measured, Options, measured, rest, which
from simulations.twins import card_about
from simulations.virtual import Virtual
from simulations.world import LOOK_EVERY_S, Member, World, open_world

NEWS_AFTER_S = 0.5
"""Of the parting's duration."""
WITHIN_S = 60.0
ISSUER = 0


@dataclass(frozen=True, slots=True)
class PartitionResult:
    """See the module."""

    degree: float
    parted_s: float
    given_up: float
    """Share of the pairs across that held each other for offline before the healing."""
    whole: float
    """Share of nodes whose state was whole in the end."""
    whole_ms: Spread | None
    """Of each node, after the healing; looked at ten times a second."""
    links_after: float
    messages_per_node_s: float
    bytes_per_node_s: float
    cpu_ms_per_node_s: float
    """These three of the mesh at rest, before."""
    parted: Measured
    healing: Measured
    build_cpu_s: Mapping[str, float]


async def partition(virtual: Virtual, options: Options, parted_s: float) -> PartitionResult:
    """Part the mesh for *parted_s* seconds."""
    async with open_world(virtual, options.nodes, degree=options.degree, progress=options.progress) as world:
        at_rest, degree = await rest(world, options), world.degree
        draw = virtual.random("partition")
        chosen = set(draw.sample(range(options.nodes), options.nodes // 2))
        halves = [[member for member in world.members if (member.number in chosen) is side] for side in (True, False)]
        with measured(world) as parted:
            options.progress("parted", ends=trio.current_time() + parted_s)
            world.network.part([[member.peer for member in half] for half in halves])
            await trio.sleep(parted_s * NEWS_AFTER_S)
            for half in halves:
                await _offer_something(half[-1])
            await world.members[ISSUER].node.revoke(Target.MEMBERSHIP, draw.randbytes(16), "simulated")
            await trio.sleep(parted_s * (1 - NEWS_AFTER_S))
            given_up, parted_cost = _given_up(halves), parted()
        options.progress("healing")
        with measured(world) as healing:
            world.network.heal()
            whole = await _become_whole(world)
            healing_cost = healing()
        return PartitionResult(
            degree=round(degree, 2),
            parted_s=parted_s,
            given_up=round(given_up, 4),
            whole=len(whole) / len(world.members),
            whole_ms=Spread.of(list(whole.values())),
            links_after=round(world.degree, 2),
            messages_per_node_s=at_rest.messages_per_node_s,
            bytes_per_node_s=at_rest.bytes_per_node_s,
            cpu_ms_per_node_s=at_rest.cpu_ms_per_node_s,
            parted=parted_cost,
            healing=healing_cost,
            build_cpu_s=world.build_cpu_s,
        )


async def _offer_something(member: Member) -> None:
    member.worker.cards.append(card_about(f"news of {member.number}"))
    await member.node.refresh_builtin()


def _given_up(halves: list[list[Member]]) -> float:
    pairs = [(member, other) for half, across in (halves, halves[::-1]) for member in half for other in across]
    held = sum(member.node.table.nodes[other.peer].state is State.OFFLINE for member, other in pairs)
    return held / len(pairs)


async def _become_whole(world: World) -> dict[int, float]:
    """Node -> seconds until its state was whole and stayed so."""
    began = trio.current_time()
    whole: dict[int, float] = {}
    while trio.current_time() < began + WITHIN_S and len(whole) < len(world.members):
        await trio.sleep(LOOK_EVERY_S)
        trust = world.members[ISSUER].node.mesh.trust.digest
        for member in world.members:
            if not _is_whole(world, member, trust):
                whole.pop(member.number, None)
            elif member.number not in whole:
                whole[member.number] = trio.current_time() - began
                world.virtual.trace.note("whole", member.number)
    return whole


def _is_whole(world: World, member: Member, trust: bytes) -> bool:
    table = member.node.table
    if member.node.mesh.trust.digest != trust:
        return False
    for other in world.members:
        seen, own = table.nodes.get(other.peer), other.node.table.nodes[other.peer].offer
        if seen is None or not seen.usable or own is None or which(seen.offer) != which(own):
            return False
    return all(entry.card in table.cards for node in table.nodes.values() if node.offer for entry in node.offer.entries)
