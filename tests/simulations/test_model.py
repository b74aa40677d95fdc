"""The numerical model: exact where that can be checked, and shaped like what it stands for."""

from __future__ import annotations

import heapq
import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from atmosphere.mesh.announcer import beacon_period
from atmosphere.mesh.table import MAX_NODES
from simulations.model import DEFAULT_SPREAD, Run, calibrate, compute, main, read_runs
from simulations.model_load import beacon_period_s, beacons_per_s, by_family, limits, load, prices
from simulations.model_spread import GRAFTED, LINKS, Graph, Parameters, arrivals, mean_spread, mesh, spread

GIVEN = prices(23.0, 11_000.0, 100, 8.0, 4.76)


def graph(nodes: int, seed: int = 1, noise_ms: float = 0.0) -> Graph:
    return mesh(nodes, Parameters(noise_ms, 1.0), np.random.default_rng(seed))


def dijkstra(of: Graph, author: int) -> dict[int, tuple[float, int]]:
    """As in the books: node -> (milliseconds, hops)."""
    onwards: dict[int, list[tuple[int, float]]] = {node: [] for node in range(of.nodes)}
    for sources, times in zip(of.sources.tolist(), of.times.tolist(), strict=True):
        for node, (source, time) in enumerate(zip(sources, times, strict=True)):
            if np.isfinite(time):
                onwards[source].append((node, time))
    done: dict[int, tuple[float, int]] = {}
    queue = [(0.0, 0, author)]
    while queue:
        at, hops, node = heapq.heappop(queue)
        if node not in done:
            done[node] = at, hops
            for other, time in onwards[node]:
                heapq.heappush(queue, (at + time, hops + 1, other))
    return done


