"""Decisions over HTTP: OpenAI's ``POST /v1/decisions`` in System One's terms and back, and the errors of both. Pure.

The mesh speaks System One (``capabilities/decisions.py``). OpenAI's variant says the same with other words: a
``predicate`` is a ``noul``, choices and levels are lists, a choice may be a boolean, questions need no name, and the
answers come as a list in the order of the questions; one without an answer is a ``refusal``. Images are refused in
OpenAI's variant: the servers of System One each take them in a form of their own.

Errors are ``{"error": {...}}`` with 400 for OpenAI's route. System One's documented form is ``{"detail": ...}``, for
a body that was understood and is wrong with 422 and the place in it; OpenAI's object comes beside it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from atmosphere.capabilities.decisions import (
    MAX_CHOICES,
    MAX_LEVELS,
    MAX_QUESTIONS,
    MIN_LEVELS,
    Answer,
    AnswerError,
    Kind,
    Question,
    QuestionError,
    read_answers,
    read_questions,
)
from atmosphere.http.errors import Answer as HttpAnswer
from atmosphere.http.errors import HttpError, envelope, failure, invalid, refusal
from atmosphere.http.requests import Body
from protocols.call.errors import CallError, Code

SYSTEMONE = "/v1/systemone"
DECISIONS = "/v1/decisions"

_KINDS = {"predicate": Kind.NOUL, "choice": Kind.CHOICE, "score": Kind.SCORE}
_NO_DETAILS = {"input_tokens_details": {"cache_write_tokens": 0, "cached_tokens": 0},
               "output_tokens_details": {"reasoning_tokens": 0}}


def checked(body: Body) -> tuple[Question, ...]:
    """The questions of a request in System One's form. Raises :class:`HttpError`."""
    try:
        return read_questions(body)
    except QuestionError as error:
        raise invalid(str(error), error.param) from None


@dataclass(frozen=True, slots=True)
class Asked:
    """One question of OpenAI's variant, as far as its answer needs it."""

    name: str | None
    question: Question
    values: tuple[str | bool, ...] = ()
    """The choices as the client wrote them, or the labels of the levels; in the order of the question's options."""


@dataclass(frozen=True, slots=True)
class Translation:
    """A request in System One's form, and the way back for its answer."""

    body: Body
    asked: tuple[Asked, ...]

    def answer(self, result: bytes) -> bytes:
        """The answer *result*, System One's, in OpenAI's form. Raises CallError (backend)."""
        try:
            found = read_answers(tuple(item.question for item in self.asked), result)
        except AnswerError as error:
            raise CallError(Code.BACKEND, f"the decision model's answer cannot be believed: {error}") from None
        given = json.loads(result)
        answers = [_answer(item, found.get(item.question.name)) for item in self.asked]
        model = given.get("model") if isinstance(given.get("model"), str) else self.body.get("model", "")
        usage = _usage(given.get("usage"))
        return json.dumps({"model": model, "answers": answers, "usage": usage}, separators=(",", ":")).encode()


def translate(body: Body) -> Translation:
    """OpenAI's request *body* in System One's form. Raises :class:`HttpError` (400) that names the place."""
    questions = body.get("questions")
    if not isinstance(questions, list) or not 1 <= len(questions) <= MAX_QUESTIONS:
        raise invalid(f"'questions' must be a list of 1 to {MAX_QUESTIONS} questions", "questions")
    asked, wire = [], {}
    for index, question in enumerate(questions):
        where = f"questions[{index}]"
        if not isinstance(question, dict):
            raise invalid(f"'{where}' must be an object with a type and instructions", where)
        name = question.get("name")
        if name is not None and not isinstance(name, str):
            raise invalid(f"'{where}.name' must be a string", f"{where}.name")
        key = name if name and name not in wire else f"question {index + 1}"
        while key in wire:
            key += "'"
        kind, criteria, values = _criteria(question, where)
        wire[key] = {"type": str(kind), "instructions": _instructions(question.get("instructions"), where)}
        if criteria is not None:
            wire[key]["criteria"] = criteria
        options = tuple(criteria) if isinstance(criteria, dict) else tuple(map(str, range(len(criteria or ()))))
        asked.append(Asked(name, Question(key, kind, options), values))
    request: Body = {"state": _state(body.get("input")), "questions": wire}
    if body.get("model") is not None:
        request["model"] = body["model"]
    checked(request)
    return Translation(request, tuple(asked))


