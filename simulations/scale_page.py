"""docs/scale.md, written from the results of runs alone: every figure in it is one of theirs, or computed from them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import log
from pathlib import Path
from textwrap import fill
from typing import Any

from simulations import plots
from simulations.fast import ACCELERATIONS
from simulations.page import LEFT_OUT, PREFILLED
from simulations.plots import Plot, Points

Result = Mapping[str, Any]

FLAT_WITHIN = 1.5
MANY = 10_000
"""From here on numbers are written without decimals."""

REST = {
    "messages_per_node_s": "messages",
    "bytes_per_node_s": "bytes",
    "cpu_ms_per_node_s": "CPU, ms",
}
"""Figures of a node at rest, per virtual second."""

ELSEWHERE = {
    "scenario", "nodes", "seed", "fidelity", "events", "trace_hash", "command", "errors", "build_cpu_s", "virtual_s",
    "over_time", "rss_mb", "cpu_s", "wall_s", "peak_rss_mb",
}  # fmt: skip
"""Figures of a run that stand in another table, or in its JSON alone."""


@dataclass(frozen=True, slots=True)
class Scale:
    """All there is to tell. A result without "figures" is a run that is missing or failed."""

    results: Mapping[str, Result]
    code: str
    """What a run of today would be made by."""
    model: Mapping[str, Any]
    by: str
    """The command that writes the page."""

    @property
    def spreads(self) -> dict[int, Result]:
        """By size; of two of one size the first."""
        return self._by_size(lambda figures: 0.0)

    @property
    def rests(self) -> dict[int, Result]:
        """Spreads by size; of two of one size the one that rested longer before."""
        return self._by_size(lambda figures: float(figures["at_rest"]["virtual_s"]))

    def _by_size(self, better: Callable[[Any], float]) -> dict[int, Result]:
        found = [each for each in self.results.values() if each.get("figures", {}).get("scenario") == "spread"]
        best: dict[int, Result] = {}
        for each in found:
            size = _nodes(each["figures"])
            if size not in best or better(each["figures"]) > better(best[size]["figures"]):
                best[size] = each
        return dict(sorted(best.items()))

    @property
    def others(self) -> dict[str, Result]:
        return {
            name: each
            for name, each in self.results.items()
            if "figures" in each and each["figures"]["scenario"] != "spread"
        }


def _nodes(figures: Mapping[str, Any]) -> int:
    return int(figures["nodes"])


def write_page(out: Path, scale: Scale) -> None:
    """Write the page to *out* and its plots into the folder of that name."""
    folder = out.with_suffix("")
    sections = [_head(scale), _goals(scale), _spread(scale, folder), _rest(scale, folder), _limits(scale, folder),
                _model(scale, folder), *_others(scale, folder), _runs(scale)]  # fmt: skip
    out.write_text("\n\n".join(section.strip() for section in sections if section) + "\n")


# Sections -------------------------------------------------------------------------------------------------------------


def _head(scale: Scale) -> str:
    done = [each for each in scale.results.values() if "figures" in each]
    machines = sorted({_machine(each["machine"]) for each in done})
    dates = sorted({each["date"] for each in done})
    when = " to ".join(dict.fromkeys((dates[0], dates[-1]))) if dates else "never"
    what = (
        f"What real nodes show in one process and in virtual time, from {_sizes(scale)}: written by `{scale.by}` from "
        "the results in this page's folder, without a figure that was not measured or computed from measured ones. "
        "What the scenarios ask is in [simulation.md](simulation.md), what each of their figures means in "
        "`simulations/scenarios`."
    )
    how = (
        f"Made {when} on {'; '.join(machines) or 'no machine'}. Unless a table says otherwise: one run, seed 1, "
        f"degree 8, fidelity fast. {LEFT_OUT} {PREFILLED} What fast drops:"
    )
    return "\n\n".join(
        ("# Scale", _lines(what), _lines(how), _bullets(f"{each.name}: {each.drops}" for each in ACCELERATIONS))
    )


@dataclass(frozen=True, slots=True)
class _Goal:
    run: str
    asked: str
    shown: Callable[[Any], str]
    met: Callable[[Any], bool]


def _goals_of(spread_nodes: int, wall_s: float) -> _Goal:
    return _Goal(
        f"spread-{spread_nodes}",
        f"spread, {spread_nodes:,} nodes: all reached, p99 within 400 virtual ms, hops within log2 N + 1, "
        f"{wall_s / 60:g} minutes, 8 GB",
        lambda of: f"{_percent(of['delivered'])}, {of['virtual_ms']['p99']:g} ms, {of['hops']['max']} of "
        f"{of['hops']['allowed']}, {of['wall_s']:.0f} s, {of['peak_rss_mb'] / 1024:.1f} GB",
        lambda of: of["delivered"] == 1 and of["virtual_ms"]["p99"] <= 400 and of["wall_s"] <= wall_s
        and of["hops"]["max"] <= of["hops"]["allowed"] and of["peak_rss_mb"] <= 8192,
    )  # fmt: skip


GOALS = (
    _goals_of(1000, 180),
    _goals_of(5000, 600),
    _Goal("partition-300", "partition, 300 nodes: whole within 5 s of the healing",
          lambda of: f"{_percent(of['whole'])} of the nodes, the last after {_ms(of['whole_ms'], 'max')}",
          lambda of: of["whole"] == 1 and of["whole_ms"]["max"] <= 5000),
    _Goal("crash-300", "crash, 300 nodes: no route to a dead node chosen twice",
          lambda of: f"{of['calls']['to_dead_twice']} times in {of['calls']['made']} calls; given up: killed p99 "
          f"{_ms(of['killed']['offline_ms'], 'p99')}, silent p99 {_ms(of['silent']['offline_ms'], 'p99')}",
          lambda of: of["calls"]["to_dead_twice"] == 0),
    _Goal("flash-crowd-1111", "flash-crowd, 1,000 joins in 60 s through 3 bootstrap nodes: every node routable within "
          "15 s",
          lambda of: f"{_percent(of['routable'])} of the pairs, the last after {_ms(of['routable_ms'], 'max')}",
          lambda of: of["routable"] == 1 and of["routable_ms"]["max"] <= 15_000),
    _Goal("poison-100", "poison, 100 nodes, 20 % malicious: honest delivery at least 99 %, liars cut off by 95 % of "
          "those whom they could harm, no second call to who lies about load",
          lambda of: f"{_percent(of['delivered'])}; cut off: " + ", ".join(
              f"{kind} {_percent(cut['in_the_end'])}" for kind, cut in of["cut_off"].items() if cut["pairs"])
          + f"; {of['to_load_liars_again']} second calls",
          lambda of: of["delivered"] >= 0.99 and of["to_load_liars_again"] == 0
          and all(cut["in_the_end"] >= 0.95 for cut in of["cut_off"].values() if cut["pairs"])),
)  # fmt: skip


def _goals(scale: Scale) -> str:
    rows = []
    for goal in GOALS:
        if goal.run in scale.results:
            figures = scale.results[goal.run].get("figures")
            try:
                shown = (goal.shown(figures), "yes" if goal.met(figures) else "**no**") if figures else ("not run", "-")
            except (KeyError, TypeError):  # an older result, or nothing of the kind came
                shown = ("no such figure", "-")
            rows.append((goal.asked, *shown))
    spread = _factors(scale)
    if spread:
        worst = max(spread.values())
        told = ", ".join(f"{REST[name]} {factor:.2f}" for name, factor in spread.items())
        asked = f"a node at rest, {_sizes(scale)}: flat within {FLAT_WITHIN}"
        rows.append((asked, f"largest by smallest: {told}", "yes" if worst <= FLAT_WITHIN else "**no**"))
    return "" if not rows else "## Asked and shown\n\n" + _table(("asked", "shown", "met"), rows)


def _spread(scale: Scale, folder: Path) -> str:
    spreads = scale.spreads
    if not spreads:
        return ""
    rows = [
        (f"{nodes:,}", _times(of["virtual_ms"]), _ms(of.get("usable_ms"), "p99"), of["hops"]["mean"],
         f"{of['hops']['max']} ({of['hops']['allowed']})", of["copies"], _percent(of["delivered"]),
         f"{of['cpu_s']:.0f}, {of['wall_s']:.0f} s", f"{of['peak_rss_mb'] / 1024:.2f} GB")
        for nodes, of in _figures(spreads)
    ]  # fmt: skip
    arrivals = {f"{nodes:,} nodes": each["distributions"]["times_ms"]["virtual_ms"] for nodes, each in spreads.items()}
    hops = {nodes: of["hops"] for nodes, of in _figures(spreads)}
    means, most = ([(float(n), float(of[part])) for n, of in hops.items()] for part in ("mean", "max"))
    allowed = [(float(nodes), float(of["allowed"])) for nodes, of in hops.items()]
    drawn = [
        *plots.arrivals(arrivals),
        plots.against("hops", "Hops", "nodes", "hops", {"mean": means, "most": most, "log2 N + 1": allowed}),
    ]
    head = ("nodes", "p50 / p99 / max", "card usable p99", "hops", "most (log2 N + 1)", "copies", "reached",
            "CPU, wall", "memory")  # fmt: skip
    return f"""## How news spreads

