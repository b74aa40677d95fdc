"""Stands in for a server of decision models: llama.cpp's llama-server or transformers serve.

Follows System One's wire (``POST /v1/systemone``, the API reference of TypeSafe's Jev, which both servers implement):
what a request must be, what answers look like, how confidences are computed, and how each server refuses (llama.cpp:
422 with its error object, 501 before it reads the request when the model is none for decisions; transformers: 422 and
400 with ``{"detail": ...}``, fields that it does not know are refused). It has no model: an option is the more probable
the more words its name and description share with the state, a yes the more words of the instructions are in it.

    python -m tests.backends.decision_server --port P --model NAME --flavour llamacpp|transformers --delay-ms N

``lie`` makes it answer what cannot be true, ``hang`` never; ``decides = False`` makes it a server without such a model.
"""

from __future__ import annotations

import argparse
import json
import math
import re
from dataclasses import dataclass, field
from typing import Any

import trio

from tests.backends.http_server import Log, Reply, Request, note, run

LIES = {
    "stranger": {"type": "choice", "choice": "moon", "confidence": 0.9, "probabilities": {"moon": 1.0}},
    "unlisted": {"type": "choice", "choice": "moon", "confidence": 0.9, "probabilities": {"c1": 1.0}},
    "sum": {"type": "choice", "choice": "c1", "confidence": 0.9, "probabilities": {"c1": 0.9, "c2": 0.9}},
    "beyond": {"type": "choice", "choice": "c2", "confidence": 0.9, "probabilities": {"c1": -0.5, "c2": 1.5}},
    "not the top": {"type": "choice", "choice": "c1", "confidence": 0.9, "probabilities": {"c1": 0.2, "c2": 0.8}},
    "texts": {"type": "choice", "choice": "c1", "confidence": "high", "probabilities": {"c1": "1"}},
    "a list": {"type": "choice", "choice": ["c1"], "confidence": 1, "probabilities": {"c1": 1}},
    "another type": {"type": "noul", "noul": 0.9},
    "prose": "I would choose c1.",
    "nan": {"type": "choice", "choice": "c1", "confidence": math.nan, "probabilities": {"c1": math.nan}},
}
"""Answers to a question with the options c1, c2 ... that cannot be true."""


