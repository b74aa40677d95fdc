"""The runner: parallel where the graph allows, on disk before it matters, and on after a restart of the node."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from atmosphere.capabilities.card import Effects
from atmosphere.env import FixedEnv
from atmosphere.store import Store
from atmosphere.work.plans import inputs
from atmosphere.work.plans import runner as bounds
from atmosphere.work.plans.journal import Journal
from atmosphere.work.plans.plan import Plan
from atmosphere.work.plans.run import PlanState, State
from atmosphere.work.plans.runner import PlanRunner, PlanView
from protocols.call import CallError, Code
from tests.work.plans.graphs import Allowed, Dispatcher, graphs, plan_of, unit


class SlowDisk(FixedEnv):
    """What blocks takes ten milliseconds."""

    async def run_blocking(self, function: Callable[[], Any]) -> Any:
        with trio.CancelScope(shield=True):
            await trio.sleep(0.01)
        return function()


class World:
    """A node's store, which survives, and its runner, which may be stopped and started."""

    def __init__(self, dispatcher: Dispatcher | None = None, effects: Effects = Effects.NONE, seed: int = 0) -> None:
        self.env = SlowDisk(seed)
        self.store = Store.memory(self.env)
        self.dispatcher = dispatcher or Dispatcher()
        self.allowed = Allowed(effects)
        self.runner = self._new()

    def _new(self) -> PlanRunner:
        return PlanRunner(self.dispatcher.run_unit, self.store, self.env, self.allowed)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[PlanRunner]:
        """Leaving it is a stop of the node."""
        self.runner = self._new()
        async with trio.open_nursery() as nursery:
            await nursery.start(self.runner.run)
            yield self.runner
            nursery.cancel_scope.cancel()

    async def done(self, plan: str) -> PlanView:
        with trio.fail_after(1000):
            while True:
                view = await self.runner.view(plan, None)
                if view.entry.state is not PlanState.RUNNING:
                    return view
                await self.runner.news(plan, view.version)


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.store.close()


def states(view: PlanView) -> dict[str, str]:
    return {record.unit: str(record.state) for record in view.records}


async def test_inputs_come_from_outputs_and_branches_run_side_by_side(
    autojump_clock: object, world: World
) -> None:
    plan = plan_of(unit("e", {"item": {"$item": True}}, for_each=[0, 1, 2]), unit("s", {"query": "q"}),
                   unit("sum", {"all": {"$from": "e", "path": "did"}, "one": {"$from": "e[1]"},
                                "text": {"$text": ["found ", {"$from": ["e[0]", "s"], "path": "did"}], "join": "+"}}))
    async with world.running() as runner:
        began = trio.current_time()
        view = await world.done(await runner.submit(plan))
        assert trio.current_time() - began < 2.2, "two units of a second in a row, the others beside them"
        assert view.entry.state is PlanState.OK
        assert world.dispatcher.peak == 4
        args = world.dispatcher.args["sum"]
        assert args["all"] == ["e[0]", "e[1]", "e[2]"]
        assert args["one"] == {"did": "e[1]"}
        assert args["text"] == "found e[0]+s"
        assert view.plan is not None
        assert view.plan.results == ("sum",)
        assert await runner.results(view.entry.id, ["sum"]) == {"sum": b'{"did": "sum"}'}
        last = view.records[-1]
        assert (last.node, round(last.seconds, 1), last.result) == ("there", 1.0, b"")
        assert last.began_at - view.entry.created_at == pytest.approx(1.0, abs=0.1)


async def test_a_failure_skips_what_needs_it_and_a_partial_collection_goes_on(
    autojump_clock: object, world: World
) -> None:
    world.dispatcher.behave = lambda args: CallError(Code.BACKEND, "no") if args.get("item") == 1 else None
    plan = plan_of(unit("e", {"item": {"$item": True}}, for_each=[0, 1, 2]), unit("all", {"x": {"$from": "e"}}),
                   unit("some", {"x": {"$from": "e", "path": "did", "partial": True}}))
    async with world.running() as runner:
        view = await world.done(await runner.submit(plan))
    assert view.entry.state is PlanState.FAILED
    assert states(view) == {"e[0]": "ok", "e[1]": "failed", "e[2]": "ok", "all": "skipped", "some": "ok"}
    assert world.dispatcher.args["some"]["x"] == ["e[0]", "e[2]"]
    messages = {record.unit: record.message for record in view.records}
    assert messages["e[1]"] == "unit 'e[1]': no"
    assert messages["all"] == "unit 'all': not started, because 'e[1]' is failed"


