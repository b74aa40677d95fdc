"""The run machine: every unit once, edges kept, and on from wherever an earlier run stopped."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atmosphere.work.plans import run as bounds
from atmosphere.work.plans.plan import Plan, PlannedUnit
from atmosphere.work.plans.run import PlanState, Record, Run, State
from tests.work.plans.graphs import graphs, plan_of, unit

OUTCOMES = st.sampled_from([State.OK, State.OK, State.OK, State.FAILED, State.UNKNOWN])


def drive(run: Run, data: st.DataObject, outcomes: Any, taken: list[str], records: dict[str, Record],
          most: int | None = None) -> None:
    """Take and finish in any order, at most *most* units, checking every promise on the way."""
    running: list[PlannedUnit] = []
    finished = 0
    while True:
        for started in run.take():
            assert all(records[name].state is State.OK for name in started.needs)
            assert all(name in records for name in started.awaits)
            for name in (*started.needs, *started.awaits):
                if records[name].state is State.OK:
                    assert run.outputs_of(name) == records[name].result
            taken.append(started.id)
            running.append(started)
        assert len(running) <= run.plan.in_flight
        if not running or finished == most:
            return
        ended = running.pop(data.draw(st.integers(0, len(running) - 1)))
        state = data.draw(outcomes)
        told = run.finish(Record(ended.id, state, ended.id.encode() if state is State.OK else b""))
        for record in told:
            assert record.unit not in records
            records[record.unit] = record
        finished += 1


@given(graphs(), st.data())
def test_every_unit_runs_once_and_after_what_it_needs(plan: Plan, data: st.DataObject) -> None:
    run = Run(plan)
    taken: list[str] = []
    records: dict[str, Record] = {}
    drive(run, data, st.just(State.OK), taken, records)
    assert run.over
    assert run.state is PlanState.OK
    assert sorted(taken) == sorted(plan.units)
    assert all(run.outputs_of(name) is None for name in plan.units), "a result that nobody waits for is let go"


@given(graphs(), st.data())
def test_failures_stop_only_what_depends_on_them(plan: Plan, data: st.DataObject) -> None:
    run = Run(plan)
    taken: list[str] = []
    records: dict[str, Record] = {}
    drive(run, data, OUTCOMES, taken, records)
    assert run.over
    assert records.keys() == plan.units.keys()
    assert len(taken) == len(set(taken))
    for planned in plan.units.values():
        blocked = any(records[name].state is not State.OK for name in planned.needs)
        assert (records[planned.id].state is State.SKIPPED) == blocked
        assert (planned.id in taken) == (not blocked)
    failed = any(record.state is not State.OK for record in records.values())
    assert run.state is (PlanState.FAILED if failed else PlanState.OK)


@given(graphs(), st.data())
def test_a_run_goes_on_from_any_point(plan: Plan, data: st.DataObject) -> None:
    """Stopped again and again after any number of units: what had ended never runs again, everything ends once."""
    records: dict[str, Record] = {}
    done: list[str] = []
    for _ in range(100):
        run, before = Run(plan), set(records)
        taken: list[str] = []
        for record in run.restore(data.draw(st.permutations(list(records.values())))):
            records[record.unit] = record
        drive(run, data, OUTCOMES, taken, records, data.draw(st.integers(0, 3)) or None)
        assert not before & set(taken)
        done += [name for name in taken if name in records]
        if run.over:
            break
    assert records.keys() == plan.units.keys()
    assert len(done) == len(set(done))
    assert set(done) == {name for name, record in records.items() if record.state is not State.SKIPPED}


def test_a_skip_that_was_not_written_down_is_made_up_for() -> None:
    plan = plan_of(unit("a"), unit("b", after=["a"]), unit("c", after=["b"]))
    run = Run(plan)
    told = run.restore([Record("a", State.FAILED)])
    assert [(record.unit, record.state) for record in told] == [("b", State.SKIPPED), ("c", State.SKIPPED)]
    assert "'a' is failed" in told[0].message
    assert run.over


def test_what_was_not_taken_cannot_finish() -> None:
    run = Run(plan_of(unit("a")))
    with pytest.raises(ValueError, match="waiting"):
        run.finish(Record("a", State.OK))
    run.take()
    run.finish(Record("a", State.OK))
    with pytest.raises(ValueError, match="ok, not running"):
        run.finish(Record("a", State.OK))


def test_cancel_ends_all_and_says_what_may_have_happened() -> None:
    run = Run(plan_of(unit("a"), unit("b"), unit("c", after=["a"])))
    run.take()
    records = {record.unit: record for record in run.cancel(frozenset({"b"}))}
    assert {name: record.state for name, record in records.items()} == {
        "a": State.CANCELLED, "b": State.UNKNOWN, "c": State.CANCELLED}
    assert "look whether it was done" in records["b"].message
    assert run.over
    assert run.state is PlanState.CANCELLED
    assert run.take() == []


def test_results_over_a_bound_are_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "MAX_RESULT_BYTES", 10)
    monkeypatch.setattr(bounds, "MAX_RESULTS_BYTES", 15)
    run = Run(plan_of(unit("a"), unit("b"), unit("c"), unit("d", after=["a"])))
    run.take()
    first = run.finish(Record("a", State.OK, b"x" * 11))
    assert [record.state for record in first] == [State.FAILED, State.SKIPPED]
    assert first[0].message == "unit 'a': its result has 11 bytes; 10 is the maximum: ask the tool for less"
    assert first[0].result == b""
    assert run.finish(Record("b", State.OK, b"x" * 10))[0].state is State.OK
    last = run.finish(Record("c", State.OK, b"x" * 6))[0]
    assert (last.state, last.code) == (State.FAILED, "too_large")
    assert "unit 'c'" in last.message
    assert "several plans" in last.message