@dataclass
class DecisionServer:
    """The handler; its fields may be changed while it runs."""

    model: str = "laya"
    flavour: str = "llamacpp"
    decides: bool = True
    delay_s: float = 0.0
    lie: str = ""
    hang: bool = False
    status: int = 0
    """Answer every question with this error."""
    temperature: float = 0.5
    prefers: str = ""
    """Always choose the option that has this word in its name or description, with a probability of *sure*."""
    sure: float = 0.9
    yes: float | None = None
    """Answer every yes-or-no question so."""
    others: tuple[str, ...] = ()
    """More models in the list."""
    extra: dict[str, Any] = field(default_factory=dict)
    """More fields of the models' entries."""

    async def __call__(self, request: Request, reply: Reply, log: Log) -> None:
        if (request.method, request.path) == ("GET", "/v1/models"):
            log.polls += 1
            owner = "llamacpp" if self.flavour == "llamacpp" else "hf"
            data = [{"id": name, "object": "model", "created": 1700000000, "owned_by": owner} | self.extra
                    for name in (self.model, *self.others)]
            await reply.json({"object": "list", "data": data})
        elif (request.method, request.path) == ("POST", "/v1/systemone") and self.flavour != "none":
            note(log, request)
            await self._decide(request.json(), reply)
        else:
            log.polls += 1
            await reply.json(self._error(404, "not found"), 404)

    async def _decide(self, body: Any, reply: Reply) -> None:
        if not self.decides and self.flavour == "llamacpp":
            await reply.json(self._error(501, "This model is not a decision model"), 501)
            return
        problem = complaint(body, strict=self.flavour == "transformers")
        if problem:
            await reply.json(self._error(422, problem), 422)
            return
        if not self.decides:
            await reply.json(self._error(400, "The labels ['Yes', 'No'] are not distinct single tokens"), 400)
            return
        if self.hang:
            await trio.sleep_forever()
        await trio.sleep(self.delay_s)
        if self.status:
            await reply.json(self._error(self.status, f"asked for {self.status}"), self.status)
            return
        answers = {name: self.answer(body["state"], question) for name, question in body["questions"].items()}
        if self.lie == "unasked":
            answers["another"] = {"type": "noul", "noul": 0.5}
        elif self.lie:
            answers = dict.fromkeys(answers, LIES[self.lie])
        usage = {"input_tokens": len(json.dumps(body).split()), "output_tokens": 0}
        await reply.json({"model": self.model, "answers": answers, "usage": usage})

    def answer(self, state: Any, question: dict[str, Any]) -> dict[str, Any]:
        said, criteria = words(state), question.get("criteria")
        if question["type"] == "noul":
            asked = words(question["instructions"])
            return {"type": "noul", "noul": len(asked & said) / len(asked) if self.yes is None else self.yes}
        if question["type"] == "choice":
            shared = {option: len(words([option, text]) & said) for option, text in criteria.items()}
            probabilities = softmax(shared, self.temperature)
            liked = [option for option, text in criteria.items() if self.prefers in words([option, text])]
            if liked:
                rest = (1 - self.sure) / max(len(criteria) - 1, 1)
                probabilities = {option: self.sure if option == liked[0] else rest for option in criteria}
            best = max(probabilities, key=lambda option: probabilities[option])
            many = len(probabilities)
            confidence = 1.0 if many == 1 else max(0.0, (probabilities[best] - 1 / many) / (1 - 1 / many))
            return {"type": "choice", "choice": best, "probabilities": probabilities, "confidence": confidence}
        shared = {str(level): len(words(text) & said) for level, text in enumerate(criteria)}
        probabilities = softmax(shared, self.temperature)
        mode = max(range(len(criteria)), key=lambda level: probabilities[str(level)])
        distance = sum(p * abs(int(level) - mode) for level, p in probabilities.items())
        uniform = sum(abs(level - (len(criteria) - 1) / 2) for level in range(len(criteria))) / len(criteria)
        return {
            "type": "score", "score": sum(int(level) * p for level, p in probabilities.items()),
            "legend": {str(level): text for level, text in enumerate(criteria)},
            "probabilities": probabilities, "confidence": max(0.0, 1 - distance / uniform),
        }

    def _error(self, status: int, message: str) -> dict[str, Any]:
        if self.flavour == "transformers":
            return {"detail": message}
        kinds = {422: "unprocessable_entity_error", 501: "not_supported_error", 404: "not_found_error",
                 429: "rate_limit_error"}
        return {"error": {"code": status, "message": message, "type": kinds.get(status, "server_error")}}


def complaint(body: Any, *, strict: bool) -> str:
    """What is wrong with a request; empty when nothing is."""
    if not isinstance(body, dict) or not isinstance(body.get("state"), str | dict | list):
        return "state: field required"
    if strict and (unknown := body.keys() - {"model", "state", "questions", "assets"}):
        return f"extra inputs are not permitted: {sorted(unknown)}"
    questions = body.get("questions")
    if not isinstance(questions, dict) or not questions:
        return "questions: at least one question"
    if strict and len(questions) > 64:
        return "questions: at most 64"
    for name, question in questions.items():
        kind, criteria = question.get("type"), question.get("criteria")
        if kind not in ("choice", "score", "noul"):
            return f"{name}: unknown type {kind!r}"
        if not question.get("instructions"):
            return f"{name}: instructions must carry content"
        if kind == "choice" and (not isinstance(criteria, dict) or not 1 <= len(criteria) <= (26 if strict else 255)):
            return f"{name}: a choice needs criteria with its options"
        if kind == "score" and (not isinstance(criteria, list) or not 2 <= len(criteria) <= 10):
            return f"{name}: a score needs 2 to 10 levels"
    return ""


def words(value: Any) -> set[str]:
    return set(re.findall(r"[a-z0-9]{3,}", json.dumps(value).lower()))


def softmax(scores: dict[str, int], temperature: float) -> dict[str, float]:
    weights = {name: math.exp(score / temperature) for name, score in scores.items()}
    return {name: weight / sum(weights.values()) for name, weight in weights.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="laya")
    parser.add_argument("--flavour", default="llamacpp", choices=("llamacpp", "transformers"))
    parser.add_argument("--delay-ms", type=float, default=0)
    run(lambda o: DecisionServer(o.model, o.flavour, delay_s=o.delay_ms / 1000), parser)


if __name__ == "__main__":
    main()