Virtual time from a new card or a revocation to the nodes; copies of it that come to a node; the whole run's cost.

{_table(head, rows)}

{_drawn(drawn, folder, "spread")}"""


def _rest(scale: Scale, folder: Path) -> str:
    rests = scale.rests
    if not rests:
        return ""
    rows = [
        (f"{nodes:,}", f"{of['at_rest']['virtual_s']:g} s", *(of[name] for name in REST))
        for nodes, of in _figures(rests)
    ]
    factors = _factors(scale)
    if factors:
        rows.append(("largest / smallest", "", *(f"{factor:.2f}" for factor in factors.values())))
    drawn = [
        plots.against(label.split(",")[0].lower(), f"A node at rest: {label}", "nodes", f"{label} per node and second",
                      {"run": [(float(nodes), float(of[name])) for nodes, of in _figures(rests)]})
        for name, label in REST.items()
    ]  # fmt: skip
    return f"""## A mesh at rest

Of a node in a virtual second: frames sent, their bytes, and milliseconds of one core for node and network together.

{_table(("nodes", "over", *REST.values()), rows)}

{_drawn(drawn, folder, "rest")}"""


LIMITS: Mapping[str, tuple[str, Callable[[Any], float]]] = {
    "memory": ("memory of the process, MB per node", lambda of: of["peak_rss_mb"] / of["nodes"]),
    "build": ("building it, CPU ms per node", lambda of: 1000 * sum(of["build_cpu_s"].values()) / of["nodes"]),
    "tables": ("of that, tables, CPU ms per node", lambda of: 1000 * of["build_cpu_s"]["tables"] / of["nodes"]),
    "rest": ("at rest, CPU ms per node and second", lambda of: of["cpu_ms_per_node_s"]),
    "news": ("while news spreads, CPU ms per node and second", lambda of: of["during"]["cpu_ms_per_node_s"]),
    "messages": ("at rest, messages per node and second", lambda of: of["messages_per_node_s"]),
    "bytes": ("at rest, bytes per node and second", lambda of: of["bytes_per_node_s"]),
    "newsbytes": ("while news spreads, bytes per node and second", lambda of: of["during"]["bytes_per_node_s"]),
    "p99": ("news everywhere, p99, ms", lambda of: of["virtual_ms"]["p99"]),
}


def _limits(scale: Scale, folder: Path) -> str:
    figures = dict(_figures(scale.rests))
    if len(figures) < 2:
        return ""
    sizes = list(figures)
    low, high = sizes[-2], sizes[-1]
    grown: list[tuple[float, str, list[float]]] = []
    for label, value in LIMITS.values():
        values = [value(of) for of in figures.values()]
        exponent = log(values[-1] / values[-2]) / log(high / low) if min(values[-2:]) > 0 else 0.0
        grown.append((exponent, label, values))
    grown.sort(reverse=True)
    rows = [(label, *(_number(value) for value in values), f"{exponent:+.2f}") for exponent, label, values in grown]
    steep, flat = grown[0], [label for exponent, label, _ in grown if abs(exponent) < 0.1]
    end = f"Of these grows fastest: {steep[1]}, with N to the power {steep[0]:.2f} between {low:,} and {high:,} nodes"
    end += f" ({_number(steep[2][-2])} to {_number(steep[2][-1])})."
    if flat:
        end += f" Flat there (power within 0.1): {'; '.join(flat)}."
    drawn = [
        plots.against("growth", "Relative to the smallest mesh", "nodes", "times",
                      {label: [(float(n), value / values[0]) for n, value in zip(sizes, values, strict=True)]
                       for _, label, values in grown[:4] if values[0]}),
    ]  # fmt: skip
    return f"""## What limits a mesh, and where

