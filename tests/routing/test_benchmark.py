"""``python -m tests.benchmarks.routing``: what it makes of good, poor and bad files. A small set of our own."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from atmosphere.embedding import HashEmbedder, MiniLM
from tests.benchmarks import decision, routing
from tests.benchmarks.routing import FileError, auroc, coverage, place

CAPS: list[dict[str, Any]] = [
    {"id": "tide", "name": "tide_times", "description": "When the sea is high or low", "topics": ["sea"], "extra": 1},
    {"id": "bread", "name": "bread baker", "examples": ["knead the dough", "bake a loaf"]},
    {"id": 7, "name": "", "description": ""},
]
QUERIES: list[dict[str, Any]] = [
    {"q": "when is the sea high today", "cap": "tide", "split": "train"},
    {"q": "is the sea low now", "cap": "tide", "split": "train"},
    {"q": "how high is the sea", "cap": "tide", "split": "test"},
    {"q": "bread baker please", "cap": "bread", "split": "val"},
    {"q": "", "cap": 7, "split": "test"},
    {"q": "who won the election", "cap": None, "split": "test"},
]
KEYS = ["top1", "top3", "mrr", "auroc_oos", "coverage_at_95", "bm25_top1", "cosine_top1", "n", "n_oos"]


def write(path: Path, rows: list[Any]) -> str:
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows), "utf-8")
    return str(path)


def figures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *,
    caps: list[Any] = CAPS, queries: list[Any] = QUERIES, **options: Any,
) -> tuple[dict[str, Any], str]:
    """The last line and the notes."""
    monkeypatch.setattr(MiniLM, "load", HashEmbedder)
    settings = {"shots": 0, "split": "", "seed": 0, "json": True, "embedder": "", **options}
    routing.run(argparse.Namespace(
        caps=write(tmp_path / "caps.jsonl", caps), queries=write(tmp_path / "queries.jsonl", queries), **settings
    ))
    printed = capsys.readouterr()
    return json.loads(printed.out.splitlines()[-1]), printed.err


@pytest.fixture
def measured(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    return lambda **options: figures(tmp_path, capsys, monkeypatch, **options)


def test_the_last_line_holds_what_was_asked_for(measured: Any) -> None:
    found, notes = measured()
    assert list(found) == KEYS
    assert (found["n"], found["n_oos"]) == (3, 1)
    assert found["top1"] >= 66
    assert found["top3"] == 100.0
    assert 0 < found["mrr"] <= 1
    assert 0 <= found["auroc_oos"] <= 1
    assert notes == ""


def test_a_split_is_asked_alone_and_without_it_all_but_train(measured: Any) -> None:
    assert measured(split="val")[0]["n"] == 1
    assert measured(split="train")[0]["n"] == 2
    assert measured()[0]["n"] == 3


def test_what_serves_as_example_is_never_asked(measured: Any) -> None:
    found, _ = measured(shots=1, split="train")
    assert found["n"] == 1
    with pytest.raises(FileError, match="no query of the split 'train' to ask"):
        measured(shots=5, split="train")


def test_shots_take_what_there_is_and_say_so(measured: Any) -> None:
    found, notes = measured(shots=5)
    assert "3 capabilities have fewer than 5 examples" in notes
    assert found["n"] == 3


def test_examples_are_drawn_by_the_seed_and_filled_from_the_capability() -> None:
    queries = [routing.Query(f"tide {number}", "tide", "train") for number in range(50)]
    caps = [routing._capability("", "tide", CAPS[0]), routing._capability("", "bread", CAPS[1])]
    first, again = (routing.draw(caps, queries, 5, 1)[0] for _ in range(2))
    other, taken = routing.draw(caps, queries, 5, 2)
    assert first == again != other
    assert {queries[index].text for index in taken} == set(other[0].examples)
    assert first[1].examples == ("knead the dough", "bake a loaf")
    assert routing.draw(caps, queries, 0, 1)[0][1].examples == ()


def test_without_anything_out_of_scope_or_in_scope_the_figures_are_null(measured: Any) -> None:
    inside, _ = measured(queries=[row for row in QUERIES if row["cap"] is not None])
    assert inside["auroc_oos"] is None
    assert inside["n_oos"] == 0
    outside, _ = measured(queries=[QUERIES[-1]])
    assert (outside["top1"], outside["mrr"], outside["bm25_top1"], outside["n"]) == (None, None, None, 0)
    assert outside["coverage_at_95"] == 0.0


def test_odd_but_usable_files_are_used(measured: Any) -> None:
    """Repeated ids, unknown ids, capabilities that say the same, lone surrogates, no split, empty lines, long texts."""
    caps = [*CAPS, CAPS[0], {"id": "twin", "name": "bread baker"}, {"id": "\ud800", "description": "🦑" * 5000},
            {"id": "wide", "topics": "one topic", "description": None}, "", "  "]
    queries = [*QUERIES, {"q": "nobody", "cap": "gone"}, {"q": "\ud83d", "cap": None}, {"q": "x" * 9000, "cap": "wide"}]
    found, notes = measured(caps=caps, queries=queries, shots=2)
    assert "1 capabilities repeat an id" in notes
    assert "1 queries are for 1 capabilities that are not in the file of capabilities" in notes
    assert (found["n"], found["n_oos"]) == (4, 2)


BAD = {
    "not JSON": (["{"], QUERIES, r"caps.jsonl, line 1: not JSON"),
    "no object": ([CAPS[0], "[]"], QUERIES, r"caps.jsonl, line 2: a JSON list; every line must be one JSON object"),
    "no id": ([{"name": "x"}], QUERIES, "line 1: no id; give"),
    "a name that is no text": ([{"id": "a", "name": ["x"]}], QUERIES, "'name' is a JSON list; it must be a text or"),
    "no capability": ([], QUERIES, "holds no capability"),
    "no q": (CAPS, [{"cap": None}], r"queries.jsonl, line 1: no text as \"q\""),
    "no cap": (CAPS, [{"q": "x"}], "line 1: no \"cap\"; name the id"),
    "cap is a list": (CAPS, [{"q": "x", "cap": []}], "\"cap\" is a JSON list; it must be an id or null"),
    "nothing to ask": (CAPS, QUERIES[:2], "no query outside the split 'train' to ask; it has train: choose one with"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_told_by_line_with_what_to_do(measured: Any, name: str) -> None:
    caps, queries, message = BAD[name]
    with pytest.raises(FileError, match=message):
        measured(caps=caps, queries=queries)


def test_a_file_that_is_not_there_is_an_error_and_no_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(FileError, match="cannot be read: No such file or directory; check the path"):
        list(routing.read_lines("nowhere.jsonl"))


def test_ties_are_lost_by_the_later_line() -> None:
    scores = np.array([0.5, 0.7, 0.5, 0.1])
    assert [place(scores, index) for index in range(4)] == [1, 0, 2, 3]


def test_auroc_counts_a_tie_half() -> None:
    assert auroc(np.array([0.9, 0.5]), np.array([0.5, 0.1])) == pytest.approx(3.5 / 4)
    assert auroc(np.array([0.9]), np.array([])) is None


def test_coverage_is_the_largest_share_at_that_precision_and_equals_go_together() -> None:
    right = np.array([True] * 19 + [False] + [True] * 5 + [False] * 75)
    confidence = np.linspace(1, 0, 100)
    assert coverage(confidence, right) == pytest.approx(0.25)
    assert coverage(np.ones(100), right) == 0.0
    assert coverage(np.ones(3), np.ones(3, dtype=np.bool_)) == 1.0
    assert coverage(np.array([]), np.array([], dtype=np.bool_)) is None


async def test_the_cost_of_a_decision_can_be_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MiniLM, "load", HashEmbedder)
    found = await decision.measure(60, 5, runs=2)
    assert found.cards == 60
    for times in (found.known, found.changed, found.new, found.named):
        assert 0 < times.p50_ms <= times.p99_ms
    assert 1000 < found.bytes_per_card < 100_000


@pytest.mark.parametrize(("p99", "met"), [(0.9, True), (1.0, True), (1.1, False)])
def test_the_goals_of_a_decision_are_judged_by_its_p99(
    p99: float, met: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    slow, times = decision.Times(50.0, 100.0, 1.0), decision.Times(0.1, p99, 0.1)
    found = [decision.Figures(1000, known=times, changed=slow, new=slow, named=slow, bytes_per_card=1.0)]
    assert [(goal["decision"], goal["goal_ms"], goal["met"]) for goal in decision.goals(found)] == [
        ("known intent", 1.0, met), ("new text", 8.0, False)]
    decision.show(found)
    assert f"<= 1: {'met' if met else 'MISSED'}" in capsys.readouterr().out
