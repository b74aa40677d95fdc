"""Where the constants of the router's matcher come from: ``python -m tests.benchmarks.fit_routing [--weights]``.

Everything is read off one set of our own (``data/routing``, see its README) and off nothing else, so that what is then
measured on other people's sets says how the router does on questions that nobody saw while choosing.

Without an option: the constants of the probabilities (``atmosphere/routing/calibration.py``), by logistic regression
on what the matcher itself says, with 0, 5 and 10 examples per card (each counts the same) and three drawings each. In
every drawing a quarter of the cards is taken away and their queries are nobody's; with those that are nobody's anyway,
two of three queries have a card. For ``SOMEBODY`` both sides count the same, whatever their number: nobody knows what
share of a mesh's intents it can serve, so .5 shall mean that the evidence speaks for neither. The figures under the
constants are cross-validated: every domain (or capability, where it names none) is judged by constants that were
fitted on the others.

With ``--weights``: top-1 with each weight of the matcher (``atmosphere/routing/matching.py``) changed, one at a time,
with the cards as they are and with their names alone. All queries that have a card and are no examples are asked; no
card is taken away. Takes minutes.
"""

from __future__ import annotations

import argparse
import math
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from atmosphere.embedding import Embedder, MiniLM
from atmosphere.routing import matching
from atmosphere.routing.calibration import Evidence
from tests.benchmarks import routing
from tests.benchmarks.routing import Capability, FileError, Floats, Query, Vectors

DATA = Path(__file__).parent / "data" / "routing"
SHOTS = (0, 5, 10)
SEEDS = (1, 2, 3)
AWAY = 0.25
"""Of the cards, in each drawing."""
STEPS = 25
"""Of Newton's method, which needs less than ten here."""
PENALTY = 1e-3
"""On the squares, so that a column of zeroes has an answer: far below what 20,000 queries say."""

Bools = npt.NDArray[np.bool_]

FEATURES: dict[str, dict[str, Callable[[Evidence], float]]] = {
    "SOMEBODY": {
        "FIT": lambda seen: seen.fit,
        "SHARED": lambda seen: seen.shared * math.log1p(seen.phrases),
        "PHRASES": lambda seen: math.log1p(seen.phrases),
        "": lambda _: 1.0,
    },
    "RIGHT": {
        "FIT": lambda seen: seen.fit,
        "MARGIN": lambda seen: seen.margin,
        "SHARED": lambda seen: seen.shared * math.log1p(seen.phrases),
        "PHRASES": lambda seen: math.log1p(seen.phrases),
        "": lambda _: 1.0,
    },
}
"""By the names that the constants have in calibration.py; the empty name is the constant term."""

GRID: dict[str, tuple[float, ...]] = {
    "LEXICAL_WEIGHT": (0.0, 0.0025, 0.0075, 0.01),
    "CONTRAST_WEIGHT": (0.0, 0.2, 0.6, 0.8),
    "SUBJECT_WEIGHT": (1.0, 1.5, 2.0, 3.0, 4.0),
    "SHORTLIST": (4, 16, 24),
    "RIDGE": (0.1, 0.2, 0.5, 1.0),
}


@dataclass(frozen=True)
class Asked:
    """One query, and what the matcher said."""

    seen: Evidence
    shots: int
    domain: str
    somebody: bool
    """Whether the card of this query was there."""
    right: bool
    """Whether it was the best one."""


def read(folder: Path) -> tuple[list[Capability], list[Query], dict[str, str]]:
    """The capabilities, the queries, and the domain of each capability and of queries that no capability is for."""
    notes: list[str] = []
    capabilities = routing.read_capabilities(str(folder / "caps.jsonl"), notes)
    queries = routing.read_queries(str(folder / "queries.jsonl"), {capability.id for capability in capabilities}, notes)
    domains = {}
    for name, key in (("caps.jsonl", "id"), ("queries.jsonl", "q")):
        for _, row in routing.read_lines(str(folder / name)):
            domains[str(row.get(key))] = str(row.get("domain", ""))
    return capabilities, queries, domains