Each figure by size; the last column is the power of N it grew with between the two largest meshes (0: flat, 1: per node
as much as there are nodes). Memory and CPU are those of the simulation, in which nodes share what they would each have.

{_table(("", *(f"{size:,}" for size in sizes), "N to the"), rows)}

{_lines(end)}

{_drawn(drawn, folder, "limits")}"""


def _model(scale: Scale, folder: Path) -> str:
    if "error" in scale.model:
        return f"## Beyond what runs\n\nNo model: {scale.model['error']}."
    rows, drawn = [], []
    for name, of in scale.model["figures"].items():
        label = name.replace("_", " ")
        for nodes, seen, computed, error in of["runs"]:
            rows.append((label, f"{nodes:,}", _number(seen), _number(computed), f"{100 * error:+.1f} %"))
        curve = [(float(nodes), float(value)) for nodes, value in of["model"]]
        seen_dots = [(float(run[0]), float(run[1])) for run in of["runs"]]
        if seen_dots:
            drawn.append(plots.against(label.replace(" ", "-"), label, "nodes", of["unit"], {"model": curve},
                                       dots={"runs": seen_dots}))
    beyond = [
        (_named(name, of["unit"]), *(_number(value) for _, value in of["model"]))
        for name, of in scale.model["figures"].items()
    ]
    sizes = [f"{nodes:,}" for nodes, _ in next(iter(scale.model["figures"].values()))["model"]]
    return f"""## Beyond what runs

