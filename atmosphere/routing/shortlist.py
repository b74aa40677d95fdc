"""A shortlist as one typed question to a decision model, and what of the answer is believed. Pure.

What cards say of themselves was written by other nodes: it is shortened, on one line, and can do no more than claim
that its card fits.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from atmosphere.capabilities.card import Card
from atmosphere.capabilities.decisions import Answer, AnswerError, read_answers, read_questions
from atmosphere.routing.decision import Candidate
from protocols.call.errors import CallError, Code

SHORTLIST = 5            # cards in a question: the right one is among the router's first five far more often than not
MAX_TEXT = 2000          # characters of the intent
MAX_DESCRIPTION = 240
MAX_EXAMPLES = 3
MAX_EXAMPLE = 80
NONE = "none"
WHICH = "which"
LARGE = "large"

_INSTRUCTIONS = "Which of these capabilities should handle the request? Choose none if none of them can."
_NONE_MEANS = "none of these capabilities can handle the request"
_LARGE: Mapping[str, object] = {
    "type": "noul",
    "instructions": "Does a good answer to the request need a large, capable language model rather than a small one?",
    "criteria": {
        "true": "several steps of reasoning, expert knowledge, analysis, design, or long and careful writing or code",
        "false": "small talk, a single fact, simple arithmetic, a short translation, correction or rewrite",
    },
}
_SPACE = re.compile(r"[\s\x00-\x1f\x7f]+")


@dataclass(frozen=True, slots=True)
class Verdict:
    """An answer that could be true."""

    which: Answer | None
    """None: the model declined to choose."""
    large: float | None
    """The probability that a large model is needed; None: that was not asked."""


def shortlist(candidates: Sequence[Candidate]) -> dict[bytes, Card]:
    """The first cards of a ranking."""
    found: dict[bytes, Card] = {}
    for candidate in candidates:
        if candidate.card_id not in found:
            if len(found) == SHORTLIST:
                break
            found[candidate.card_id] = candidate.card
    return found


def question(text: str, cards: Mapping[bytes, Card], *, sizes: bool = False) -> dict[str, object]:
    """The body of the request. Options are in the order of the cards' ids: the router's own order is no hint."""
    criteria: dict[str, str] = {option: describe(cards[card]) for option, card in options(cards).items()}
    criteria[NONE] = _NONE_MEANS
    which = {"type": "choice", "instructions": _INSTRUCTIONS, "criteria": criteria}
    questions = {WHICH: which, LARGE: dict(_LARGE)} if sizes else {WHICH: which}
    return {"state": {"request": text[:MAX_TEXT]}, "questions": questions}


def describe(card: Card) -> str:
    """A card in one short line."""
    parts = [f"{name(card)}: {_line(card.description, MAX_DESCRIPTION)}"]
    if card.topics:
        parts.append("about " + _line(", ".join(card.topics), MAX_DESCRIPTION))
    if card.examples:
        parts.append("for example " + " | ".join(_line(text, MAX_EXAMPLE) for text in card.examples[:MAX_EXAMPLES]))
    return "; ".join(parts)


def name(card: Card) -> str:
    """For people, and at the beginning of its description."""
    return _line(f"{card.type} {card.model}".strip(), MAX_EXAMPLE)


def _line(text: str, limit: int) -> str:
    text = _SPACE.sub(" ", text[: 4 * limit]).strip()
    return text if len(text) <= limit else text[: limit - 1] + "…"


def options(cards: Mapping[bytes, Card]) -> dict[str, bytes]:
    """The options of the question, and which card each is."""
    return {f"c{number}": card for number, card in enumerate(sorted(cards), 1)}


def believed(body: dict[str, object], data: bytes) -> Verdict:
    """What *data* answers to the question *body*. Raises CallError (backend) for what cannot be true.

    Adapters check answers too, but the adapter may be another node's.
    """
    try:
        answers = read_answers(read_questions(body), data)
    except AnswerError as error:
        raise CallError(Code.BACKEND, f"the decision model's answer cannot be believed: {error}") from None
    large = answers.get(LARGE)
    return Verdict(answers.get(WHICH), None if large is None else large.yes)
