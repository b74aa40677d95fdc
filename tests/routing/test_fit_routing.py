"""``python -m tests.benchmarks.fit_routing``, and the set that it reads the router's constants off."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from atmosphere.embedding import HashEmbedder
from atmosphere.routing import matching
from tests.benchmarks import fit_routing
from tests.benchmarks.fit_routing import DATA, cross_validated, fit, read, weight


def test_the_set_is_whole() -> None:
    """Enough examples for ten of each card and something left to ask; nothing twice; every card in a domain."""
    capabilities, queries, domains = read(DATA)
    assert len(capabilities) > 100
    assert sum(query.cap is None for query in queries) > 250
    assert max(Counter(query.text.lower() for query in queries).values()) == 1
    train, test = (Counter(query.cap for query in queries if query.split == split) for split in ("train", "test"))
    for capability in capabilities:
        assert train[capability.id] >= 10
        assert test[capability.id] >= 4
        assert domains[capability.id]


def test_constants_are_found_again() -> None:
    chance = np.random.default_rng(1)
    features = np.column_stack([chance.normal(size=10_000), np.zeros(10_000), np.ones(10_000)])
    truth = chance.random(10_000) < 1 / (1 + np.exp(-(2 * features[:, 0] - 1)))
    assert fit(features, truth, np.ones(10_000)) == pytest.approx([2, 0, -1], abs=0.15)
    doubled = np.concatenate([truth, ~truth])
    ignored = np.concatenate([np.ones(10_000), np.zeros(10_000)])
    assert fit(np.tile(features, (2, 1)), doubled, ignored) == pytest.approx(fit(features, truth, np.ones(10_000)))


def test_a_domain_is_judged_by_the_others() -> None:
    """Where one domain says the opposite of the other two, its own rows do not get their own answer."""
    sign = np.tile([-1.0, 1.0], 300)
    domains = np.repeat(["a", "b", "odd"], 200)
    truth = np.where(domains == "odd", sign < 0, sign > 0)
    judged = cross_validated(np.column_stack([sign, np.ones(600)]), truth, np.ones(600), domains)
    odd = domains == "odd"
    assert (judged[odd & (sign > 0)] > 0.9).all()
    assert np.abs(judged[~odd] - 0.5) == pytest.approx(0, abs=0.01)


def test_a_weight_is_put_back() -> None:
    before = matching.SUBJECT_WEIGHT
    with weight("SUBJECT_WEIGHT", before + 7):
        assert before + 7 == matching.SUBJECT_WEIGHT
    assert before == matching.SUBJECT_WEIGHT


def test_it_runs_on_any_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fit_routing, "SEEDS", (1,))
    monkeypatch.setattr(fit_routing, "GRID", {"RIDGE": (1.0,)})
    names = ("tide", "bread", "moon", "train")
    caps = [{"id": name, "name": name, "description": f"All about {name}", "domain": name} for name in names]
    queries = [
        {"q": f"{name} question {number}", "cap": name, "split": "train"} for name in names for number in range(14)
    ] + [{"q": f"something else {number}", "cap": None} for number in range(8)]
    for file, rows in (("caps.jsonl", caps), ("queries.jsonl", queries)):
        (tmp_path / file).write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    embedder = fit_routing.Remembered(HashEmbedder())
    fit_routing.probabilities(embedder, tmp_path)
    printed = capsys.readouterr().out
    assert "SOMEBODY_FIT, SOMEBODY_SHARED, SOMEBODY_PHRASES, SOMEBODY = " in printed
    assert "RIGHT_FIT, RIGHT_MARGIN, RIGHT_SHARED, RIGHT_PHRASES, RIGHT = " in printed
    fit_routing.weights(embedder, tmp_path)
    assert "names alone, top-1 with 0, 5, 10 examples" in capsys.readouterr().out
