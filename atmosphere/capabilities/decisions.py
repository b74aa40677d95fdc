"""Typed questions and their answers, as System One's wire has them. Pure.

A decision model reads a *state* and named, typed questions about it, and answers each with probabilities instead of
prose: ``choice`` (one of named options), ``score`` (a place on an ordered scale), ``noul`` (yes or no). The request is
``{model, state, questions: {name: {type, instructions, criteria}}}``, the answer
``{model, answers: {name: {type, ...}}, usage}``.

What a model answers is checked before anybody believes it: every answer is to a question that was asked, of its type,
its options are those that were given, its probabilities are probabilities. A question that a model left out, or
refused, has no answer; that is allowed.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

DECIDE_TYPE = "llm/decide"
DECIDE_TOOL = "decide"

MAX_QUESTIONS = 400      # OpenAI's limit; servers of smaller ones answer 422 and the caller sees it
MAX_CHOICES = 255        # both wires
MIN_LEVELS = 2
MAX_LEVELS = 10
MAX_DEPTH = 32           # of a state, instructions or criteria: what OpenAI and llama.cpp take
MAX_NAME_CHARS = 256
ROUNDING = 0.005         # servers round to two decimals: each probability may be off by so much


class Kind(StrEnum):
    """The types of questions."""

    CHOICE = "choice"
    SCORE = "score"
    NOUL = "noul"


@dataclass(frozen=True, slots=True)
class Question:
    """A question that was asked, as far as its answer has to fit it."""

    name: str
    kind: Kind
    options: tuple[str, ...] = ()
    """The options of a choice, the numbers of a score's levels; none for a noul."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A believable answer to one question."""

    kind: Kind
    yes: float = 0.0
    """noul: the probability of yes."""
    choice: str = ""
    score: float = 0.0
    """The expected level, 0 for the first one."""
    probabilities: Mapping[str, float] = field(default_factory=dict)
    """By option, in the order of the question; for choice and score."""
    confidence: float = 0.0
    """How peaked the distribution is, 0..1, as the server computed it."""


class QuestionError(ValueError):
    """A request that no decision model may be given; *param* is the place of the mistake."""

    def __init__(self, message: str, param: str) -> None:
        super().__init__(message)
        self.param = param


class AnswerError(ValueError):
    """An answer that cannot be true; the message says why."""


def read_questions(body: Mapping[str, Any]) -> tuple[Question, ...]:
    """The questions of a request in System One's form, in their order. Raises :class:`QuestionError`."""
    state = body.get("state")
    if not isinstance(state, str | dict | list):
        raise QuestionError("'state' must be a string, an object or a list: what the questions are about", "state")
    _shallow(state, "state")
    questions = body.get("questions")
    if not isinstance(questions, dict) or not questions:
        raise QuestionError("'questions' must be an object with at least one question by name", "questions")
    if len(questions) > MAX_QUESTIONS:
        raise QuestionError(f"{len(questions)} questions; at most {MAX_QUESTIONS} may be asked at once", "questions")
    return tuple(_question(name, question) for name, question in questions.items())


def _question(name: str, question: Any) -> Question:
    where = f"questions.{name[:80]}"
    if not name or len(name) > MAX_NAME_CHARS:
        raise QuestionError(f"a question's name must have 1 to {MAX_NAME_CHARS} characters", "questions")
    if not isinstance(question, dict):
        raise QuestionError(f"'{where}' must be an object with a type and instructions", where)
    try:
        kind = Kind(str(question.get("type")))
    except ValueError:
        raise QuestionError(f"'{where}.type' must be \"choice\", \"score\" or \"noul\"", f"{where}.type") from None
    instructions = question.get("instructions")
    if not isinstance(instructions, str | dict | list) or not instructions:
        raise QuestionError(f"'{where}.instructions' is missing: say what is asked", f"{where}.instructions")
    _shallow(instructions, f"{where}.instructions")
    criteria = question.get("criteria")
    _shallow(criteria, f"{where}.criteria")
    return Question(name, kind, _options(kind, criteria, f"{where}.criteria"))


