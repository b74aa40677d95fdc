"""Typed questions of clients, in both wires, and what a decision model says: read, refused, or not believed."""

from __future__ import annotations

from tests.fuzz.runner import fuzz, instrumented

with instrumented():
    from atmosphere.capabilities.decisions import AnswerError, QuestionError, read_answers, read_questions
    from atmosphere.http.decisions import translate
    from atmosphere.http.errors import HttpError
    from atmosphere.http.requests import parse_body

CHOICE = b'{"type": "choice", "instructions": "?", "criteria": {"a": "one", "b": null}}'
ASKED = b'{"state": "x", "questions": {"n": {"type": "noul", "instructions": "?"}, "c": %b, "s": {"type": "score", ' \
        b'"instructions": ["?"], "criteria": ["l", "h"]}}}' % CHOICE
OPENAI = b'{"input": [{"role": "user", "content": [{"type": "input_text", "text": "x"}, {"type": "input_json", ' \
         b'"data": {}}]}], "questions": [{"type": "choice", "name": "a", "instructions": "?", "choices": ' \
         b'[{"value": true}, {"value": "true", "description": "d"}]}, {"type": "predicate", "instructions": "?"}, ' \
         b'{"type": "score", "instructions": "?", "levels": [{"label": "l"}, {"label": "h"}]}]}'
SAID = b'{"model": "m", "answers": {"n": {"type": "noul", "noul": 0.5}, "c": {"type": "choice", "choice": "a", ' \
       b'"confidence": 0.2, "probabilities": {"a": 0.6, "b": 0.4}}, "s": {"type": "score", "score": 0.5, ' \
       b'"confidence": 0, "probabilities": {"0": 0.5, "1": 0.5}}}, "usage": {"input_tokens": 3}}'
QUESTIONS = read_questions(parse_body(ASKED))
TRANSLATION = translate(parse_body(OPENAI))


def target(data: bytes) -> None:
    """First byte: 0 a request in System One's form, 1 in OpenAI's, 2 an answer."""
    way, rest = data[0] % 3 if data else 0, data[1:]
    if way == 0:
        assert read_questions(parse_body(rest))
    elif way == 1:
        translation = translate(parse_body(rest))
        assert len(read_questions(translation.body)) == len(translation.asked)
    else:
        for answer in read_answers(QUESTIONS, rest).values():
            assert 0 <= answer.yes <= 1
            assert 0 <= answer.confidence <= 1
            assert all(0 <= value <= 1 for value in answer.probabilities.values())
            assert answer.choice in ("", *answer.probabilities)


if __name__ == "__main__":
    seeds = [b"\0" + ASKED, b"\1" + OPENAI, b"\2" + SAID, b'\2{"answers": {}}', b'\1{"input": "x", "questions": []}']
    fuzz(target, seeds, (HttpError, QuestionError, AnswerError))
