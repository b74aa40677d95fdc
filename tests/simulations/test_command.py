"""What the commands of all scenarios share: figures, the fidelity by size, the progress line."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from simulations.cli import simulate as simulate_command
from simulations.command import fitting
from simulations.scale_page import GOALS
from tests.simulations.commands import simulate

KEYS = {
    "scenario", "nodes", "seed", "fidelity", "delivered", "virtual_ms", "hops", "copies", "table_error",
    "messages_per_node_s", "bytes_per_node_s", "cpu_s", "wall_s", "rss_mb", "peak_rss_mb", "trace_hash", "command",
}  # fmt: skip
SMALL = {
    "spread": ("--rest", "1", "--news", "2"),
    "crash": ("--rest", "1"),
    "partition": ("--rest", "1", "--parted", "5"),
    "flash-crowd": ("--within", "3"),
    "day": ("--minutes", "1"),
    "churn": ("--lasts", "5"),
    "poison": ("--rest", "1", "--lasts", "4", "--share", "0.3"),
    "routing": ("--rest", "1", "--lasts", "2"),
}


@pytest.mark.parametrize("scenario", sorted(SMALL))
def test_every_scenario_has_the_common_figures(scenario: str) -> None:
    found = simulate(scenario, "--nodes", "10", "--fidelity", "fast", *SMALL[scenario])
    assert set(found) >= KEYS
    assert (found["scenario"], found["nodes"], found["seed"], found["fidelity"]) == (scenario, 10, 1, "fast")
    assert found["command"].startswith(f"atmosphere-p2p simulate {scenario} --nodes 10 --seed 1 --fidelity fast")
    assert set(SMALL[scenario]) <= set(found["command"].split())
    assert 0 < found["delivered"] <= 1
    assert 0 < found["virtual_ms"]["p50"] <= found["virtual_ms"]["p99"] <= found["virtual_ms"]["max"]
    assert found["messages_per_node_s"] > 0
    assert found["bytes_per_node_s"] > 0
    assert 0 <= found["table_error"] < 0.5
    assert found["peak_rss_mb"] > 0
    for goal in GOALS:  # they read what the scenarios have
        if goal.run.rsplit("-", 1)[0] == scenario:
            assert goal.shown(found)
            assert goal.met(found) in (True, False)


def test_the_scenarios_here_are_all_there_are() -> None:
    assert set(SMALL) == set(simulate_command.commands)


@pytest.mark.parametrize(
    ("nodes", "asked", "chosen"),
    [(300, None, "vanilla"), (301, None, "fast"), (5000, None, "fast"), (20, "fast", "fast")],
)
def test_the_fidelity_follows_from_the_size(nodes: int, asked: str | None, chosen: str) -> None:
    assert fitting(nodes, asked) == chosen


@pytest.mark.parametrize(
    ("nodes", "asked", "fix"),
    [(301, "vanilla", "--fidelity fast"), (5001, "fast", "simulations.model"), (5001, None, "simulations.model")],
)
def test_too_many_nodes_are_refused_with_what_to_do(nodes: int, asked: str | None, fix: str) -> None:
    with pytest.raises(click.UsageError, match=fix):
        fitting(nodes, asked)


def test_without_matplotlib_a_report_is_refused_before_the_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    done = CliRunner().invoke(simulate_command, ["spread", "--report", str(tmp_path)])
    assert done.exit_code == 1
    assert "pip install 'atmosphere-p2p[simulation]'" in done.output


def test_a_terminal_sees_how_far_it_is_and_the_run_is_the_same() -> None:
    words = ["spread", "--nodes", "10", "--rest", "1", "--news", "12"]  # long enough to be drawn with some of it done
    ours, theirs = pty.openpty()
    run = subprocess.Popen(
        [sys.executable, "-m", "simulations", *words, "--json"], stdout=subprocess.PIPE, stderr=theirs, text=True
    )
    os.close(theirs)
    shown = _until_closed(ours)
    said, _ = run.communicate(timeout=120)
    seconds = [float(each) for each in re.findall(r"virtual s, (\d+) s", shown)]
    assert 0 <= min(seconds) <= max(seconds) < 1000  # real ones
    assert "#" in shown
    assert shown.endswith("\r\033[K")
    assert json.loads(said)["trace_hash"] == simulate(*words)["trace_hash"]


def _until_closed(terminal: int) -> str:
    pieces = []
    with os.fdopen(terminal, "rb", buffering=0) as stream:
        try:
            while piece := stream.read(4096):
                pieces.append(piece)
        except OSError:  # EIO: nobody has the other end any more
            pass
    return b"".join(pieces).decode()