@pytest.mark.parametrize(("said", "reference", "words"), [
    (b'{"a": 1}', {"$from": "a", "path": "b.c"}, "unit 'b': there is no 'b' in the result of 'a'; it has a"),
    (b'{"a": [1]}', {"$from": "a", "path": "a.3"}, "unit 'b': there is no 'a.3' in the result of 'a'; it is a list of"),
    (b"not json", {"$from": "a"}, "unit 'b': the result of 'a' is not JSON"),
])
async def test_a_reference_that_leads_nowhere_fails_its_unit(
    autojump_clock: object, world: World, said: bytes, reference: Any, words: str
) -> None:
    world.dispatcher.behave = lambda args: said
    async with world.running() as runner:
        view = await world.done(await runner.submit(plan_of(unit("a"), unit("b", {"x": reference}))))
    assert states(view) == {"a": "ok", "b": "failed"}
    assert view.records[1].message.startswith(words)
    assert world.dispatcher.begun["b"] == 0


async def test_cancel_stops_the_units(
    autojump_clock: object, world: World
) -> None:
    async with world.running() as runner:
        plan = await runner.submit(plan_of(unit("a"), unit("b", after=["a"])))
        await trio.sleep(0.5)
        await runner.cancel(plan, None)
        assert world.dispatcher.running == 0
        view = await runner.view(plan, None)
        assert view.entry.state is PlanState.CANCELLED
        assert view.entry.ended_at is not None
        assert states(view) == {"a": "cancelled", "b": "cancelled"}
        await runner.cancel(plan, None)
        await runner.forget(plan, None)
        with pytest.raises(CallError, match="plan list"):
            await runner.view(plan, None)
        assert await runner.results(plan, ["a"]) == {}
    async with world.running():
        await trio.sleep(5)
    assert world.dispatcher.begun == Counter(a=1)


async def test_a_plan_has_a_deadline(
    autojump_clock: object, world: World
) -> None:
    async with world.running() as runner:
        view = await world.done(await runner.submit(plan_of(unit("a"), unit("b", after=["a"]), deadline_ms=1500)))
    assert view.entry.state is PlanState.FAILED
    assert view.entry.reason == "the plan's deadline of 1500 ms has passed"
    assert states(view) == {"a": "ok", "b": "cancelled"}


async def test_what_must_not_run_twice_is_on_disk_before_it_is_sent(
    autojump_clock: object, world: World
) -> None:
    world.allowed.effects = Effects.ONCE
    journal = Journal(world.store)
    seen: list[frozenset[str]] = []
    inner = world.dispatcher.run_unit

    async def run_unit(given: Any) -> Any:
        seen.append((await journal.unfinished())[0].begun)
        return await inner(given)

    world.dispatcher.run_unit = run_unit  # type: ignore[method-assign]
    async with world.running() as runner:
        await runner.submit(plan_of(unit("a"), unit("b", after=["a"])))
        await trio.sleep(1.5)
    assert seen == [{"a"}, {"b"}]
    async with world.running() as runner:
        view = await world.done((await runner.entries(None))[0].id)
    assert states(view) == {"a": "ok", "b": "unknown"}
    assert "look whether it was done" in view.records[1].message
    assert world.dispatcher.begun == Counter(a=1, b=1)


@given(graphs(), st.lists(st.floats(0.05, 3.0), max_size=5), st.sampled_from(Effects), st.integers(0, 2**32))
@settings(deadline=None, max_examples=200)
def test_restarts_at_any_time_lose_nothing_and_repeat_only_what_may_be(
    plan: Plan, stops: list[float], effects: Effects, seed: int
) -> None:
    world = World(effects=effects, seed=seed)

    async def live() -> PlanView:
        given_id = ""
        for seconds in stops:
            async with world.running() as runner:
                given_id = given_id or await runner.submit(plan)
                await trio.sleep(seconds)
        async with world.running() as runner:
            return await world.done(given_id or await runner.submit(plan))

    view = trio.run(live, clock=trio.testing.MockClock(autojump_threshold=0))
    world.store.close()
    ended, found = Counter(world.dispatcher.ended), states(view)
    assert found.keys() == plan.units.keys()
    if effects is Effects.ONCE:
        assert all(count == 1 for count in world.dispatcher.begun.values()), "sent twice"
        assert all(ended[name] == 1 for name, state in found.items() if state == "ok")
    else:
        assert set(found.values()) == {"ok"}
        keys: dict[str, set[bytes]] = {}
        for sent in world.dispatcher.units:
            args = json.loads(sent.args)
            keys.setdefault(f"{args['me']}{args.get('item')}", set()).add(sent.key)
        assert all(len(used) == 1 for used in keys.values()), "another key for the same unit"
        assert len({next(iter(used)) for used in keys.values()}) == len(keys)
    position = {name: place for place, name in reversed(list(enumerate(world.dispatcher.ended)))}
    for planned in plan.units.values():
        if planned.id in position and found[planned.id] == "ok":
            assert all(position[name] < position[planned.id] for name in planned.needs)