def _options(kind: Kind, criteria: Any, where: str) -> tuple[str, ...]:
    if kind is Kind.CHOICE:
        if not isinstance(criteria, dict) or not 1 <= len(criteria) <= MAX_CHOICES:
            raise QuestionError(f"'{where}' must be an object with 1 to {MAX_CHOICES} options", where)
        return tuple(criteria)
    if kind is Kind.SCORE:
        if not isinstance(criteria, list) or not MIN_LEVELS <= len(criteria) <= MAX_LEVELS:
            raise QuestionError(f"'{where}' must be a list of {MIN_LEVELS} to {MAX_LEVELS} levels, lowest first", where)
        return tuple(str(level) for level in range(len(criteria)))
    if criteria is not None and (not isinstance(criteria, dict) or not criteria.keys() <= {"true", "false"}):
        raise QuestionError(f"'{where}' of a noul may say what \"true\" and \"false\" mean, nothing else", where)
    return ()


def _shallow(value: Any, where: str) -> None:
    """Refuse what is nested so deeply that a server would stumble over it."""
    layer = [value]
    for _ in range(MAX_DEPTH + 1):
        layer = [inner for outer in layer if isinstance(outer, dict | list)
                 for inner in (outer.values() if isinstance(outer, dict) else outer)]
        if not layer:
            return
    raise QuestionError(f"'{where}' is nested more than {MAX_DEPTH} levels deep", where)


def read_answers(questions: tuple[Question, ...], data: bytes) -> dict[str, Answer]:
    """The believable answers in the body of a System One answer, by question. Raises :class:`AnswerError`."""
    try:
        body = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise AnswerError(f"it is not JSON: {error}") from None
    answers = body.get("answers") if isinstance(body, dict) else None
    if not isinstance(answers, dict):
        raise AnswerError("it has no object 'answers'")
    asked = {question.name: question for question in questions}
    if strangers := answers.keys() - asked.keys():
        raise AnswerError(f"it answers {sorted(strangers)[0][:80]!r}, which was not asked")
    found = {}
    for name, question in asked.items():
        given = answers.get(name)
        if given is None or (isinstance(given, dict) and given.get("type") == "refusal"):
            continue
        found[name] = _answer(question, given)
    return found


def _answer(question: Question, given: Any) -> Answer:
    name = f"the answer to {question.name[:80]!r}"
    if not isinstance(given, dict) or given.get("type") != question.kind:
        raise AnswerError(f"{name} is no {question.kind}")
    if question.kind is Kind.NOUL:
        return Answer(question.kind, yes=_probability(given.get("noul"), name))
    probabilities = _distribution(question, given.get("probabilities"), name)
    confidence = _probability(given.get("confidence"), f"the confidence of {name}")
    if question.kind is Kind.CHOICE:
        choice = given.get("choice")
        if not isinstance(choice, str) or choice not in probabilities:
            raise AnswerError(f"{name} is {str(choice)[:80]!r}, which is none of its options")
        if probabilities[choice] < max(probabilities.values()) - 2 * ROUNDING:
            raise AnswerError(f"{name} is not its most probable option")
        return Answer(question.kind, choice=choice, probabilities=probabilities, confidence=confidence)
    score = _number(given.get("score"), f"the score of {name}")
    if not -ROUNDING <= score <= len(question.options) - 1 + ROUNDING:
        raise AnswerError(f"{name} has the score {score:g}, which is outside its levels")
    return Answer(question.kind, score=score, probabilities=probabilities, confidence=confidence)


def _distribution(question: Question, given: Any, name: str) -> dict[str, float]:
    """Probabilities by option; one that is left out is 0, which the sum has to bear."""
    if not isinstance(given, dict):
        raise AnswerError(f"{name} has no probabilities")
    if strangers := given.keys() - set(question.options):
        raise AnswerError(f"{name} has a probability for {sorted(strangers)[0][:80]!r}, which is none of its options")
    found = {option: _probability(given.get(option, 0.0), name) for option in question.options}
    total = sum(found.values())
    if abs(total - 1.0) > min(0.25, 2 * ROUNDING + ROUNDING * len(found)):
        raise AnswerError(f"the probabilities of {name} add up to {total:.3g}")
    return found


def _probability(value: Any, name: str) -> float:
    number = _number(value, name)
    if not -1e-6 <= number <= 1.0 + 1e-6:
        raise AnswerError(f"{name} has the probability {number:g}")
    return min(max(number, 0.0), 1.0)


def _number(value: Any, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= sys.float_info.max:
        raise AnswerError(f"{name} is no number: {str(value)[:40]!r}")
    return float(value)