def ask(
    capabilities: Sequence[Capability], queries: Sequence[Query], domains: dict[str, str], embedder: Embedder,
    shots: int, seed: int,
) -> list[Asked]:
    """One drawing of examples and of the cards that are taken away."""
    cards, taken = routing.draw(capabilities, queries, shots, seed)
    chance = random.Random(seed)
    kept = sorted(chance.sample(range(len(cards)), round(len(cards) * (1 - AWAY))))
    matcher, ids = routing.ready([cards[index] for index in kept], embedder)
    key_of = {capabilities[index].id: key for index, key in zip(kept, ids, strict=True)}
    asked = [query for index, query in enumerate(queries) if index not in taken]
    found = []
    for query, vector in zip(asked, routing.embed(embedder, [query.text for query in asked]), strict=True):
        matches = matcher.match(vector, query.text)
        if matches.evidence is None:
            continue
        key = key_of.get(query.cap) if query.cap is not None else None
        domain = domains.get(query.text if query.cap is None else query.cap, "") or query.cap or ""
        found.append(Asked(matches.evidence, shots, domain, key is not None, matches.best[0].card == key))
    return found


def columns(asked: Sequence[Asked], name: str) -> Floats:
    """The features, shape (queries, features)."""
    return np.array([[feature(one.seen) for feature in FEATURES[name].values()] for one in asked], dtype=np.float64)


def fit(features: Floats, truth: Bools, weights: Floats) -> Floats:
    """Logistic regression by Newton's method: one constant per column of *features*."""
    constants = np.zeros(features.shape[1])
    for _ in range(STEPS):
        chance = 1 / (1 + np.exp(-features @ constants))
        slope = features.T @ (weights * (truth - chance)) - PENALTY * constants
        bend = (features * (weights * chance * (1 - chance))[:, None]).T @ features
        constants += np.linalg.solve(bend + PENALTY * np.eye(len(constants)), slope)
    return constants


def cross_validated(features: Floats, truth: Bools, weights: Floats, domains: npt.NDArray[np.str_]) -> Floats:
    """The probability of each row, by constants fitted on all other domains."""
    result = np.zeros(len(truth))
    for domain in sorted(set(domains.tolist())):
        here = domains == domain
        constants = fit(features[~here], truth[~here], weights[~here])
        result[here] = 1 / (1 + np.exp(-features[here] @ constants))
    return result


def probabilities(embedder: Embedder, folder: Path) -> None:
    """Fit and print the constants of the probabilities, and how good they are."""
    capabilities, queries, domains = read(folder)
    asked = [
        one for shots in SHOTS for seed in SEEDS for one in ask(capabilities, queries, domains, embedder, shots, seed)
    ]
    shots = np.array([one.shots for one in asked])
    counts = Counter(one.shots for one in asked)
    sides = Counter((one.shots, one.somebody) for one in asked)
    shares = {
        "SOMEBODY": np.array([1 / sides[one.shots, one.somebody] for one in asked]) * len(asked) / len(sides),
        "RIGHT": np.array([1 / counts[one.shots] for one in asked]) * len(asked) / len(counts),
    }
    where = np.array([one.domain for one in asked])
    chances = {}
    for name, named in FEATURES.items():
        truth = np.array([one.somebody if name == "SOMEBODY" else one.right for one in asked])
        features = columns(asked, name)
        constants = fit(features, truth, shares[name])
        chances[name] = cross_validated(features, truth, shares[name], where)
        print(", ".join(f"{name}_{each}" if each else name for each in named), "=",
              ", ".join(f"{value:.2f}" for value in constants))
    somebody, right = (np.array([getattr(one, each) for one in asked]) for each in ("somebody", "right"))
    for each in sorted(counts):
        here = shots == each
        sure, able = chances["RIGHT"][here], chances["SOMEBODY"][here]
        print(f"{each:2} examples, {counts[each]} queries: AUROC of somebody "
              f"{routing.auroc(able[somebody[here]], able[~somebody[here]]) or 0:.3f}, of right "
              f"{routing.auroc(sure[right[here]], sure[~right[here]]) or 0:.3f}; coverage at 95 % precision "
              f"{100 * (routing.coverage(sure, right[here]) or 0):.1f} %; mean probability that the pick is "
              f"right minus share: {sure.mean() - right[here].mean():+.3f}; somebody below .5: "
              f"{100 * (able[somebody[here]] < 0.5).mean():.0f} % in scope, "
              f"{100 * (able[~somebody[here]] < 0.5).mean():.0f} % out of scope")