A numerical model (`python -m simulations.model`), calibrated by the runs above. What it says of them:

{_table(("figure", "nodes", "run", "model", "error"), rows)}

And of meshes of all sizes; of the larger ones it is all there is:

{_table(("figure", *sizes), beyond)}

{_limited(scale.model.get("limits", ()))}

{_bullets(scale.model.get("notes", ()))}

{_drawn(drawn, folder, "model")}"""


def _named(name: str, unit: str) -> str:
    words = name.replace("_", " ")
    return words if words.endswith((f" {unit}", f"_{unit}", "hops")) else f"{words} ({unit})"


def _limited(limits: Sequence[Mapping[str, Any]]) -> str:
    """From which size on what is in the way, by the model."""
    if not limits:
        return ""
    rows = [(f"{limit['nodes']:,}", limit["what"]) for limit in sorted(limits, key=_nodes)]
    return "From which size on what limits a mesh, by the model:\n\n" + _table(("nodes", "limit"), rows)


def _others(scale: Scale, folder: Path) -> Iterator[str]:
    for name, result in scale.others.items():
        figures, seen = result["figures"], result["distributions"]
        times = {label: points for label, points in seen["times_ms"].items() if label != "virtual_ms"}
        drawn = [
            *plots.arrivals(times or seen["times_ms"]),
            *plots.tables(figures.get("over_time") or ()),
            *plots.hours(figures.get("hours") or ()),
            *list(plots.loads(seen["series"]))[:1],
        ]
        rows = [(label, text) for label, text in _flat(figures) if text]
        yield f"""## {figures["scenario"]}, {figures["nodes"]:,} nodes

