"""The failure detector against a naive heartbeat: ``python -m tests.benchmarks.detector [--node-hours N] [--json]``.

Deterministic simulation (``simulations/detector``): 1,000 real detectors on a mesh of degree 8, at 0, 5 and 10 % loss
of every message, with stopped processes and deaths; in the same worlds a beat every 5 s of which three missed are a
death. 10,000 node-hours in all, in worlds of 20 minutes. Then meshes of three sizes at 5 % loss where nobody fails, to
compare the messages of a node: what is said of a failure goes to all nodes, hence comes on top per failure.
Goal: 20 times fewer false deaths, by the 95 % upper bound of ours.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
from concurrent.futures import ProcessPoolExecutor

from simulations.detector import Conditions, Result, World, naive_heartbeat, upper_bound
from simulations.detector.report import quantile

LOSSES = (0.0, 0.05, 0.10)
SIZES = (100, 300, 1000)
GOAL = 20.0


def both(conditions: Conditions) -> tuple[Result, Result]:
    """One world, both detectors."""
    world = World(conditions)
    return world.run(), naive_heartbeat(conditions, world.settings.dead_min_s)


def total(results: list[Result]) -> Result:
    first, *rest = results
    for result in rest:
        first.add(result)
    return first


def row(name: str, ours: Result) -> str:
    def times(values: list[float]) -> str:
        return f"{quantile(values, 0.5):5.2f}/{quantile(values, 0.99):5.2f}"

    return (
        f"{name:14} {ours.node_hours:8.0f} {ours.deaths:6} {ours.false_deaths:6} {ours.false_elsewhere:6} "
        f"{ours.bound_per_node_hour:9.2g} {ours.stalled_deaths:8} {times(ours.first):>12} "
        f"{times(ours.everywhere):>12} "
        f"{ours.per_node_second(ours.probes):8.2f} {ours.per_node_second(ours.gossip):7.2f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--node-hours", type=float, default=10_000.0, help="in all, over the three losses")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    world = Conditions()
    worlds = max(1, round(options.node_hours / len(LOSSES) / world.node_hours))
    large = [dataclasses.replace(world, loss=loss, seed=seed) for loss in LOSSES for seed in range(1, worlds + 1)]
    quiet = dataclasses.replace(world, loss=LOSSES[1], stalls_per_minute=0.0, deaths_per_hour=0.0, duration_s=300.0)
    small = [dataclasses.replace(quiet, nodes=size) for size in SIZES]
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        results = list(pool.map(both, large + small))
    levels = {}
    for index, loss in enumerate(LOSSES):
        part = results[index * worlds : (index + 1) * worlds]
        levels[loss] = total([ours for ours, _ in part]), total([naive for _, naive in part])
    sizes = {size: results[len(large) + index][0] for index, size in enumerate(SIZES)}
    ours = sum(ours.false_deaths for ours, _ in levels.values())
    naive = sum(naive.false_deaths for _, naive in levels.values())
    ratio = naive / upper_bound(ours)
    if options.json:
        print(json.dumps({
            "false_deaths": ours, "naive_false_deaths": naive, "ratio_at_least": round(ratio, 1), "goal": GOAL,
            "levels": {str(loss): {"ours": dataclasses.asdict(a), "naive": dataclasses.asdict(b)}
                       for loss, (a, b) in levels.items()},
        }))
        return
    print(f"{'':14} {'node-h':>8} {'deaths':>6} {'false':>6} {'far':>6} {'95% /n-h':>9} {'stalled':>8} "
          f"{'first s':>12} {'99% know s':>12} {'probe/s':>8} {'gossip':>7}")
    for loss, (detector, heartbeat) in levels.items():
        print(row(f"{loss:.0%} atmosphere", detector))
        print(row(f"{loss:.0%} heartbeat", heartbeat))
    for size, result in sizes.items():
        print(row(f"quiet, n={size}", result))
    print("times: p50/p99 after a death, until the first neighbour knew, until 99 % of the nodes knew")
    print(f"false deaths: {ours} against {naive}: {ratio:.0f} times fewer at least (goal {GOAL:.0f})")


if __name__ == "__main__":
    main()
