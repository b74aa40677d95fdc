"""What doubt and lessons are worth, on labelled intents: ``python -m tests.benchmarks.learning --caps F --queries F``.

Files and options are those of ``tests.benchmarks.routing``, and so is the matcher: the product's own.

Doubt: a decision model is asked about the intents whose pick is less probable than ``decision_below``. For several such
thresholds: how many of all intents are asked about; how many of these were picked wrongly; how many of all wrong picks
are among them; and of the questions that come in addition to those of the line above, how many are about a wrong pick.
An intent that no capability is right for is picked wrongly by any pick.

Lessons: half of the intents in scope, drawn by ``--seed``, are routed, and people say which picks were wrong, which
capability would have been right (``instead``), and which picks were right (``good``). Then the other half is routed,
and once more what had gone wrong. In parentheses: about how many of the first half somebody says something.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from atmosphere.embedding import MiniLM
from atmosphere.routing.lessons import SURE, Lessons
from atmosphere.routing.matching import CardVectors
from tests.benchmarks.routing import (
    FileError,
    Vectors,
    arguments,
    coverage,
    embed,
    load,
    ready,
)
from tests.mesh.people import OTHER

THRESHOLDS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
SHARES = (0.1, 1.0)
KINDS = ("bad", "bad, instead", "bad, instead, good")

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Asked:
    """Intents with their answers."""

    texts: Sequence[str]
    vectors: Vectors
    answers: Sequence[bytes | None]
    """The right card; None: no card is."""

    def part(self, indices: Sequence[int]) -> Asked:
        return Asked([self.texts[i] for i in indices], self.vectors[indices], [self.answers[i] for i in indices])


@dataclass(frozen=True)
class Picked:
    """What the matcher made of them."""

    cards: Sequence[bytes]
    sure: npt.NDArray[np.float64]
    """The probability that each pick is right."""
    right: Bools


def pick(matcher: CardVectors, asked: Asked) -> Picked:
    found = [matcher.match(vector, text) for vector, text in zip(asked.vectors, asked.texts, strict=True)]
    cards = [matches.best[0].card for matches in found]
    right = [card == answer for card, answer in zip(cards, asked.answers, strict=True)]
    return Picked(cards, np.array([matches.right for matches in found]), np.array(right, dtype=np.bool_))


def doubts(picked: Picked) -> list[str]:
    """A line per threshold."""
    wrong, lines, before = ~picked.right, [], np.zeros(len(picked.right), dtype=np.bool_)
    for threshold in THRESHOLDS:
        asked = picked.sure < threshold
        lines.append(
            f"below {threshold:.1f}: asked {_share(asked):5.1f} %   wrong among them {_share(wrong[asked]):5.1f} %   "
            f"of all wrong {_share(asked[wrong]):5.1f} %   "
            f"wrong among those added {_share(wrong[asked & ~before]):5.1f} %"
        )
        before = asked
    return lines


def taught(matcher: CardVectors, asked: Asked, kind: str, share: float, seed: int) -> None:
    """Route *asked* without lessons, and give the matcher those that people would."""
    matcher.lessons = Lessons()
    picked, chance = pick(matcher, asked), random.Random(seed)
    for index, card in enumerate(picked.cards):
        if chance.random() >= share:
            continue
        answer, vector = asked.answers[index], asked.vectors[index]
        if picked.right[index]:
            if "good" in kind and picked.sure[index] < SURE:
                matcher.lessons.teach(OTHER, card, vector, good=True)
            continue
        matcher.lessons.teach(OTHER, card, vector, good=False)
        if "instead" in kind and answer is not None:
            matcher.lessons.teach(OTHER, answer, vector, good=True)


def lessons(matcher: CardVectors, asked: Asked, seed: int) -> list[str]:
    """A line per kind and share of what is said."""
    inside = [index for index, answer in enumerate(asked.answers) if answer is not None]
    random.Random(seed).shuffle(inside)
    told, other = asked.part(inside[::2]), asked.part(inside[1::2])
    before, alone = pick(matcher, told), pick(matcher, other)
    again = told.part(np.flatnonzero(~before.right).tolist())
    first = [card for card, right in zip(before.cards, before.right, strict=True) if not right]
    lines = [_line("nothing said", matcher, alone)]
    for share in SHARES:
        for kind in KINDS:
            taught(matcher, told, kind, share, seed)
            line = _line(f"{kind} ({share:.0%})", matcher, pick(matcher, other))
            if share == 1.0 and first:
                now = pick(matcher, again)
                moved = np.array([card != old for card, old in zip(now.cards, first, strict=True)])
                line += f"   the same again: elsewhere {_share(moved):.0f} %, right {_share(now.right):.0f} %"
            lines.append(line)
    matcher.lessons = Lessons()
    return lines


def _line(name: str, matcher: CardVectors, picked: Picked) -> str:
    covered = coverage(picked.sure, picked.right) or 0.0
    return (f"{name:<26} {len(matcher.lessons):5d} lessons   top-1 {_share(picked.right):5.1f} %   "
            f"coverage at 95 % {covered * 100:5.1f} %")


def _share(values: Bools) -> float:
    return float(values.mean()) * 100 if len(values) else 0.0


def run(options: argparse.Namespace) -> None:
    cards, chosen, places = load(options, [])
    embedder = MiniLM.load()
    matcher, ids = ready(cards, embedder)
    texts = [query.text for query in chosen]
    answers = [None if place is None else ids[place] for place in places]
    asked = Asked(texts, embed(embedder, texts), answers)
    picked = pick(matcher, asked)
    print(f"{len(cards)} capabilities, {options.shots} examples each; {len(texts)} intents, {answers.count(None)} of "
          f"them out of scope; {_share(~picked.right):.1f} % picked wrongly")
    for line in (*doubts(picked), *lessons(matcher, asked, options.seed)):
        print(line)


def main() -> None:
    try:
        run(arguments(__doc__, 5).parse_args())
    except FileError as error:
        raise SystemExit(f"error: {error}") from None


if __name__ == "__main__":
    main()