async def test_after_a_restart_results_are_taken_from_disk(
    autojump_clock: object, world: World
) -> None:
    plan = plan_of(unit("a"), unit("b", {"x": {"$from": "a", "path": "did"}}))
    async with world.running() as runner:
        given_id = await runner.submit(plan)
        await trio.sleep(1.5)
    async with world.running():
        assert states(await world.done(given_id)) == {"a": "ok", "b": "ok"}
    assert world.dispatcher.begun == Counter(a=1, b=2)
    assert world.dispatcher.args["b"]["x"] == "a"


async def test_at_the_start_units_wait_for_the_mesh_to_come_together(
    autojump_clock: object, world: World
) -> None:
    missing = CallError(Code.NOT_FOUND, "no node of the mesh offers 'work'")
    start = trio.current_time()
    world.dispatcher.behave = lambda args: missing if trio.current_time() < start + 10 else None
    async with world.running() as runner:
        assert (await world.done(await runner.submit(plan_of(unit("a"))))).entry.state is PlanState.OK
        assert 10 <= trio.current_time() - start < 13
        await trio.sleep(30)
        world.dispatcher.behave = lambda args: missing
        began = trio.current_time()
        view = await world.done(await runner.submit(plan_of(unit("a"))))
        assert trio.current_time() - began < 2
        assert view.records[0].message == "unit 'a': no node of the mesh offers 'work'"


async def test_owners_do_not_see_each_other_and_cannot_take_all_places(
    autojump_clock: object, world: World
) -> None:
    async with world.running() as runner:
        mine = [await runner.submit(plan_of(unit("a")), "key1") for _ in range(bounds.MAX_RUNNING_OF_ONE)]
        with pytest.raises(CallError, match="of one API key") as raised:
            await runner.submit(plan_of(unit("a")), "key1")
        assert raised.value.code is Code.OVERLOADED
        for _ in range(bounds.MAX_RUNNING - len(mine)):
            await runner.submit(plan_of(unit("a")))
        with pytest.raises(CallError, match="8 plans run on this node"):
            await runner.submit(plan_of(unit("a")))
        for act in (runner.view, runner.cancel, runner.forget):
            with pytest.raises(CallError, match="no plan"):
                await act(mine[0], "key2")
        assert {entry.id for entry in await runner.entries("key1")} == set(mine)
        assert await runner.entries("key2") == []
        assert len(await runner.entries(None)) == bounds.MAX_RUNNING
        await world.done(mine[0])
        with pytest.raises(CallError, match="no plan"):
            await runner.view(mine[0], "key2")
    assert ("key1" in {owner for owner, _ in world.allowed.notes}) is True


async def test_what_a_key_may_not_call_fails_its_unit(
    autojump_clock: object, world: World
) -> None:
    world.allowed.refusal = CallError(Code.FORBIDDEN, "the API key 'x' does not cover call:test/work")
    async with world.running() as runner:
        view = await world.done(await runner.submit(plan_of(unit("a"), unit("b", after=["a"])), "key1"))
    assert [(record.state, record.code) for record in view.records] == [
        (State.FAILED, "forbidden"), (State.SKIPPED, "skipped")]
    assert world.dispatcher.begun == Counter()


@pytest.mark.logs_errors
async def test_a_disk_that_fails_ends_the_plan_and_not_the_node(
    autojump_clock: object, world: World, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world.running() as runner:
        plan = await runner.submit(plan_of(unit("a")))
        broken = runner._journal

        async def note(*_: Any) -> None:
            raise sqlite3.OperationalError("disk I/O error")

        monkeypatch.setattr(broken, "note", note)
        view = await world.done(plan)
        assert view.entry.state is PlanState.FAILED
        assert "this node failed" in view.entry.reason
        assert "broke off" in caplog.text
        monkeypatch.undo()
        assert (await world.done(await runner.submit(plan_of(unit("a"))))).entry.state is PlanState.OK


async def test_old_plans_make_room(
    autojump_clock: object, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    from atmosphere.work.plans import journal

    monkeypatch.setattr(journal, "KEPT_PLANS", 2)
    world.dispatcher.seconds = 0.0
    async with world.running() as runner:
        given_ids = [(await world.done(await runner.submit(plan_of(unit("a"))))).entry.id for _ in range(5)]
        assert [entry.id for entry in await runner.entries(None)] == given_ids[:1:-1]


async def test_arguments_over_the_bound_fail_their_unit(
    autojump_clock: object, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inputs, "MAX_ARGS_BYTES", 100)
    world.dispatcher.behave = lambda args: json.dumps("x" * 100).encode()
    async with world.running() as runner:
        view = await world.done(await runner.submit(plan_of(unit("a"), unit("b", {"x": {"$from": "a"}}))))
    assert states(view) == {"a": "ok", "b": "failed"}
    assert view.records[1].message.startswith("unit 'b': its arguments would have 1")