@pytest.mark.parametrize("nodes", [2, 5, 30, 200])
def test_arrivals_are_those_of_dijkstra(nodes: int) -> None:
    of = graph(nodes, noise_ms=50.0)
    for author in {0, nodes // 2, nodes - 1}:
        at, hops = arrivals(of, author)
        wanted = dijkstra(of, author)
        assert len(wanted) == nodes
        assert at.tolist() == pytest.approx([wanted[node][0] for node in range(nodes)], rel=1e-5)
        assert hops.tolist() == [wanted[node][1] for node in range(nodes)]


def test_a_link_is_eager_for_both_ends_and_as_long_both_ways() -> None:
    of = graph(500)
    links = {
        (int(source), node, round(float(time), 3))
        for sources, times in zip(of.sources, of.times, strict=True)
        for node, (source, time) in enumerate(zip(sources, times, strict=True))
        if np.isfinite(time)
    }
    assert {(node, source, time) for source, node, time in links} == links
    assert (np.isfinite(of.times).sum(axis=0) >= GRAFTED).all()
    assert GRAFTED < of.eager < LINKS


def test_near_links_are_eager_unless_chance_decides() -> None:
    near, chance = graph(2000), graph(2000, noise_ms=10_000.0)

    def mean(of: Graph) -> float:
        return float(of.times[np.isfinite(of.times)].mean())

    assert mean(near) < 50 < 58 < mean(chance) < 64


def test_everybody_hears_it_and_time_grows_with_the_logarithm() -> None:
    at, _ = arrivals(graph(3000), 7)
    assert np.isfinite(at).all()
    assert (at > 0).sum() == 2999
    small, middle, large = (mean_spread(nodes, DEFAULT_SPREAD, range(3)) for nodes in (100, 1000, 10_000))
    first, second = middle.p50_ms - small.p50_ms, large.p50_ms - middle.p50_ms
    assert 40 < first < 110
    assert second == pytest.approx(first, rel=0.35)
    assert small.p50_ms < small.p99_ms <= small.max_ms
    assert small.hops_mean < middle.hops_mean < large.hops_mean <= large.hops_max


def test_the_same_seed_gives_the_same() -> None:
    assert spread(300, DEFAULT_SPREAD, 4) == spread(300, DEFAULT_SPREAD, 4) != spread(300, DEFAULT_SPREAD, 5)


def test_periods_are_those_of_the_code_until_the_table_is_full() -> None:
    for nodes in (2, 60, 61, 500, MAX_NODES):
        assert beacon_period_s(nodes) == beacon_period(nodes)
    assert beacon_period_s(10 * MAX_NODES) == beacon_period(MAX_NODES)
    assert beacons_per_s(60) == beacons_per_s(MAX_NODES) == 4.0
    assert beacons_per_s(10 * MAX_NODES) == pytest.approx(40.0)


def test_prices_give_back_the_run_that_they_are_from() -> None:
    found = load(100, GIVEN)
    assert (found.messages_per_node_s, found.bytes_per_node_s) == (23.0, 11_000.0)
    assert load(3000, GIVEN).messages_per_node_s == 23.0
    assert load(30, GIVEN).messages_per_node_s < 23.0


def test_copies_are_conserved() -> None:
    """What all send of a message is what all receive; nobody sends it back to where it came from first."""
    nodes, of = 400, graph(400)
    eager = np.isfinite(of.times)
    sent = np.bincount(of.sources[eager], minlength=nodes)
    received = eager.sum(axis=0)
    assert (sent == received).all()  # link by link, as they are the same both ways
    assert (sent.sum() - (nodes - 1)) / nodes == pytest.approx(of.eager - 1, abs=2 / nodes)
    assert GIVEN.copies == pytest.approx(of.eager - 1, abs=0.15)


def test_what_grows_and_what_does_not() -> None:
    loads = [load(nodes, GIVEN) for nodes in (100, 1000, 10_000, 100_000, 1_000_000)]
    assert [each.known for each in loads] == [100, 1000, 10_000, 10_000, 10_000]
    assert loads[2].beacon_age_s == 100 * loads[0].beacon_age_s
    assert loads[3].bytes_per_node_s > 9 * loads[2].bytes_per_node_s
    assert loads[1].dht_find_messages < loads[4].dht_find_messages < 2 * loads[1].dht_find_messages
    assert all(each.sync_bytes_per_s <= 100 for each in loads)
    assert load(1000, GIVEN, 0.01).cpu_share > 2 * loads[1].cpu_share


def test_topics_by_family_are_as_a_smaller_mesh() -> None:
    assert by_family(100_000, families=50, joined=2) == 4000
    assert by_family(10, families=50, joined=1) == 1
    assert by_family(1000, families=3, joined=5) == 1000


def test_limits_come_in_order_and_are_where_they_say() -> None:
    found = limits(GIVEN)
    assert [each.nodes for each in found] == sorted(each.nodes for each in found)
    aged = next(each for each in found if "older than 60 s" in each.what)
    assert load(aged.nodes - 1, GIVEN).beacon_age_s <= 60 < load(aged.nodes, GIVEN).beacon_age_s
    assert any(each.nodes == MAX_NODES for each in found)


def result(nodes: int, p50: float) -> dict[str, object]:
    return {
        "scenario": "spread", "nodes": nodes, "degree": 8.3, "virtual_ms": {"p50": p50, "p99": 200.0, "max": 210.0},
        "hops": {"mean": 3.3, "max": 6}, "messages_per_node_s": 20.0, "bytes_per_node_s": 9000.0,
    }  # fmt: skip


def test_runs_are_read_and_compared(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps(result(100, 130.0)))
    (tmp_path / "b.json").write_text(json.dumps({"figures": result(100, 140.0), "distributions": {}}))
    (tmp_path / "c.json").write_text(json.dumps(result(300, 160.0)))
    (tmp_path / "d.json").write_text(json.dumps({"scenario": "crash"}))
    runs = read_runs([tmp_path])
    assert [(run.nodes, run.p50_ms) for run in runs] == [(100, 135.0), (300, 160.0)]
    model = calibrate(runs, range(2))
    assert mean_spread(100, model.spread, range(5)).p50_ms == pytest.approx(135, rel=0.1)
    found = compute(model, runs, [1000], [1])
    p50 = found["figures"]["p50_ms"]
    assert [size for size, _ in p50["model"]] == [100, 300, 1000]
    nodes, real, there, error = p50["runs"][1]
    assert (nodes, real) == (300, 160.0)
    assert error == pytest.approx(there / real - 1, abs=1e-4)
    assert found["largest_error"]["p50_ms"] == abs(error)
    ages = (dict(found["figures"][name]["model"]) for name in ("beacon_age_s", "by_family_beacon_age_s"))
    assert [age[1000] for age in ages] == [125.0, 7.5]


def test_the_command_prints_json_and_text() -> None:
    found = CliRunner().invoke(main, ["--sizes", "50,200", "--seeds", "1", "--json"])
    assert found.exit_code == 0, found.output
    assert set(json.loads(found.output)) >= {"figures", "limits", "notes", "parameters"}
    text = CliRunner().invoke(main, ["--sizes", "50", "--seeds", "1"])
    assert "p50_ms (ms)" in text.output
    assert CliRunner().invoke(main, ["--sizes", "many"]).exit_code == 2


def test_a_result_without_its_figures_is_refused(tmp_path: Path) -> None:
    with pytest.raises(KeyError):
        Run.of({"scenario": "spread", "nodes": 3})
    (tmp_path / "broken.json").write_text("{")
    assert CliRunner().invoke(main, ["--runs", str(tmp_path)]).exit_code == 1
