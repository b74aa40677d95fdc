"""The scenario routing, small, and what it is measured against."""

from __future__ import annotations

import random
from typing import Any

import pytest

from atmosphere.embedding import HashEmbedder
from atmosphere.routing.matching import CardVectors, card_texts, centroid
from atmosphere.routing.phrases import subject
from atmosphere.work.spread import FIT
from simulations.scenarios.demand import KINDS, BusyWorker, Job, Oracle, jobs
from tests.simulations.commands import simulate

SMALL = ("routing", "--nodes", "16", "--intents-per-s", "4", "--lasts", "8", "--service", "1", "--fidelity", "fast")


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    return simulate(*SMALL)


def test_intents_are_done_by_who_can(found: dict[str, Any]) -> None:
    assert (found["kinds"], found["slow"], found["way"]) == (4, 2, "unit")
    assert found["intents"] > 15
    assert found["failed"] == 0
    assert found["right"] == 1.0
    assert found["errors"] == []
    reached = found["beyond_work_ms"]
    assert reached["linked"]["p50"] > 40
    assert sum(each is not None for each in reached.values()) >= 2


def test_the_oracle_is_better_but_not_by_magic(found: dict[str, Any]) -> None:
    assert found["oracle"]["ms"]["p50"] >= 500
    assert 1 <= found["longer"] < 10
    assert found["mesh"]["mean_ms"] >= found["oracle"]["mean_ms"]
    assert found["mesh"]["balance"]["busiest"] >= 1 >= found["mesh"]["balance"]["idlest"]


def test_the_same_seed_is_the_same_run(found: dict[str, Any]) -> None:
    again = simulate(*SMALL)
    assert again["trace_hash"] == found["trace_hash"]
    assert again["mesh"] == found["mesh"]
    assert simulate(*SMALL, "--way", "call")["trace_hash"] != found["trace_hash"]


def test_wishes_mean_their_card_and_no_other() -> None:
    embedder = HashEmbedder()
    vectors = CardVectors(embedder.space.name)
    for number, kind in enumerate(KINDS):
        parts = embedder.embed(card_texts(kind.card))
        vectors.describe(bytes([number]), kind.card)
        vectors.put(bytes([number]), centroid(parts, len(subject(kind.card))), parts)
    for number, kind in enumerate(KINDS):
        for wish in kind.wishes:
            matches = vectors.match(embedder.embed([wish])[0], wish)
            assert matches.best[0].card == bytes([number]), wish
            assert matches.factor(matches.best[1].card) < FIT, wish


def test_jobs_come_as_often_as_they_should() -> None:
    found = list(jobs(random.Random(1), lambda at: 20.0 if at < 50 else 5.0, 20.0, 100.0, 4, 2.0))
    early = sum(job.at < 50 for job in found)
    assert 900 < early < 1100
    assert 200 < len(found) - early < 300
    assert {job.kind for job in found} == {0, 1, 2, 3}
    assert all(1.0 <= job.seconds <= 3.0 for job in found)
    assert [job.number for job in found] == list(range(len(found)))


def test_the_oracle_knows_queues_distances_and_slowness() -> None:
    workers = [BusyWorker(0, 1), BusyWorker(0, 1), BusyWorker(0, 1, slowness=10.0), BusyWorker(1, 1)]
    oracle = Oracle(workers, lambda one, other: 0.1 * abs(one - other))
    placed = [oracle.place(Job(number, 0.0, 0, "", 1.0), caller=0) for number in range(4)]
    assert [each.server for each in placed] == [0, 1, 0, 1]
    assert [each.seconds for each in placed] == pytest.approx([1.0, 1.2, 2.0, 2.2])
    assert oracle.place(Job(4, 0.0, 1, "", 1.0), caller=0).server == 3
