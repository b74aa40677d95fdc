"""The page about scale: made from results alone, and what is missing is said."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from simulations import scale
from simulations.scale import Run, code_hash
from simulations.scale_page import Scale, write_page

RUNS = (Run("spread", 6, ("--rest", "1", "--news", "2")), Run("spread", 10, ("--rest", "1", "--news", "2")),
        Run("churn", 8, ("--lasts", "5")), Run("nonsense", 8))  # fmt: skip


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of RUNS, one of which cannot be made."""
    out = tmp_path_factory.mktemp("docs") / "scale.md"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scale, "RUNS", RUNS)
        patch.setattr(scale, "code_hash", lambda: "0" * 12)  # whatever happens to the tree meanwhile
        patch.setattr(scale, "model", lambda folder, runs: {"error": "left out here"})
        done = CliRunner().invoke(scale.main, ["--out", str(out)])
        assert done.exit_code == 1, done.output
        assert "without nonsense-8" in done.output
        again = CliRunner().invoke(scale.main, ["--out", str(out)])
        assert "churn-8: there already" in again.output
        assert "running: nonsense-8" in again.output
        assert again.output.count("running:") == 1
    return out


def test_the_page_has_the_figures_and_the_plots(out: Path) -> None:
    page = out.read_text()
    kept = json.loads((out.parent / "scale" / "spread-10.json").read_text())["figures"]
    assert f"| 10 | 1 s | {kept['messages_per_node_s']:.4g} | {kept['bytes_per_node_s']:.4g} |" in page
    assert "| largest / smallest |" in page
    assert kept["trace_hash"][:12] in page
    linked = re.findall(r"!\[[^]]+\]\(([^)]+)\)", page)
    assert len(linked) >= 6
    for file in linked:
        assert (out.parent / file).read_text().startswith("<svg")


def test_a_run_that_failed_is_among_the_runs(out: Path) -> None:
    kept = json.loads((out.parent / "scale" / "nonsense-8.json").read_text())
    assert "No such command 'nonsense'" in kept["error"]
    line = next(line for line in out.read_text().splitlines() if "simulate nonsense" in line)
    assert "No such command" in line


def result(nodes: int, **figures: Any) -> dict[str, Any]:
    """Of a spread, as it is kept."""
    times = {"p50": 1.0, "p99": 2.0, "max": 2.0}
    return {
        "command": "c", "code": "x", "commit": "1", "date": "2026-01-01",
        "machine": {"cores": 2, "memory_gb": 8, "python": "3.11", "system": "Linux"},
        "figures": {
            "scenario": "spread", "nodes": nodes, "virtual_ms": times, "usable_ms": None, "copies": 4.0,
            "hops": {"mean": 1.0, "max": 2, "allowed": 4.0}, "delivered": 1.0, "messages_per_node_s": 10.0,
            "bytes_per_node_s": 100.0, "cpu_ms_per_node_s": 1.0, "cpu_s": 10.0, "wall_s": 10.0, "peak_rss_mb": 100.0,
            "build_cpu_s": {"nodes": 1.0, "tables": 1.0, "links": 1.0}, "trace_hash": "0" * 32,
            "at_rest": {"virtual_s": 10.0}, "during": {"cpu_ms_per_node_s": 1.0, "bytes_per_node_s": 1.0}, **figures,
        },
        "distributions": {"times_ms": {"virtual_ms": [[0.5, 0.0], [2.0, 1.0]]}, "hops": {}, "series": {}},
    }  # fmt: skip


def test_conclusions_follow_from_the_figures(tmp_path: Path) -> None:
    results = {"spread-1000": result(1000), "spread-5000": result(5000, bytes_per_node_s=500.0, wall_s=601.0)}
    model = {"figures": {"p50_ms": {"unit": "ms", "model": [[1000, 1.1], [1_000_000, 3.3]],
                                    "runs": [[1000, 1.0, 1.1, 0.1]]}}, "notes": ["A note."]}  # fmt: skip
    write_page_to(tmp_path / "scale.md", Scale(results, "x", model, "make scale"))
    page = (tmp_path / "scale.md").read_text()
    goals = [line.rsplit("|", 2)[1].strip() for line in page.splitlines() if line.startswith(("| spread,", "| a node"))]
    assert goals == ["yes", "**no**", "**no**"]
    assert "messages 1.00, bytes 5.00" in page
    assert "Of these grows fastest: at rest, bytes per node and second, with N to the power 1.00" in page
    assert "| p50 ms | 1,000 | 1 | 1.1 | +10.0 % |" in page
    assert "- A note." in page


def test_the_model_gets_of_each_size_the_run_that_rested_longest(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    runs = (Run("spread", 10), Run("spread", 10, ("--rest", "60"), "-rest"), Run("spread", 20), Run("spread", 30))
    for run in runs[:3]:
        (tmp_path / f"{run.name}.json").write_text(json.dumps(result(run.nodes)))
    (tmp_path / "spread-30.json").write_text('{"error": "it failed"}')
    asked: list[str] = []

    def model(words: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        asked.extend(words)
        return subprocess.CompletedProcess(words, 0, stdout='{"figures": {}}')

    monkeypatch.setattr(subprocess, "run", model)
    assert scale.model(tmp_path, runs) == {"figures": {}}
    assert asked[-5:] == ["--runs", str(tmp_path / "spread-10-rest.json"), "--runs", str(tmp_path / "spread-20.json"),
                          "--json"]  # fmt: skip


def test_without_any_run_the_page_says_so(tmp_path: Path) -> None:
    write_page_to(tmp_path / "scale.md", Scale({"spread-1000": {"error": "not run"}}, "x", {"error": "no runs"}, "x"))
    page = (tmp_path / "scale.md").read_text()
    assert "| spread-1000 | - | - | not run | - | no |" in page
    assert "No model: no runs." in page


def write_page_to(out: Path, told: Scale) -> None:
    out.with_suffix("").mkdir()
    write_page(out, told)


def test_what_a_run_is_made_by_is_one_hash() -> None:
    assert code_hash() == code_hash()
    assert re.fullmatch("[0-9a-f]{12}", code_hash())