@contextmanager
def weight(name: str, value: float) -> Iterator[None]:
    """The matcher with another value of one of its constants."""
    before = getattr(matching, name)
    setattr(matching, name, value)
    try:
        yield
    finally:
        setattr(matching, name, before)


def top1(capabilities: Sequence[Capability], queries: Sequence[Query], embedder: Embedder, vectors: Vectors) -> Floats:
    """Percent of the queries that were matched rightly, for each of SHOTS; *vectors* are those of *queries*."""
    place_of = {capability.id: place for place, capability in enumerate(capabilities)}
    means = []
    for shots in SHOTS:
        found = []
        for seed in SEEDS if shots else SEEDS[:1]:  # nothing is drawn without examples
            cards, taken = routing.draw(capabilities, queries, shots, seed)
            matcher, ids = routing.ready(cards, embedder)
            rows = np.array([matcher.rows[key] for key in ids])
            found += [
                routing.place(matcher.match(vectors[index], query.text).fits[rows], place_of[query.cap]) == 0
                for index, query in enumerate(queries) if index not in taken and query.cap is not None
            ]
        means.append(100 * float(np.mean(found)))
    return np.array(means)


class Remembered(Embedder):
    """An embedder that embeds each text once: the same ones are asked for in every drawing, and with every weight."""

    def __init__(self, embedder: Embedder) -> None:
        self.space, self.max_tokens = embedder.space, embedder.max_tokens
        self._embedder = embedder
        self._known: dict[str, Vectors] = {}

    def embed(self, texts: Sequence[str]) -> Vectors:
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        self._known.update(zip(new, self._embedder.embed(new), strict=True))
        known = [self._known[text] for text in texts]
        return np.array(known, dtype=np.float32).reshape(len(texts), self.space.dimensions)

    def count_tokens(self, text: str) -> int:
        return self._embedder.count_tokens(text)


def weights(embedder: Embedder, folder: Path) -> None:
    """Print top-1 with every weight changed."""
    described, queries, _ = read(folder)
    vectors = embedder.embed([query.text for query in queries])
    named = [
        replace(each, card=replace(each.card, description=each.card.description.split(":")[0], topics=()))
        for each in described
    ]
    for said, capabilities in (("cards as they are", described), ("names alone", named)):
        base = top1(capabilities, queries, embedder, vectors)
        print(f"{said}, top-1 with {', '.join(map(str, SHOTS))} examples: {base.round(1)} %, mean {base.mean():.2f}")
        for name, values in GRID.items():
            for value in values:
                with weight(name, value):
                    changed = top1(capabilities, queries, embedder, vectors) - base
                print(f"{name} {getattr(matching, name)} -> {value}: {changed.round(2)}, mean {changed.mean():+.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", action="store_true", help="top-1 with other weights of the matcher")
    parser.add_argument("--data", type=Path, default=DATA, metavar="FOLDER", help="caps.jsonl and queries.jsonl (ours)")
    options = parser.parse_args()
    try:
        (weights if options.weights else probabilities)(Remembered(MiniLM.load()), options.data)
    except FileError as error:
        raise SystemExit(f"error: {error}") from None


if __name__ == "__main__":
    main()
