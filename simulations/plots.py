"""Plots as SVG, drawn by matplotlib: the extra ``simulation``. The same figures give the same bytes."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

Points = Sequence[tuple[float, float]]

WIDTH, HEIGHT = 6.4, 3.4
"""Inches; a page scales them."""
LOGARITHMIC_FROM = 50
"""Times that differ by more than this factor are drawn on a logarithmic axis."""
_STYLE: Any = {
    "svg.fonttype": "none",  # text stays text: small files, readable and searchable
    "svg.hashsalt": "atmosphere",  # or ids are drawn at random
    "font.size": 9,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "lines.linewidth": 1.4,
}


@dataclass(frozen=True, slots=True)
class Plot:
    """A figure that may be drawn."""

    name: str
    """Letters and dashes; of a file, and before all ids in the SVG."""
    title: str
    draw: Callable[[Axes], None]

    def svg(self) -> str:
        """An ``<svg>`` element without anything outside it."""
        with matplotlib.rc_context(_STYLE):
            figure = Figure(figsize=(WIDTH, HEIGHT), layout="constrained")
            axes = figure.add_subplot()
            axes.set_title(self.title)
            self.draw(axes)
            written = io.StringIO()
            figure.savefig(written, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
        text = written.getvalue()
        text = text[text.index("<svg") :]
        return re.sub(r'(id="|href="#|url\(#)', rf"\g<1>{self.name}-", text)


def arrivals(times_ms: Mapping[str, Points], shown: str = "arrived") -> Iterator[Plot]:
    """How long things took, as cumulative shares; by name."""
    curves = [(name, [tuple(point) for point in points]) for name, points in times_ms.items()]
    if not curves:
        return

    def draw(axes: Axes) -> None:
        for name, points in curves:
            axes.step(*_columns(points), where="post", label=_words(name))
        times = [time for _, points in curves for time, _ in points if time > 0]
        if times and max(times) > LOGARITHMIC_FROM * min(times):
            axes.set_xscale("log")
        axes.set_xlabel("virtual ms")
        axes.set_ylabel(f"share that has {shown}")
        axes.set_ylim(0, 1.02)
        axes.legend()

    yield Plot("arrivals", "Times", draw)


def hops(counts: Mapping[str, Points], allowed: float | None) -> Iterator[Plot]:
    """Over how many hops first copies came."""
    for points in list(counts.values())[:1]:

        def draw(axes: Axes, points: Points = points) -> None:
            axes.bar(*_columns(points))
            if allowed is not None:
                axes.axvline(allowed, color="0.4", linestyle="--", label="log2 of the nodes, and one")
                axes.legend()
            axes.set_xlabel("hops of the first copy")
            axes.set_ylabel("share of arrivals")

        yield Plot("hops", "Hops", draw)


def loads(series: Mapping[str, Sequence[tuple[float, float, float]]]) -> Iterator[Plot]:
    """Messages and bytes per node, second by second."""
    for column, name, unit in ((1, "messages", "messages"), (2, "bytes", "bytes")):
        if series:

            def draw(axes: Axes, column: int = column, unit: str = unit) -> None:
                for stretch, points in series.items():
                    axes.plot([point[0] for point in points], [point[column] for point in points],
                              marker=".", label=_words(stretch))
                axes.set_xlabel("virtual s")
                axes.set_ylabel(f"{unit} per node and second")
                axes.set_ylim(bottom=0)
                axes.legend()

            yield Plot(name, f"What a node sends: {unit}", draw)


def tables(over_time: Sequence[tuple[float, float, float]]) -> Iterator[Plot]:
    """Missing nodes and ghosts in the tables while nodes come and go."""
    if over_time:

        def draw(axes: Axes) -> None:
            for column, label in ((1, "running, not usable"), (2, "usable, not running")):
                axes.plot([point[0] for point in over_time], [point[column] for point in over_time], label=label)
            axes.set_xlabel("virtual s")
            axes.set_ylabel("share of pairs")
            axes.set_ylim(bottom=0)
            axes.legend()

        yield Plot("tables", "Tables beside the truth", draw)


def hours(of_day: Sequence[Mapping[str, Any]]) -> Iterator[Plot]:
    """The hours of a day: how many machines are awake, and how far their tables are from the truth."""
    if of_day:

        def draw_awake(axes: Axes) -> None:
            axes.plot([each["hour"] for each in of_day], [each["awake"] for each in of_day], marker=".")
            axes.set_xlabel("hour")
            axes.set_ylabel("machines awake")
            axes.set_ylim(bottom=0)

        def draw_tables(axes: Axes) -> None:
            for name, label in (("missing", "awake, not usable"), ("ghosts", "usable, not awake")):
                axes.plot([each["hour"] for each in of_day], [each[name] for each in of_day], marker=".", label=label)
            axes.set_xlabel("hour")
            axes.set_ylabel("share of pairs")
            axes.set_ylim(bottom=0)
            axes.legend()

        yield Plot("awake", "A day", draw_awake)
        yield Plot("hours", "Tables beside the truth, by hour", draw_tables)


def against(
    name: str, title: str, of: str, unit: str, curves: Mapping[str, Points], *, dots: Mapping[str, Points] | None = None
) -> Plot:
    """Lines over *of*, and *dots* beside them."""

    def draw(axes: Axes) -> None:
        for label, points in curves.items():
            axes.plot(*_columns(sorted(points)), marker="o", markersize=3, label=label)
        for label, points in (dots or {}).items():
            axes.plot(*_columns(sorted(points)), linestyle="none", marker="x", label=label)
        spots = [point[0] for points in (*curves.values(), *(dots or {}).values()) for point in points]
        if spots and min(spots) > 0 and max(spots) >= 10 * min(spots):
            axes.set_xscale("log")
        axes.set_xlabel(of)
        axes.set_ylabel(unit)
        axes.set_ylim(bottom=0)
        axes.legend()

    return Plot(name, title, draw)


def _words(name: str) -> str:
    return name.replace(".", ", ").replace("_", " ")


def _columns(points: Iterable[Sequence[float]]) -> tuple[list[float], list[float]]:
    found = list(points)
    return [point[0] for point in found], [point[1] for point in found]
