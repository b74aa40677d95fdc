"""How news spreads, as numbers alone: first arrivals over the eager links of a random mesh, up to a million nodes.

A message goes from each node that has it to its eager neighbours, GossipSub's mesh. Each link takes its own time, and
each hop a little more. Which links are eager: a node grafts until it has four, and near links are ready first; so the
first four of each end are. What is left out: copies that are asked for after a heartbeat (three ways instead of one,
so rarely first), queues, losses and nodes that are busy. Pure; numpy only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.int32]
Times = npt.NDArray[np.float32]

LATENCY_MS = (20.0, 100.0)
"""One way, of each link, as in the simulated worlds."""
AUTHORS = 10
"""Whose news is counted together, as in a run of the scenario `spread`."""


LINKS = 8
"""Of a node, even."""
GRAFTED = 4
"""Below so many eager links a node grafts (GossipSub's D_low); others may graft it beyond."""


@dataclass(frozen=True, slots=True)
class Parameters:
    """What the model takes from a real run."""

    noise_ms: float
    """Links are ready in the order of their latency and of chance, uniform up to this; 0: the nearest are eager."""
    hop_ms: float
    """That a hop takes beyond the link: rounding, queues, being scheduled."""


@dataclass(frozen=True, slots=True)
class Graph:
    """Directed links in both directions, by row: ``sources[k, v]`` reaches node v in ``times[k, v]`` milliseconds.

    A link that is not eager takes for ever.
    """

    sources: Numbers
    times: Times

    @property
    def nodes(self) -> int:
        return int(self.sources.shape[1])

    @property
    def eager(self) -> float:
        """Eager links of a node, on average."""
        return float(np.isfinite(self.times).sum() / self.nodes)


@dataclass(frozen=True, slots=True)
class Spread:
    """First arrivals, over all nodes but the authors."""

    nodes: int
    p50_ms: float
    p99_ms: float
    max_ms: float
    hops_mean: float
    hops_max: int


def mesh(nodes: int, parameters: Parameters, draw: np.random.Generator, links: int = LINKS) -> Graph:
    """Eager links of *nodes* whose *links* are random rings through all of them, as in the simulated worlds."""
    sources = np.empty((links, nodes), np.int32)
    times = np.empty((links, nodes), np.float32)
    ready = np.empty((links, nodes), np.float32)
    afters = []
    for ring in range(links // 2):
        order = draw.permutation(nodes).astype(np.int32)
        after, before = np.empty(nodes, np.int32), np.empty(nodes, np.int32)
        after[order], before[order] = np.roll(order, -1), np.roll(order, 1)
        onwards = draw.uniform(*LATENCY_MS, nodes).astype(np.float32)  # v -> after[v], the same both ways
        turn = onwards + draw.uniform(0, parameters.noise_ms, nodes).astype(np.float32)
        sources[2 * ring], times[2 * ring], ready[2 * ring] = before, onwards[before], turn[before]
        sources[2 * ring + 1], times[2 * ring + 1], ready[2 * ring + 1] = after, onwards, turn
        afters.append(after)
    rank = ready.argsort(axis=0, kind="stable").argsort(axis=0, kind="stable")
    for ring, after in enumerate(afters):
        late = (rank[2 * ring + 1] >= GRAFTED) & (rank[2 * ring][after] >= GRAFTED)  # for both ends of v -> after[v]
        times[2 * ring + 1][late] = np.inf
        times[2 * ring][after[late]] = np.inf
    return Graph(sources, times + np.float32(parameters.hop_ms))


def arrivals(graph: Graph, author: int) -> tuple[Times, Numbers]:
    """Milliseconds until each node has *author*'s news, and the hops of its first copy. Exact for the graph.

    Labels are corrected until nothing changes: as many rounds as the longest first way has hops, each over all links at
    once, which beats a heap in Python a hundred times.
    """
    at = np.full(graph.nodes, np.inf, np.float32)
    at[author] = 0
    while True:
        better = at.copy()
        for sources, times in zip(graph.sources, graph.times, strict=True):
            np.minimum(better, at[sources] + times, out=better)
        if np.array_equal(better, at):
            return at, _hops(graph, at, author)
        at = better


def _hops(graph: Graph, at: Times, author: int) -> Numbers:
    parent = np.full(graph.nodes, author, np.int32)
    best = np.full(graph.nodes, np.inf, np.float32)
    for sources, times in zip(graph.sources, graph.times, strict=True):
        through = at[sources] + times
        nearer = through < best
        best[nearer], parent[nearer] = through[nearer], sources[nearer]
    parent[author] = author
    hops: Numbers = (np.arange(graph.nodes) != author).astype(np.int32)
    while not (parent == author).all():  # each round, the way that is counted is twice as long
        hops += hops[parent]
        parent = parent[parent]
    return hops


def spread(nodes: int, parameters: Parameters, seed: int = 1, authors: int = AUTHORS) -> Spread:
    """News of *authors* random nodes in one mesh of *nodes*."""
    draw = np.random.default_rng([seed, nodes])
    graph = mesh(nodes, parameters, draw)
    times, hops = [], []
    for author in draw.integers(nodes, size=authors):
        at, count = arrivals(graph, int(author))
        others = np.arange(nodes) != author
        times.append(at[others])
        hops.append(count[others])
    together, all_hops = np.concatenate(times), np.concatenate(hops)
    p50, p99, most = np.quantile(together, (0.5, 0.99, 1.0))
    return Spread(
        nodes, round(float(p50), 1), round(float(p99), 1), round(float(most), 1),
        round(float(all_hops.mean()), 2), int(all_hops.max()),
    )


def mean_spread(nodes: int, parameters: Parameters, seeds: Sequence[int], authors: int = AUTHORS) -> Spread:
    """The mean of several meshes; the largest ones of the maxima are means too."""
    found = [spread(nodes, parameters, seed, authors) for seed in seeds]

    def mean(name: str, digits: int = 1) -> float:
        return round(float(np.mean([getattr(each, name) for each in found])), digits)

    return Spread(
        nodes, mean("p50_ms"), mean("p99_ms"), mean("max_ms"), mean("hops_mean", 2), round(mean("hops_max"))
    )