{_table(("figure", ""), rows)}

{_drawn(drawn, folder, name)}"""


def _runs(scale: Scale) -> str:
    rows = []
    for name, of in scale.results.items():
        done, figures = "figures" in of, of.get("figures", {})
        rows.append((
            f"`{of['command']}`" if "command" in of else name,
            f"{figures['cpu_s']:.0f}, {figures['wall_s']:.0f} s" if done else "-",
            f"{figures['peak_rss_mb'] / 1024:.2f} GB" if done else "-",
            f"`{figures['trace_hash'][:12]}`" if done else of["error"],
            of.get("commit") or "-",
            "yes" if of.get("code") == scale.code else "no",
        ))  # fmt: skip
    return f"""## The runs

Missing and failed ones, too. The last column: whether they were made by the code as it was when this page was written;
a commit with + had changes that were not committed.

{_table(("command", "CPU, wall", "memory", "trace", "commit", "this code"), rows)}"""


# Words ----------------------------------------------------------------------------------------------------------------


def _figures(results: Mapping[int, Result]) -> list[tuple[int, Any]]:
    return [(nodes, each["figures"]) for nodes, each in results.items()]


def _factors(scale: Scale) -> dict[str, float]:
    """Largest by smallest, of each figure of a node at rest."""
    figures = [of for _, of in _figures(scale.rests)]
    if len(figures) < 2:
        return {}
    return {name: max(of[name] for of in figures) / min(of[name] for of in figures) for name in REST}


def _flat(figures: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    for name, value in figures.items():
        if not before and name in ELSEWHERE:
            continue
        label = f"{before}{name}".replace("_", " ")
        if isinstance(value, Mapping) and "p99" in value:
            yield label, _times(value)
        elif isinstance(value, Mapping):
            yield from _flat(value, f"{label}, ")
        elif isinstance(value, (int, float)):
            yield label, _number(value)
        elif isinstance(value, str):
            yield label, value


def _drawn(drawn: Iterable[Plot], folder: Path, prefix: str) -> str:
    lines = []
    for plot in drawn:
        file = f"{prefix}-{plot.name}.svg"
        (folder / file).write_text(plot.svg())
        lines.append(f"![{plot.title}]({folder.name}/{file})")
    return "\n".join(lines)


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *([_number(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _bullets(items: Iterable[str]) -> str:
    return "\n".join(_lines(item, "- ") for item in items)


def _lines(text: str, begin: str = "") -> str:
    """*text* in lines of a page, indented under *begin*."""
    return fill(text, 120, initial_indent=begin, subsequent_indent=" " * len(begin), break_on_hyphens=False)


def _sizes(scale: Scale) -> str:
    sizes = list(scale.spreads)
    return f"{sizes[0]:,} to {sizes[-1]:,} nodes" if sizes else "no run yet"


def _machine(machine: Mapping[str, Any]) -> str:
    cores = f"{machine['cores']} cores" if machine["cores"] != 1 else "1 core"
    return f"{cores}, {machine['memory_gb']} GB, Python {machine['python']}, {machine['system']}"


def _times(of: Mapping[str, float] | None) -> str:
    return f"{of['p50']:g} / {of['p99']:g} / {of['max']:g} ms" if of else "-"


def _ms(of: Mapping[str, float] | None, part: str) -> str:
    return f"{of[part]:g} ms" if of else "-"


def _percent(share: float) -> str:
    return f"{100 * share:.4g} %"


def _number(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= MANY or isinstance(value, int) else f"{value:.4g}"


__all__ = ["GOALS", "Points", "Scale", "write_page"]
