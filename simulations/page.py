"""A report: result.json and one page that shows it, with nothing from outside."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from simulations import plots
from simulations.fast import ACCELERATIONS
from simulations.plots import Plot

PREFILLED = (
    "The nodes start with whole tables: one node took everything in through the production intake, the others copied "
    "its table."
)
GROWN = (
    "The first nodes start with whole tables: one of them took everything in through the production intake, the others "
    "copied its table. Who joins later starts with nothing."
)
GROWING = ("flash-crowd", "churn", "day")
LEFT_OUT = (
    "In memory are the links between hosts, disks, the embedder and the backends; Noise, TLS and sockets are left out. "
    "Links are 20 to 100 ms long, one way."
)
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
table { border-collapse: collapse; } td, th { padding: .15rem .8rem .15rem 0; text-align: left; vertical-align: top; }
td { font-variant-numeric: tabular-nums; } code { background: #f3f3f3; padding: .1rem .3rem; overflow-wrap: anywhere; }
.plots { display: flex; flex-wrap: wrap; gap: 1rem; } .plots svg { width: 29rem; height: auto; max-width: 100%; }
.failed { color: #a00; white-space: pre-wrap; }
"""


def write_run(folder: Path, figures: Mapping[str, Any], distributions: Mapping[str, Any]) -> None:
    """Write the report of one run into *folder*, which is made if need be."""
    folder.mkdir(parents=True, exist_ok=True)
    _write_json(folder, {"figures": figures, "distributions": distributions})
    about = [
        f"Seed {figures['seed']}; the same run again: <code>{escape(str(figures['command']))}</code>",
        GROWN if figures["scenario"] in GROWING else PREFILLED,
        LEFT_OUT,
        *_dropped(str(figures["fidelity"])),
    ]
    hops = figures.get("hops") or {}
    drawn = [
        *plots.arrivals(distributions["times_ms"]),
        *plots.hops(distributions["hops"], hops.get("allowed")),
        *plots.loads(distributions["series"]),
        *plots.tables(figures.get("over_time") or ()),
        *plots.hours(figures.get("hours") or ()),
    ]
    body = [_list(about), _plots(drawn), "<h2>Figures</h2>", _figures(figures)]
    title = f"{figures['scenario']}, {figures['nodes']} nodes, seed {figures['seed']}, {figures['fidelity']}"
    _write_page(folder, title, body)


def write_sweep(folder: Path, command: str, keys: Sequence[str], rows: Sequence[Mapping[str, Any]],
                curves: Sequence[Plot]) -> None:
    """Write the report of a sweep over *keys* into *folder*; the pages of its runs are in folders of it."""
    _write_json(folder, rows)
    fidelities = sorted({str(row["fidelity"]) for row in rows if row.get("fidelity")})
    about = [f"The same runs again: <code>{escape(command)}</code>", LEFT_OUT]
    for fidelity in fidelities:
        about += _dropped(fidelity)
    failed = [row for row in rows if "error" in row]
    body = [
        _list(about), _plots(curves), "<h2>Runs</h2>", _rows(rows),
        *(f'<h2>Failed: {escape(str(row["sweep"]))}</h2><p class="failed">{escape(str(row["error"]))}</p>'
          for row in failed),
    ]  # fmt: skip
    _write_page(folder, f"{rows[0]['scenario']} by {', '.join(keys)}", body)


def _dropped(fidelity: str) -> list[str]:
    if fidelity == "vanilla":
        return ["Fidelity vanilla: the production host, with virtual clocks; nothing is accelerated."]
    return [f"Fidelity fast, {each.name}: {escape(each.drops)}" for each in ACCELERATIONS]


def _list(items: Iterable[str]) -> str:
    return "<ul>" + "".join(f"<li>{item}</li>" for item in items) + "</ul>"


def _plots(drawn: Iterable[Plot]) -> str:
    return '<div class="plots">' + "".join(plot.svg() for plot in drawn) + "</div>"


def _figures(found: Mapping[str, Any]) -> str:
    rows = "".join(f"<tr><th>{escape(str(name))}</th><td>{_cell(value)}</td></tr>" for name, value in found.items())
    return f"<table>{rows}</table>"


def _cell(value: Any) -> str:
    if isinstance(value, Mapping):
        return _figures(value)
    if isinstance(value, (list, tuple)):
        return "<br>".join(escape(str(each)) for each in value) or "none"
    return "&ndash;" if value is None else escape(f"{value:g}" if isinstance(value, float) else str(value))


def _rows(rows: Sequence[Mapping[str, Any]]) -> str:
    from simulations.sweep import short_row

    shown = [short_row(row) for row in rows]
    names = list(dict.fromkeys(name for row in shown for name in row))
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    lines = [
        f"<tr>{''.join(f'<td>{_cell(row.get(name))}</td>' for name in names)}"
        f'<td><a href="{escape(str(full["folder"]))}/index.html">page</a></td></tr>'
        for full, row in zip(rows, shown, strict=True)
    ]
    return f"<table><tr>{head}</tr>{''.join(lines)}</table>"


def _write_json(folder: Path, value: Any) -> None:
    (folder / "result.json").write_text(json.dumps(value, indent=1) + "\n")


def _write_page(folder: Path, title: str, body: Iterable[str]) -> None:
    (folder / "index.html").write_text(
        f'<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{_STYLE}</style>\n<h1>{escape(title)}</h1>\n" + "\n".join(body) + "\n</html>\n"
    )
