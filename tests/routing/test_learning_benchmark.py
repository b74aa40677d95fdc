"""``python -m tests.benchmarks.learning``: what it counts, on a few capabilities of our own."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import numpy as np
import pytest

from atmosphere.embedding import HashEmbedder, MiniLM
from tests.benchmarks import learning
from tests.benchmarks.learning import Picked, doubts
from tests.routing.test_benchmark import write

CAPS = [{"id": name, "description": text} for name, text in (("bread", "bake bread"), ("soup", "cook soup"))]
QUERIES = [{"q": text, "cap": cap, "split": "test"} for text, cap in (
    *((f"cook me a loaf {word}", "bread") for word in ("now", "please", "quickly", "today")),
    ("who won the election", None),
)]


def test_doubts_are_counted_by_threshold() -> None:
    picked = Picked([b""] * 4, np.array([0.1, 0.35, 0.38, 0.95]), np.array([False, True, False, True]))
    lines = doubts(picked)
    assert len(lines) == len(learning.THRESHOLDS)
    found = [[float(number) for number in re.findall(r"\d+\.\d", line)] for line in lines]
    assert found[:2] == [[0.3, 25.0, 100.0, 50.0, 100.0], [0.4, 75.0, 66.7, 100.0, 50.0]]
    assert lines[-1].endswith("wrong among those added   0.0 %")


def test_what_was_said_of_one_half_helps_the_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MiniLM, "load", HashEmbedder)
    options = argparse.Namespace(caps=write(tmp_path / "caps.jsonl", CAPS), shots=0, split="", seed=0,
                                 queries=write(tmp_path / "queries.jsonl", QUERIES))
    learning.run(options)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("2 capabilities, 0 examples each; 5 intents, 1 of them out of scope; ")
    assert len(lines) == 1 + len(learning.THRESHOLDS) + 1 + len(learning.SHARES) * len(learning.KINDS)
    corrected = next(line for line in lines if line.startswith("bad, instead (100%)"))
    assert "4 lessons   top-1 100.0 %" in corrected
    assert "top-1   0.0 %" in lines[1 + len(learning.THRESHOLDS)]
    assert "the same again: elsewhere 100 %, right 100 %" in corrected