def _criteria(question: Body, where: str) -> tuple[Kind, Any, tuple[str | bool, ...]]:
    """Type, criteria in System One's form, and the client's own values of the options."""
    kind = _KINDS.get(str(question.get("type")))
    if kind is None:
        raise invalid(f"'{where}.type' must be \"predicate\", \"choice\" or \"score\"", f"{where}.type")
    if kind is Kind.NOUL:
        return kind, None, ()
    field, key, least, most = (("choices", "value", 2, MAX_CHOICES) if kind is Kind.CHOICE
                               else ("levels", "label", MIN_LEVELS, MAX_LEVELS))
    given = question.get(field)
    place = f"{where}.{field}"
    if not isinstance(given, list) or not least <= len(given) <= most:
        raise invalid(f"'{place}' must be a list of {least} to {most} objects", place)
    values: list[str | bool] = []
    texts: list[str | None] = []
    for number, item in enumerate(given):
        value = item.get(key) if isinstance(item, dict) else None
        fits = isinstance(value, str | bool) if kind is Kind.CHOICE else isinstance(value, str)
        text = item.get("description") if isinstance(item, dict) else None
        if not fits or value == "" or not isinstance(text, str | None):
            raise invalid(f"'{place}[{number}]' must be an object with a {key} and perhaps a description",
                          f"{place}[{number}]")
        values.append(value)  # type: ignore[arg-type]
        texts.append(text)
    if len({(type(value), value) for value in values}) != len(values):
        raise invalid(f"'{place}' has the same {key} twice; each must be there once", place)
    if kind is Kind.SCORE:
        return kind, [f"{value}: {text}" if text else value for value, text in zip(values, texts, strict=True)], \
            tuple(values)
    criteria: dict[str, str | None] = {}
    for value, text in zip(values, texts, strict=True):
        option = value if isinstance(value, str) else str(value).lower()
        while option in criteria:  # the boolean true beside the text "true"
            option += "'"
        criteria[option] = text
    return kind, criteria, tuple(values)


def _instructions(value: Any, where: str) -> Any:
    if isinstance(value, str) and value:
        return value
    if isinstance(value, list) and value:
        return _parts(value, f"{where}.instructions")
    raise invalid(f"'{where}.instructions' is missing: say what is asked", f"{where}.instructions")


def _state(value: Any) -> Any:
    """OpenAI's *input*: a text stays one, so does a single user's message of text; else what was said, in order."""
    if isinstance(value, str):
        return value
    if not isinstance(value, list) or not value:
        raise invalid("'input' must be a string or a list of messages", "input")
    items = [_item(item, f"input[{index}]") for index, item in enumerate(value)]
    if len(items) == 1 and items[0].get("role") == "user":
        return items[0]["content"]
    return items


def _item(item: Any, where: str) -> Body:
    if not isinstance(item, dict):
        raise invalid(f"'{where}' must be an object", where)
    kind = item.get("type", "message")
    if kind == "message" and isinstance(item.get("role"), str):
        content = item.get("content")
        if not isinstance(content, str):
            if not isinstance(content, list):
                raise invalid(f"'{where}.content' must be a string or a list of parts", f"{where}.content")
            content = _parts(content, f"{where}.content")
        return {"role": item["role"], "content": content}
    if kind in ("function_call", "custom_tool_call"):
        field = "arguments" if kind == "function_call" else "input"
        return {"type": kind, "name": item.get("name"), field: item.get(field), "call_id": item.get("call_id")}
    if kind in ("function_call_output", "custom_tool_call_output"):
        output = item.get("output")
        output = _parts(output, f"{where}.output") if isinstance(output, list) else output
        return {"type": kind, "output": output, "call_id": item.get("call_id")}
    raise invalid(f"'{where}' is neither a message nor a tool call or its output", where)


