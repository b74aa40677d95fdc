"""The last decisions: bounded, small, found by request."""

from __future__ import annotations

from dataclasses import replace

from atmosphere.routing.decision import DECISIONS_KEPT, RUNNERS_UP_KEPT, TEXT_KEPT, Candidate, Decision, DecisionLog
from atmosphere.routing.intent import Intent
from tests.mesh.people import OTHER
from tests.routing.test_router import CHAT

CANDIDATE = Candidate(OTHER, "there", bytes(32), CHAT, 0.5, {"match": 0.5}, "lan", 2.0)
DECISION = Decision(Intent(tool="chat", text="x" * 8000), (CANDIDATE,) * 32, {"model": 3}, more=100)


def name(number: int) -> str:
    return f"{number:032x}"


def test_it_keeps_the_last_thousand_and_of_each_what_explains_it() -> None:
    log = DecisionLog()
    for number in range(DECISIONS_KEPT + 10):
        log.add(name(number), DECISION, float(number))
    assert len(log) == DECISIONS_KEPT
    assert log.get(name(9)) is None
    kept = log.get(name(10))
    assert kept is not None
    assert kept.decision.candidates == (CANDIDATE,) * RUNNERS_UP_KEPT
    assert kept.decision.more == 100 + 32 - RUNNERS_UP_KEPT
    assert len(kept.decision.intent.text) == TEXT_KEPT
    assert kept.decision.filtered == {"model": 3}
    assert [entry.request for entry in log.latest(2)] == [name(DECISIONS_KEPT + 9), name(DECISIONS_KEPT + 8)]
    assert log.latest(0) == []


def test_a_request_that_comes_back_is_one_request() -> None:
    log = DecisionLog()
    log.add(name(1), DECISION, 1.0).ended(None, "overloaded", 2)
    log.add(name(2), DECISION, 2.0)
    log.add(name(1), replace(DECISION, more=0), 3.0).ended(CANDIDATE, "ok", 3)
    assert [(entry.request, entry.outcome) for entry in log.latest(9)] == [(name(1), "ok"), (name(2), "")]


def test_a_beginning_finds_it_where_it_is_unambiguous() -> None:
    log = DecisionLog()
    log.add("aaaabbbb1", DECISION, 1.0)
    log.add("aaaabbbb2", DECISION, 1.0)
    log.add("ccccdddd1", DECISION, 1.0)
    assert log.get("aaaabbbb") is None
    assert log.get("ccccddd") is None, "seven digits are too few"
    found = log.get("ccccdddd")
    assert found is not None
    assert found.request == "ccccdddd1"
