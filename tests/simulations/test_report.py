"""Reports: what is kept of a run, and the page about it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from simulations.metrics import Hops, Spread
from simulations.plots import against
from simulations.report import curve, distributions, table
from simulations.scenarios.running import Measured, Point
from simulations.scenarios.spread import SpreadResult
from tests.simulations.commands import simulate

OUTSIDE = re.compile(r'(?:src|href)="(?!#)[^"]*"|url\((?!#)[^)]*\)|@import|<script|<link', re.IGNORECASE)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("report") / "new"
    found = simulate("churn", "--nodes", "10", "--lasts", "10", "--fidelity", "fast", "--report", str(folder))
    return folder, found


def test_the_page_shows_plots_and_needs_nothing_from_outside(report: tuple[Path, dict[str, Any]]) -> None:
    page = (report[0] / "index.html").read_text()
    assert page.count("<svg") == page.count("</svg>") >= 4
    for title in ("Times", "Tables beside the truth", "What a node sends: messages", "What a node sends: bytes"):
        assert f">{title}</text>" in page, title
    assert OUTSIDE.findall(page) == []
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))


def test_the_page_says_what_it_is_of(report: tuple[Path, dict[str, Any]]) -> None:
    page = (report[0] / "index.html").read_text()
    assert "Seed 1;" in page
    assert "atmosphere-p2p simulate churn --nodes 10 --seed 1 --fidelity fast --lasts 10" in page
    for dropped in ("Fidelity fast, signatures", "Fidelity fast, order", "start with whole tables"):
        assert dropped in page


def test_what_was_drawn_is_beside_it(report: tuple[Path, dict[str, Any]]) -> None:
    kept = json.loads((report[0] / "result.json").read_text())
    assert kept["figures"] == report[1]
    points = kept["distributions"]["times_ms"]["routable_ms"]
    assert points[-1] == [pytest.approx(report[1]["routable_ms"]["max"], abs=0.1), 1.0]
    assert 8 <= len(kept["distributions"]["series"]["during"]) <= 11


def test_distributions_are_taken_from_wherever_they_are_in_a_result() -> None:
    stretch = Measured(2.0, 1.0, 10.0, 0.5, 0.0, (Point(1.0, 1.0, 9.0), Point(2.0, 1.0, 11.0)))
    result = SpreadResult(
        8.0, 1, 1.0, 1.0, Spread.of([0.1, 0.2, 0.3]), Hops.of([1, 1, 2, 3], 8), 4.0, None, 0.0, 1.0, 10.0, 0.5,
        stretch, stretch, {},
    )  # fmt: skip
    found = distributions(result)
    assert set(found["times_ms"]) == {"virtual_ms"}
    assert found["hops"] == {"hops": [(1, 0.5), (2, 0.25), (3, 0.25)]}
    assert found["series"]["during"] == found["series"]["at_rest"] == [(1.0, 1.0, 9.0), (2.0, 1.0, 11.0)]


def test_a_curve_is_short_and_ends_where_all_have_arrived() -> None:
    spread = Spread.of([number / 10_000 for number in range(10_000)])
    assert spread is not None
    points = curve(spread)
    assert len(points) == 101
    assert points[0] == (0.0, 0.0)
    assert points[50] == (499.9, 0.5)
    assert points[-1] == (999.9, 1.0)


def test_spreads_come_together() -> None:
    both = Spread.together(Spread.of([0.1]), None, Spread.of([0.3, 0.2]))
    assert both == Spread(200.0, 300.0, 300.0)
    assert Spread.together(None, None) is None


def test_columns_are_aligned_and_what_is_missing_is_a_dash() -> None:
    lines = table([{"nodes": 10, "p50": 1.5}, {"nodes": 1000, "error": "gone"}]).splitlines()
    assert [line.split() for line in lines] == [
        ["nodes", "p50", "error"], ["10", "1.5", "-"], ["1000", "-", "gone"],
    ]  # fmt: skip
    assert len({len(line) for line in lines}) == 1


def test_the_same_figures_are_the_same_drawing() -> None:
    drawings = {against("load", "Load", "nodes", "bytes", {"a": [(1, 2), (10, 3)]}).svg() for _ in range(2)}
    assert len(drawings) == 1
    (drawing,) = drawings
    assert "202" not in re.sub(r"[-\d.]+\d", "", drawing)  # no date
