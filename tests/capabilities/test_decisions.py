"""Typed questions: what may be asked, what may be believed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atmosphere.capabilities.decisions import (
    AnswerError,
    Kind,
    Question,
    QuestionError,
    read_answers,
    read_questions,
)

NOUL = {"type": "noul", "instructions": "Is it spam?"}
CHOICE = {"type": "choice", "instructions": "Which?", "criteria": {"a": "one", "b": None}}
SCORE = {"type": "score", "instructions": "How much?", "criteria": ["none", "some", "all"]}
ALL = {"state": "x", "questions": {"n": NOUL, "c": CHOICE, "s": SCORE}}

GOOD = {
    "n": {"type": "noul", "noul": 0.8},
    "c": {"type": "choice", "choice": "a", "confidence": 0.4, "probabilities": {"a": 0.7, "b": 0.3}},
    "s": {"type": "score", "score": 1.1, "confidence": 0.5, "legend": {}, "probabilities": {"0": 0.2, "1": 0.5,
                                                                                              "2": 0.3}},
}


def nested(depth: int) -> Any:
    value: Any = "x"
    for _ in range(depth):
        value = [value]
    return value


def test_questions_are_read_in_their_order() -> None:
    assert read_questions(ALL) == (
        Question("n", Kind.NOUL), Question("c", Kind.CHOICE, ("a", "b")), Question("s", Kind.SCORE, ("0", "1", "2")),
    )


BAD_REQUESTS: dict[str, tuple[dict[str, Any], str]] = {
    "no state": ({"questions": {"n": NOUL}}, "state"),
    "a number as state": ({"state": 3, "questions": {"n": NOUL}}, "state"),
    "a state that is too deep": ({"state": nested(33), "questions": {"n": NOUL}}, "state"),
    "no questions": ({"state": "x"}, "questions"),
    "an empty object of questions": ({"state": "x", "questions": {}}, "questions"),
    "a list of questions": ({"state": "x", "questions": [NOUL]}, "questions"),
    "401 questions": ({"state": "x", "questions": {str(n): NOUL for n in range(401)}}, "questions"),
    "a question without a name": ({"state": "x", "questions": {"": NOUL}}, "questions"),
    "no object": ({"state": "x", "questions": {"q": "spam?"}}, "questions.q"),
    "an unknown type": ({"state": "x", "questions": {"q": {**NOUL, "type": "box"}}}, "questions.q.type"),
    "a type that is a list": ({"state": "x", "questions": {"q": {**NOUL, "type": []}}}, "questions.q.type"),
    "no instructions": ({"state": "x", "questions": {"q": {"type": "noul"}}}, "questions.q.instructions"),
    "empty instructions": ({"state": "x", "questions": {"q": {"type": "noul", "instructions": ""}}},
                           "questions.q.instructions"),
    "no options": ({"state": "x", "questions": {"q": {**CHOICE, "criteria": {}}}}, "questions.q.criteria"),
    "256 options": ({"state": "x", "questions": {"q": {**CHOICE, "criteria": dict.fromkeys(map(str, range(256)))}}},
                    "questions.q.criteria"),
    "one level": ({"state": "x", "questions": {"q": {**SCORE, "criteria": ["a"]}}}, "questions.q.criteria"),
    "eleven levels": ({"state": "x", "questions": {"q": {**SCORE, "criteria": ["a"] * 11}}}, "questions.q.criteria"),
    "a third side of yes and no": ({"state": "x", "questions": {"q": {**NOUL, "criteria": {"maybe": "?"}}}},
                                   "questions.q.criteria"),
}


@pytest.mark.parametrize("name", BAD_REQUESTS)
def test_what_may_not_be_asked_is_named(name: str) -> None:
    body, param = BAD_REQUESTS[name]
    with pytest.raises(QuestionError) as caught:
        read_questions(body)
    assert caught.value.param == param


def test_the_limits_themselves_are_fine() -> None:
    questions = {str(n): NOUL for n in range(398)}
    most = {**CHOICE, "criteria": dict.fromkeys(map(str, range(255)))}
    levels = {**SCORE, "criteria": ["a"] * 10}
    assert len(read_questions({"state": nested(32), "questions": {**questions, "c": most, "s": levels}})) == 400


def answers(given: dict[str, Any]) -> bytes:
    return json.dumps({"model": "m", "answers": given, "usage": {}}).encode()


def test_good_answers_are_believed() -> None:
    found = read_answers(read_questions(ALL), answers(GOOD))
    assert found["n"].yes == 0.8
    assert (found["c"].choice, found["c"].probabilities, found["c"].confidence) == ("a", {"a": 0.7, "b": 0.3}, 0.4)
    assert found["s"].score == 1.1


def test_a_question_without_an_answer_is_a_refusal() -> None:
    found = read_answers(read_questions(ALL), answers({"n": {"type": "refusal"}, "c": GOOD["c"]}))
    assert list(found) == ["c"]


def test_rounded_probabilities_are_believed() -> None:
    """Two decimals each, so that the sum is off by up to half a percent per option."""
    criteria = dict.fromkeys("abcdefg")
    questions = read_questions({"state": "x", "questions": {"c": {**CHOICE, "criteria": criteria}}})
    rounded = {**dict.fromkeys("bcdefg", 0.14), "a": 0.14}
    assert sum(rounded.values()) == pytest.approx(0.98)
    read_answers(questions, answers({"c": {**GOOD["c"], "probabilities": rounded}}))


LIES: dict[str, dict[str, Any]] = {
    "not asked": {"z": GOOD["n"]},
    "another type": {"n": GOOD["c"]},
    "prose": {"n": "yes"},
    "beyond 1": {"n": {"type": "noul", "noul": 1.5}},
    "below 0": {"n": {"type": "noul", "noul": -0.1}},
    "a boolean": {"n": {"type": "noul", "noul": True}},
    "a text": {"n": {"type": "noul", "noul": "0.5"}},
    "nan": {"n": {"type": "noul", "noul": float("nan")}},
    "no probability": {"n": {"type": "noul"}},
    "an option that was not given": {"c": {**GOOD["c"], "choice": "z"}},
    "a list as choice": {"c": {**GOOD["c"], "choice": ["a"]}},
    "a probability for a stranger": {"c": {**GOOD["c"], "probabilities": {"a": 0.5, "z": 0.5}}},
    "a sum of 1.8": {"c": {**GOOD["c"], "probabilities": {"a": 0.9, "b": 0.9}}},
    "a sum of 0.5": {"c": {**GOOD["c"], "probabilities": {"a": 0.5}}},
    "not the most probable": {"c": {**GOOD["c"], "choice": "b"}},
    "no probabilities": {"c": {"type": "choice", "choice": "a", "confidence": 1}},
    "no confidence": {"c": {key: value for key, value in GOOD["c"].items() if key != "confidence"}},
    "confidence 2": {"c": {**GOOD["c"], "confidence": 2}},
    "a score beyond the levels": {"s": {**GOOD["s"], "score": 2.5}},
    "a score that no float holds": {"s": {**GOOD["s"], "score": 10**400}},
    "an infinite score": {"s": {**GOOD["s"], "score": float("inf")}},
}


@pytest.mark.parametrize("name", LIES)
def test_what_cannot_be_true_is_not_believed(name: str) -> None:
    with pytest.raises(AnswerError):
        read_answers(read_questions(ALL), answers(LIES[name]))


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"answers": []}', b"[" * 100_000])
def test_an_answer_of_another_shape_is_not_believed(data: bytes) -> None:
    with pytest.raises(AnswerError):
        read_answers(read_questions(ALL), data)


JSON = st.recursive(st.none() | st.booleans() | st.floats() | st.text(max_size=5) | st.sampled_from(["a", "choice"]),
                    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
                        st.sampled_from(["type", "noul", "choice", "probabilities", "confidence", "score", "a", "b",
                                         "n", "c", "s", "0", "1"]), inner, max_size=4), max_leaves=12)


@given(JSON)
def test_whatever_comes_is_believed_or_refused(value: Any) -> None:
    """No other exception than its own, and nothing that is believed is out of range."""
    try:
        found = read_answers(read_questions(ALL), json.dumps({"answers": value}).encode())
    except AnswerError:
        return
    for answer in found.values():
        assert 0 <= answer.yes <= 1
        assert 0 <= answer.confidence <= 1
        assert not answer.choice or answer.choice in ("a", "b")


@given(JSON)
def test_whatever_is_asked_is_read_or_refused(value: Any) -> None:
    for body in ({"state": value, "questions": {"q": NOUL}}, {"state": "x", "questions": value},
                 {"state": "x", "questions": {"q": value}}):
        try:
            read_questions(body)
        except QuestionError:
            continue