def _parts(parts: list[Any], where: str) -> Any:
    """The texts and JSON of *parts*: one text where there is nothing but text."""
    found: list[Any] = []
    for index, part in enumerate(parts):
        kind = part.get("type") if isinstance(part, dict) else None
        place = f"{where}[{index}]"
        if kind in ("input_text", "output_text") and isinstance(part.get("text"), str):
            found.append(part["text"])
        elif kind == "refusal" and isinstance(part.get("refusal"), str):
            found.append(part["refusal"])
        elif kind == "input_json" and isinstance(part.get("data"), dict | list):
            found.append(part["data"])
        elif kind == "input_image":
            raise invalid(f"'{place}' is an image; decisions here are about text. A model that sees can be asked at "
                          f"{SYSTEMONE}, in its server's own form", place)
        else:
            raise invalid(f"'{place}' must be an input_text or input_json", place)
    if all(isinstance(item, str) for item in found):
        return "\n".join(found)
    return found[0] if len(found) == 1 else found


def _answer(item: Asked, answer: Answer | None) -> Body:
    if answer is None:
        return {"type": "refusal", "name": item.name}
    if answer.kind is Kind.NOUL:
        return {"type": "predicate", "name": item.name, "probability": answer.yes}
    given = zip(item.values, item.question.options, strict=True)
    if answer.kind is Kind.CHOICE:
        listed = [{"value": value, "probability": answer.probabilities[option]} for value, option in given]
        choice = item.values[item.question.options.index(answer.choice)]
        return {"type": "choice", "name": item.name, "choice": choice, "confidence": answer.confidence,
                "probabilities": listed}
    listed = [{"label": value, "value": int(option), "probability": answer.probabilities[option]}
              for value, option in given]
    return {"type": "score", "name": item.name, "score": answer.score, "confidence": answer.confidence,
            "probabilities": listed}


def _usage(given: Any) -> Body:
    counts = {name: value if isinstance(value := given.get(name) if isinstance(given, dict) else 0, int) else 0
              for name in ("input_tokens", "output_tokens")}
    return {**counts, **_NO_DETAILS, "total_tokens": sum(counts.values())}


# -- errors -----------------------------------------------------------------------------------------------------------

def systemone_refusal(error: HttpError) -> HttpAnswer:
    """A refusal at System One's route: 422 and the place for a body that is wrong in itself."""
    answer = refusal(error)
    if error.status == 400 and error.param is not None:
        place: list[str] = ["body", *error.param.split(".")]
        detail: Any = [{"type": "value_error", "loc": place, "msg": error.message}]
        return HttpAnswer(422, _with_detail(answer.body, detail), answer.headers)
    return HttpAnswer(answer.status, _with_detail(answer.body, error.message), answer.headers)


def systemone_failure(error: CallError) -> HttpAnswer:
    """Work that failed, at System One's route; the model server's own error keeps its status and what it said."""
    answer = failure(error)
    return HttpAnswer(answer.status, _with_detail(answer.body, error.message), answer.headers)


def decisions_failure(error: CallError) -> HttpAnswer:
    """Work that failed, at OpenAI's route: a model server's own error in OpenAI's envelope, 400 where it says 422."""
    answer = failure(error)
    status = 400 if answer.status == 422 else answer.status
    body = json.loads(answer.body)
    said = body.get("error") if isinstance(body, dict) else None
    if isinstance(said, dict) and {"message", "type", "param", "code"} <= said.keys() and status == answer.status:
        return answer
    return HttpAnswer(status, envelope(status, error.message, str(error.code)), answer.headers)


def _with_detail(data: bytes, detail: Any) -> bytes:
    body: Mapping[str, Any] = json.loads(data)
    return data if "detail" in body else json.dumps({"detail": detail, **body}).encode()
