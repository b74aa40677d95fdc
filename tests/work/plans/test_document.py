"""The JSON form: what it can say, what it refuses and with which words."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atmosphere.work.plans import document, plan
from atmosphere.work.plans.plan import Plan
from atmosphere.work.plans.references import PlanError, operators, parse
from tests.work.plans.graphs import graphs, plan_of, unit


@given(graphs())
def test_parse_and_dump_are_inverse(given_plan: Plan) -> None:
    again = document.read(document.write(given_plan))
    assert again == given_plan
    assert again.units == given_plan.units
    assert document.dump(again) == document.dump(given_plan)


def test_every_field_survives() -> None:
    value = {
        "name": "all", "values": {"docs": [{"a.b": 1}]}, "results": ["x"], "in_flight": 3, "deadline_ms": 5000.0,
        "units": [{
            "id": "x", "tool": "chat", "type": "llm/*", "model": "m", "intent": "sum up", "inputs": ["image", "text"],
            "features": ["tools"], "deadline_ms": 100.0, "for_each": [1, 2],
            "constraints": {"labels": ["gpu"], "local_only": True, "max_latency_ms": 5.0, "min_context_tokens": 9,
                            "card": "ab" * 8, "space": "s"},
            "args": {"t": {"$text": ["a", {"$item": "b"}], "join": ";"}, "v": {"$value": "docs", "path": ["0", "a.b"]},
                     "l": {"$literal": {"$ref": "#"}}, "i": {"$index": True}},
        }],
    }
    assert document.dump(document.parse(value)) == value


def test_for_each_makes_a_unit_of_every_element() -> None:
    made = plan_of(unit("e", {"item": {"$item": "text"}}, for_each={"$value": "docs", "path": "list"}),
                   unit("same", {"x": {"$from": "e[$index]"}}, for_each=["a", "b"]),
                   unit("one", {"x": {"$from": "e[1]"}}), unit("all", {"x": {"$from": "e"}}),
                   values={"docs": {"list": [{"text": "p"}, {"text": "q"}]}})
    assert [name for name in made.units if name.startswith("e")] == ["e[0]", "e[1]"]
    assert made.units["e[1]"].item == {"text": "q"}
    assert made.units["same[0]"].needs == {"e[0]"}
    assert made.units["one"].needs == {"e[1]"}
    assert made.units["all"].needs == {"e[0]", "e[1]"}
    assert made.results == ("same", "one", "all")


WRONG: list[tuple[Any, str]] = [
    ([], "the plan must be a JSON object, not a list"),
    ({}, "at least one unit"),
    ({"unit": []}, "unknown field unit; known are name"),
    ({"units": ["x"]}, "units\\[0\\] has no 'id'"),
    ({"units": [{"id": "x"}]}, "unit 'x': 'tool' is missing"),
    ({"units": [unit("a b")]}, "unit 'a b': an id has"),
    ({"units": [unit("a"), unit("a")]}, "unit 'a': two units"),
    ({"units": [unit("a", tools=1)]}, "unit 'a': unknown field tools"),
    ({"units": [unit("a", after="b")]}, "unit 'a': 'after' must be a list, not a text"),
    ({"units": [unit("a", after=["b"])]}, "unit 'a': waits for 'b', which is no unit of the plan; its units are a"),
    ({"units": [unit("a", {"x": {"$from": "a"}})]}, "unit 'a': waits for itself: a waits for a"),
    ({"units": [unit("a", after=["c"]), unit("b", after=["a"]), unit("c", after=["b"])]},
     "a waits for c waits for b waits for a"),
    ({"units": [unit("a", {"x": {"$form": "b"}})]}, "unit 'a': '\\$form' is none of \\$from"),
    ({"units": [unit("a", {"x": {"$from": "b", "paht": ""}})]}, "unit 'a': paht beside '\\$from'"),
    ({"units": [unit("a", {"x": {"$item": True}})]}, "unit 'a': '\\$item' and '\\$index' stand for"),
    ({"units": [unit("a", {"x": {"$value": "v"}})]}, "unit 'a': '\\$value' names 'v'; the plan's values are: none"),
    ({"units": [unit("a", for_each=[])]}, "unit 'a': 'for_each' is empty"),
    ({"units": [unit("b"), unit("a", for_each={"$from": "b"})]}, "unit 'a': 'for_each' is a list, or"),
    ({"units": [unit("b"), unit("a", {"x": {"$from": "b[$index]"}})]}, "the unit at the same place"),
    ({"units": [unit("b", for_each=[1]), unit("a", {"x": {"$from": "b[1]"}})]}, "'b' has 1 units"),
    ({"units": [unit("b"), unit("a", {"x": {"$from": "b[0]"}})]}, "'b' is one unit"),
    ({"units": [unit("a", {"stream": True})]}, "unit 'a': a unit gives one result and cannot stream"),
    ({"units": [unit("a", constraints={"gpu": True})]}, "unit 'a': constraints: unknown field gpu"),
    ({"units": [unit("a", constraints={"node": "x"})]}, "unit 'a': constraints: node"),
    ({"units": [unit("a", deadline_ms=-1)]}, "unit 'a': 'deadline_ms' must be a number above 0"),
    ({"units": [unit("a", deadline_ms=1e12)]}, "unit 'a': 'deadline_ms' is a number above 0 and up to 86400000"),
    ({"units": [unit("a")], "results": ["b"]}, "'results' names 'b'"),
    ({"units": [unit("a")], "in_flight": 1000}, "'in_flight' is a whole number from 1 to 256"),
    ({"units": [unit("a", for_each=[0] * 10_001)]}, "10001 units; 10000 is the maximum"),
    ({"units": [unit("a", for_each=[0] * 400), unit("b", {"x": {"$from": "a"}}, for_each=[0] * 400)]},
     "unit 'b\\[250\\]': .* more than 100000 pairs"),
    ({"units": [unit("u0"), *(unit(f"u{n}", after=[f"u{n - 1}"]) for n in range(1, 1001))]},
     "unit 'u1000': stands at the end of 1001 units"),
]


@pytest.mark.parametrize(("value", "words"), WRONG, ids=[words[:40] for _, words in WRONG])
def test_a_mistake_is_named_with_its_unit(value: Any, words: str) -> None:
    with pytest.raises(PlanError, match=words):
        document.parse(value)


def test_what_is_too_large_or_no_json_is_refused() -> None:
    with pytest.raises(PlanError, match=r"is not JSON: .*line 1"):
        document.read(b"{")
    with pytest.raises(PlanError, match="4194304 is the maximum"):
        document.read(b" " * (document.MAX_DOCUMENT_BYTES + 1))
    deep: Any = 1
    for _ in range(100):
        deep = [deep]
    for args in ({"x": deep}, {"x": {"$literal": deep}}):
        with pytest.raises(PlanError, match="unit 'a': nested more than 64 levels"):
            plan_of(unit("a", args))


TEXTS = st.sampled_from(["a", "b", "a[0]", "b[$index]", "x.*"])
JSON = st.recursive(st.none() | st.booleans() | st.integers(-5, 5) | TEXTS, lambda inner: (
    st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(
        ["$from", "$item", "$index", "$value", "$text", "$literal", "path", "partial", "join", "k"]), inner, max_size=3)
), max_leaves=12)
FIELDS = dict.fromkeys(("type", "model", "intent", "inputs", "constraints", "after", "for_each", "args", "deadline_ms"),
                       JSON)
STEP = st.fixed_dictionaries({"id": st.sampled_from("ab"), "tool": st.just("t")}, optional=FIELDS)


@given(st.lists(STEP, max_size=3), st.dictionaries(st.sampled_from("ab"), JSON))
def test_anything_is_a_plan_or_a_plan_error(units: Any, values: Any) -> None:
    try:
        made = document.parse({"units": units, "values": values})
    except PlanError:
        return
    assert document.read(document.write(made)) == made


def test_the_largest_plan_is_made_quickly() -> None:
    made = plan_of(unit("a", for_each=[0] * (plan.MAX_UNITS - 1)), unit("b", {"x": {"$from": "a"}}))
    assert len(made.units) == plan.MAX_UNITS
    assert len(json.dumps(document.dump(made))) < document.MAX_DOCUMENT_BYTES


def test_operators_are_found_wherever_they_stand() -> None:
    tree = parse({"a": [{"$text": ["x", {"$from": "s"}, [{"$item": True}]]}], "b": {"c": {"$index": True}}}, "here")
    assert [type(operator).__name__ for operator in operators(tree)] == ["Text", "From", "Item", "Index"]


def test_the_plans_of_the_documentation_are_plans() -> None:
    docs = Path(__file__).parents[3] / "docs"
    twelve = document.read((docs / "examples" / "twelve-documents.json").read_bytes())
    assert list(twelve.units)[:13] == [*(f"embed[{n}]" for n in range(12)), "strategy"]
    (shown,) = re.findall(r"```json\n(.*?)```", (docs / "plans.md").read_text(), re.DOTALL)
    assert set(document.read(shown.encode()).units) == {"embed[0]", "embed[1]", "search", "answer"}
