"""``python -m simulations.model``: what no run can reach, from runs that were made: spread and load up to 10^6 nodes.

Two numbers of the spread and the prices of the load come from real runs of 100 nodes alone; all larger runs that are
given say how far the model is from them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from math import log2
from pathlib import Path
from statistics import fmean
from typing import Any

import click
import numpy as np

from simulations.model_load import INTENTS_PER_NODE_S, Load, Prices, by_family, limits, load, prices
from simulations.model_spread import GRAFTED, LINKS, Parameters, Spread, mean_spread, mesh

CALIBRATED_ON = 100
"""Nodes of the runs that set the parameters."""
SIZES = (30, 100, 300, 1000, 3000, 10_000, 30_000, 100_000, 300_000, 1_000_000)
NOISES_MS = (0.0, 10.0, 20.0, 40.0, 60.0, 80.0, 100.0, 150.0, 200.0)
HOPS_MS = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
DEFAULT_SPREAD = Parameters(noise_ms=0.0, hop_ms=1.0)
DEFAULT_REST = (23.2, 11380.2, 8.26)
"""Messages and bytes of a node and second, and its links, in 100 nodes at rest (seed 1): without any run."""


@dataclass(frozen=True, slots=True)
class Run:
    """What the model needs of a run of the scenario `spread`."""

    nodes: int
    links: float
    p50_ms: float
    p99_ms: float
    max_ms: float
    hops_mean: float
    hops_max: float
    messages_per_node_s: float
    bytes_per_node_s: float

    @classmethod
    def of(cls, found: dict[str, Any]) -> Run:
        """From its figures (`--json`), or from the `result.json` of a report."""
        found = found.get("figures", found)
        times, hops = found["virtual_ms"], found["hops"]
        return cls(
            found["nodes"], found["degree"], times["p50"], times["p99"], times["max"], hops["mean"], hops["max"],
            found["messages_per_node_s"], found["bytes_per_node_s"],
        )  # fmt: skip

    @classmethod
    def mean(cls, runs: Sequence[Run]) -> Run:
        """Of runs of one size."""
        values = (list(asdict(run).values())[1:] for run in runs)
        return cls(runs[0].nodes, *(fmean(column) for column in zip(*values, strict=True)))


@dataclass(frozen=True, slots=True)
class Model:
    """Calibrated."""

    spread: Parameters
    prices: Prices


COMPARED = ("p50_ms", "p99_ms", "max_ms", "hops_mean", "hops_max", "messages_per_node_s", "bytes_per_node_s")
UNITS = {
    "p50_ms": "ms", "p99_ms": "ms", "max_ms": "ms", "hops_mean": "hops", "hops_max": "hops",
    "beacon_period_s": "s", "beacon_age_s": "s", "beacons_per_s": "1/s", "messages_per_node_s": "1/s",
    "bytes_per_node_s": "B/s", "cpu_share": "cores", "table_bytes": "B", "join_bytes": "B", "join_cpu_s": "s",
    "sync_bytes_per_s": "B/s", "dht_find_messages": "messages", "dht_find_s": "s",
}  # fmt: skip

FAMILIES, JOINED = 50, 2
"""Of a mesh with a topic for each family of capabilities: how many there are, and how many a node listens to."""
VARIANTS = {
    "with_intents": ("beacons_per_s", "bytes_per_node_s", "cpu_share"),
    "by_family": ("beacon_age_s", "bytes_per_node_s", "table_bytes"),
}
"""Figures once more: with an intent every 100 s at each node; and with topics by family, which nothing has yet."""


def read_runs(paths: Iterable[Path]) -> list[Run]:
    """Runs of `spread` in JSON files, or in folders of them; the mean of those of one size; by size."""
    by_size: dict[int, list[Run]] = {}
    for path in paths:
        for file in sorted(path.rglob("*.json")) if path.is_dir() else [path]:
            try:
                found = json.loads(file.read_text())
            except ValueError as error:
                raise click.ClickException(f"{file} holds no result of a run: {error}") from None
            figures = found.get("figures", found) if isinstance(found, dict) else {}
            if figures.get("scenario") == "spread":
                run = Run.of(found)
                by_size.setdefault(run.nodes, []).append(run)
    return [Run.mean(by_size[size]) for size in sorted(by_size)]


def calibrate(runs: Sequence[Run], seeds: Sequence[int]) -> Model:
    """From the runs of 100 nodes alone; without one, as they were when this was written."""
    small = next((run for run in runs if run.nodes == CALIBRATED_ON), None)
    messages, octets, links = DEFAULT_REST
    chosen = DEFAULT_SPREAD
    if small is not None:
        messages, octets, links = small.messages_per_node_s, small.bytes_per_node_s, small.links
        chosen = min(
            (Parameters(*each) for each in product(NOISES_MS, HOPS_MS)),
            key=lambda each: _distance(mean_spread(CALIBRATED_ON, each, seeds), small),
        )
    eager = mesh(CALIBRATED_ON, chosen, np.random.default_rng(seeds[0])).eager
    return Model(chosen, prices(messages, octets, CALIBRATED_ON, links, eager))


def _distance(found: Spread, real: Run) -> float:
    names = ("p50_ms", "p99_ms", "hops_mean")
    return sum(log2(getattr(found, name) / getattr(real, name)) ** 2 for name in names)


def compute(model: Model, runs: Sequence[Run], sizes: Sequence[int], seeds: Sequence[int]) -> dict[str, Any]:
    """Every figure over *sizes*, beside the runs, with what there is to say to it; ready for JSON."""
    larger = [run for run in runs if run.nodes != CALIBRATED_ON]
    wanted = sorted({*sizes, *(run.nodes for run in runs)})
    spreads = {size: mean_spread(size, model.spread, seeds if size <= 10_000 else seeds[:1]) for size in wanted}
    loads = {size: load(size, model.prices) for size in wanted}

    def value(name: str, size: int) -> float:
        source: Spread | Load = spreads[size] if hasattr(spreads[size], name) else loads[size]
        return float(getattr(source, name))

    figures: dict[str, dict[str, Any]] = {
        name: {
            "unit": unit,
            "model": [[size, value(name, size)] for size in wanted],
            "runs": [
                [run.nodes, real, value(name, run.nodes), round(value(name, run.nodes) / real - 1, 4)]
                for run in runs
                if name in COMPARED and (real := float(getattr(run, name)))
            ],
        }
        for name, unit in UNITS.items()
    }
    for size in wanted:
        others = {
            "with_intents": load(size, model.prices, INTENTS_PER_NODE_S),
            "by_family": load(by_family(size, FAMILIES, JOINED), model.prices),
        }
        for variant, names in VARIANTS.items():
            for name in names:
                figure = figures.setdefault(f"{variant}_{name}", {"unit": UNITS[name], "model": [], "runs": []})
                figure["model"].append([size, float(getattr(others[variant], name))])
    return {
        "calibrated_on": CALIBRATED_ON,
        "parameters": {**asdict(model.spread), **asdict(model.prices)},
        "figures": figures,
        "largest_error": {
            name: max((abs(run[3]) for run in figures[name]["runs"] if run[0] != CALIBRATED_ON), default=None)
            for name in COMPARED
        },
        "limits": [asdict(limit) for limit in limits(model.prices)],
        "notes": _notes(model, larger),
    }


def _notes(model: Model, larger: Sequence[Run]) -> list[str]:
    compared = ", ".join(f"{run.nodes:,}" for run in larger) or "no other size"
    return [
        f"Calibrated on runs of {CALIBRATED_ON} nodes alone; compared with runs of {compared}.",
        f"Spread: each node has {LINKS} links and is eager on the {GRAFTED} that were ready first, of either end; "
        f"that is {model.prices.copies + 1:.2f} of them. Nodes that are busy, and losses, are left out.",
        "A mesh that has lived long has other eager links than the nearest ones and is slower, by up to 30 %.",
        "Load: by the rules of the code, all nodes in one topic. Above the size of the table a node does not know how "
        "many there are, so beacons become more frequent again.",
        f"With intents: one every {1 / INTENTS_PER_NODE_S:.0f} s at each node, and news of load for it. By family: "
        f"{FAMILIES} topics of one size, of which a node listens to {JOINED}; a design, not in the product.",
        "DHT: of the library by itself at 300 and 1,000 nodes (about 20 FIND_NODE and 20 ADD_PROVIDER to provide, 19 "
        "and 19 to find); beyond, a round more for each factor of 20 is assumed. The product has no DHT yet.",
    ]


def as_text(found: dict[str, Any]) -> str:
    """Tables for people."""
    names = list(found["figures"])
    lines = ["parameters  " + ", ".join(f"{name} {value:g}" for name, value in found["parameters"].items()), ""]
    for name in names:
        figure = found["figures"][name]
        row = "  ".join(f"{size:,}: {value:g}" for size, value in figure["model"])
        lines.append(f"{name} ({figure['unit']})\n  model  {row}")
        if figure["runs"]:
            beside = "  ".join(f"{size:,}: {real:g} ({error:+.1%})" for size, real, _, error in figure["runs"])
            lines.append(f"  runs (error of the model)  {beside}")
    lines += ["", *(f"{limit['nodes']:>9,} nodes  {limit['what']}" for limit in found["limits"]), ""]
    return "\n".join([*lines, *found["notes"]])


@click.command()
@click.option("--runs", "paths", type=click.Path(exists=True, path_type=Path), multiple=True,
              help="Results of `simulate spread --json` or of --report, or folders of them; as often as wanted")
@click.option("--sizes", default=",".join(map(str, SIZES)), show_default=True, help="Nodes, with commas")
@click.option("--seeds", type=click.IntRange(1), default=5, show_default=True, help="Random meshes of each size")
@click.option("--json", "as_json", is_flag=True, help="One JSON object")
def main(paths: tuple[Path, ...], sizes: str, seeds: int, as_json: bool) -> None:
    """Spread and load of meshes up to a million nodes, by numbers alone."""
    try:
        wanted = [int(size) for size in sizes.split(",")]
    except ValueError:
        raise click.BadParameter(f"{sizes!r}: numbers with commas between", param_hint="--sizes") from None
    runs = read_runs(paths)
    drawn = range(1, seeds + 1)
    found = compute(calibrate(runs, drawn), runs, wanted, drawn)
    click.echo(json.dumps(found) if as_json else as_text(found))


if __name__ == "__main__":
    main()
