"""What happens in a world: its mesh, its network, and the fate of every node, all drawn from one seed."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Conditions:
    """A world to be. Times are seconds; the same values and seed give the same world."""

    nodes: int = 1000
    duration_s: float = 1200.0
    loss: float = 0.0
    """Of every single message, for good: nothing is sent again."""
    latency_s: tuple[float, float] = (0.01, 0.15)
    """One way, uniform."""
    cycles: int = 4
    """Random rings through all nodes, of which the mesh is made: two neighbours each, a degree of 8."""
    stalls_per_minute: float = 0.02
    """Of each node: 2 % of all nodes are stopped in a minute."""
    stall_s: tuple[float, float] = (1.0, 20.0)
    """How long a stopped process is stopped, uniform."""
    deaths_per_hour: float = 0.5
    """Of each node. Every other one is a killed process, whose host refuses connections; the rest go silent."""
    absence_s: float = 60.0
    """After its death a node comes back with a new boot epoch."""
    hop_s: float = 0.1
    """Of gossip, from a node to its neighbours."""
    seed: int = 1

    @property
    def node_hours(self) -> float:
        return self.nodes * self.duration_s / 3600


@dataclass(frozen=True, slots=True)
class Spell:
    """A node is stopped or dead for a while."""

    node: int
    begin: float
    end: float
    death: bool
    refuses: bool = False


def mesh(conditions: Conditions) -> list[list[int]]:
    """The neighbours of every node: connected, of degree 8 or a little less."""
    rng = np.random.default_rng([conditions.seed, 1])
    neighbours: list[set[int]] = [set() for _ in range(conditions.nodes)]
    for _ in range(conditions.cycles):
        ring = rng.permutation(conditions.nodes).tolist()
        for one, other in zip(ring, ring[1:] + ring[:1], strict=True):
            neighbours[one].add(other)
            neighbours[other].add(one)
    return [sorted(of) for of in neighbours]


def rings(neighbours: list[list[int]], start: int) -> list[list[int]]:
    """The nodes at 1, 2, ... hops from *start*."""
    hops = {start: 0}
    queue = deque([start])
    found: list[list[int]] = []
    while queue:
        node = queue.popleft()
        for other in neighbours[node]:
            if other not in hops:
                hops[other] = hops[node] + 1
                if len(found) < hops[other]:
                    found.append([])
                found[hops[other] - 1].append(other)
                queue.append(other)
    return found


def fates(conditions: Conditions) -> list[Spell]:
    """All stalls and deaths in order of time; those of one node do not overlap."""
    rng = np.random.default_rng([conditions.seed, 2])
    spells: list[Spell] = []
    rates = np.array([conditions.stalls_per_minute / 60, conditions.deaths_per_hour / 3600])
    total = float(rates.sum())
    if not total:
        return []
    margin = 1.0  # after the world has begun and between spells
    for node in range(conditions.nodes):
        now = margin + float(rng.exponential(1 / total))
        while now < conditions.duration_s:
            death = bool(rng.random() * total >= rates[0])
            length = conditions.absence_s if death else float(rng.uniform(*conditions.stall_s))
            spells.append(Spell(node, now, now + length, death, death and bool(rng.random() < 0.5)))
            now += length + margin + float(rng.exponential(1 / total))
    spells.sort(key=lambda spell: (spell.begin, spell.node))
    return spells


def long_stall(spells: list[Spell], limit_s: float, memory_s: float, nodes: int) -> list[list[tuple[float, float]]]:
    """Per node the times in which to call it dead is counted apart: it was stopped for longer than *limit_s*.

    From its stop on, and for *memory_s* after its end: for so long its silence still counts with a slow observer.
    """
    excused: list[list[tuple[float, float]]] = [[] for _ in range(nodes)]
    for spell in spells:
        if spell.death or spell.end - spell.begin > limit_s:
            excused[spell.node].append((spell.begin, spell.end + memory_s))
    return excused
