"""The router's matcher on labelled intents: ``python -m tests.benchmarks.routing --caps FILE --queries FILE``.

Both files are JSON lines. A capability: ``id``, and where there are any ``name``, ``description``, ``topics`` and
``examples``; other fields are left alone, except ``description_for_model``, which becomes the description of a tool. A
query: ``q``, ``cap`` (the id of the capability that is right, null where none is) and ``split``.

What is measured is the product's own code: every capability becomes a card, cards and queries go through the shipped
embedder, and the matcher that the router uses ranks the cards and says how sure it is.

- ``--shots K``: K queries of the split ``train`` per capability are its card's examples, drawn by ``--seed``; where
  there are fewer, the capability's own ``examples`` follow; where there are still fewer, it has fewer.
- ``--split S``: the queries that are asked. Without it: all that are not of the split ``train``. Queries that serve as
  examples are never asked.
- ``--embedder FOLDER``: a sentence-transformers model in place of the one in the wheel, as a node's config names it.
- Top-1, top-3 and MRR are over queries that some capability is right for; ties are lost by the later line.
- AUROC: of the probability that anybody can, queries in scope against queries out of scope.
- Coverage at 95 % precision: the largest share of all queries that can be accepted, by the probability that the pick is
  right, so that 95 % of the accepted ones are picked rightly. To accept a query out of scope is an error.
- Beside it: BM25 alone, the cosine of centroids alone and, where the Python of ``.bench/venv`` (``make bench`` makes
  it) or of ``ATMOSPHERE_BENCH_PYTHON`` has it, semantic-router, in the same run.

With ``--json`` the last line is one JSON object (without semantic-router).
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from atmosphere.capabilities import card as limits
from atmosphere.capabilities.card import Card, Tool, card_id
from atmosphere.embedding import Embedder, EmbedderError, load_embedder
from atmosphere.embedding.embedder import valid
from atmosphere.routing.matching import CardVectors, card_texts, centroid
from atmosphere.routing.phrases import humanise, subject, words

PEER_PYTHON = Path(".bench/venv/bin/python")
PEER_VARIABLE = "ATMOSPHERE_BENCH_PYTHON"
PEER_SCRIPT = Path(__file__).parent / "peers" / "semantic_routes.py"
TRAIN = "train"
PRECISION = 0.95

Vectors = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]


class FileError(Exception):
    """A file that cannot be used; the message names the line and what to do."""


@dataclass(frozen=True)
class Capability:
    """One line of the capabilities."""

    id: str
    card: Card
    """Without examples."""
    examples: tuple[str, ...]


@dataclass(frozen=True)
class Query:
    """One line of the queries."""

    text: str
    cap: str | None
    split: str


@dataclass(frozen=True)
class Figures:
    """What is printed. Percentages 0..100; MRR and AUROC 0..1; None: there is nothing to measure it on."""

    top1: float | None
    top3: float | None
    mrr: float | None
    auroc_oos: float | None
    coverage_at_95: float | None
    bm25_top1: float | None
    cosine_top1: float | None
    n: int
    n_oos: int


# Reading


def read_lines(path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every object of a JSON-lines file, with where it stands. Empty lines are skipped."""
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise FileError(f"{path} cannot be read: {error.strerror}; check the path") from None
    for number, line in enumerate(content.split(b"\n"), 1):
        where = f"{path}, line {number}"
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
            if not text:
                continue
            row = json.loads(text)
        except UnicodeDecodeError as error:
            raise FileError(f"{where}: not UTF-8 ({error.reason} at byte {error.start}); convert the file") from None
        except (ValueError, RecursionError) as error:
            raise FileError(f"{where}: not JSON ({error}); every line must be one JSON object") from None
        if not isinstance(row, dict):
            raise FileError(f"{where}: a JSON {type(row).__name__}; every line must be one JSON object {{...}}")
        yield where, row


def read_capabilities(path: str, notes: list[str]) -> list[Capability]:
    """The capabilities, in the order of the file; of lines with the same id the first counts."""
    found: dict[str, Capability] = {}
    repeated = 0
    for where, row in read_lines(path):
        name = _key(row.get("id"))
        if name is None:
            raise FileError(f'{where}: no id; give the capability a text as "id", the one that queries name as "cap"')
        if name in found:
            repeated += 1
            continue
        found[name] = _capability(where, name, row)
    if not found:
        raise FileError(f'{path} holds no capability; a line is {{"id": ..., "name": ..., "description": ...}}')
    if repeated:
        notes.append(f"{repeated} capabilities repeat an id; the first line of each id counts")
    return list(found.values())


def _capability(where: str, name: str, row: dict[str, Any]) -> Capability:
    title = _text(where, row, "name") or name
    if not any(character.isspace() for character in title):
        title = humanise(title) or title
    description = _text(where, row, "description")
    model = _text(where, row, "description_for_model")
    card = Card(
        type="tool/call",
        description=_cut(f"{title}: {description}" if description else title, limits.DESCRIPTION_MAX_BYTES),
        model=_cut(name, limits.NAME_MAX_BYTES),  # two capabilities that say the same are still two
        topics=tuple(_cut(topic, limits.WORD_MAX_BYTES) for topic in _texts(where, row, "topics")[: limits.MAX_WORDS]),
        tools=(
            Tool(_cut(title, limits.TOOL_NAME_MAX_BYTES) or "tool", _cut(model, limits.DESCRIPTION_MAX_BYTES)),
        ) if model and model != description else (),
    )
    return Capability(name, card, tuple(_texts(where, row, "examples")))


def read_queries(path: str, known: set[str], notes: list[str]) -> list[Query]:
    """The queries; those for capabilities that are not *known* are left out and counted."""
    found: list[Query] = []
    unknown: dict[str, int] = defaultdict(int)
    for where, row in read_lines(path):
        text = row.get("q")
        if not isinstance(text, str):
            raise FileError(f'{where}: no text as "q"; a line is {{"q": ..., "cap": id or null, "split": ...}}')
        if "cap" not in row:
            raise FileError(f'{where}: no "cap"; name the id of the right capability, or null where none is right')
        cap = _key(row["cap"])
        if cap is None and row["cap"] is not None:
            raise FileError(f'{where}: "cap" is a JSON {type(row["cap"]).__name__}; it must be an id or null')
        if cap is not None and cap not in known:
            unknown[cap] += 1
            continue
        found.append(Query(valid(text), cap, _text(where, row, "split")))
    if unknown:
        notes.append(f"{sum(unknown.values())} queries are for {len(unknown)} capabilities that are not in the file of "
                     f"capabilities and are left out, the first {next(iter(unknown))!r}")
    return found


def _key(value: object) -> str | None:
    return valid(str(value)) if isinstance(value, (str, int, float)) and not isinstance(value, bool) else None


def _text(where: str, row: dict[str, Any], name: str) -> str:
    value = row.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise FileError(f"{where}: {name!r} is a JSON {type(value).__name__}; it must be a text or absent")
    return valid(value).strip()


def _texts(where: str, row: dict[str, Any], name: str) -> list[str]:
    value = row.get(name)
    if value is None:
        return []
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list) or not all(isinstance(item, str) for item in values):
        raise FileError(f"{where}: {name!r} must be a list of texts, or absent")
    return [text for item in values if (text := valid(item).strip())]


def _cut(text: str, size: int) -> str:
    """*text*, at most *size* bytes of it."""
    return text.encode()[:size].decode("utf-8", "ignore")


def draw(
    capabilities: Sequence[Capability], queries: Sequence[Query], shots: int, seed: int
) -> tuple[list[Card], set[int]]:
    """The cards with their examples, and the indices of the queries that were taken for that."""
    train: dict[str, list[int]] = defaultdict(list)
    for index, query in enumerate(queries):
        if query.split == TRAIN and query.cap is not None and query.text.strip():
            train[query.cap].append(index)
    chance = random.Random(seed)
    cards, taken = [], set()
    for capability in capabilities:
        indices = train[capability.id]
        drawn = chance.sample(indices, min(shots, len(indices)))
        taken.update(drawn)
        texts = [queries[index].text for index in drawn]
        texts += capability.examples[: shots - len(texts)]
        examples = tuple(_cut(text, limits.EXAMPLE_MAX_BYTES) for text in texts[: limits.MAX_EXAMPLES])
        cards.append(replace(capability.card, examples=examples))
    return cards, taken


# Measuring


def ready(cards: Sequence[Card], embedder: Embedder) -> tuple[CardVectors, list[bytes]]:
    """The matcher as a node has it that knows these cards, and the cards' ids."""
    matcher = CardVectors(embedder.space.name)
    ids = []
    for card in cards:
        key = card_id(card.encode())
        matcher.describe(key, card)
        parts = embedder.embed(card_texts(card))
        matcher.put(key, centroid(parts, len(subject(card))), parts)
        ids.append(key)
    return matcher, ids


def place(scores: npt.NDArray[np.floating[Any]], right: int) -> int:
    """The place of index *right* by *scores*, from 0; a tie is lost by the later index."""
    return int((scores > scores[right]).sum() + (scores[:right] == scores[right]).sum())


def auroc(positive: Floats, negative: Floats) -> float | None:
    """The chance that one of *positive* is above one of *negative*; a tie counts half."""
    if not len(positive) or not len(negative):
        return None
    ordered = np.sort(negative)
    below = np.searchsorted(ordered, positive, "left")
    equal = np.searchsorted(ordered, positive, "right") - below
    return float((below + 0.5 * equal).mean() / len(negative))


def coverage(confidence: Floats, right: npt.NDArray[np.bool_], precision: float = PRECISION) -> float | None:
    """The largest share that a threshold can accept with that precision. Equal confidences are accepted together."""
    if not len(confidence):
        return None
    order = np.argsort(-confidence, kind="stable")
    accepted = np.arange(1, len(order) + 1)
    good = np.cumsum(right[order]) / accepted >= precision
    last = np.append(np.diff(confidence[order]) != 0, True)
    return float(accepted[good & last].max(initial=0) / len(order))


def measure(
    matcher: CardVectors, ids: Sequence[bytes], places: Sequence[int | None], texts: Sequence[str], vectors: Vectors
) -> tuple[Figures, float]:
    """The figures, and how far the mean probability of the picks is from the share that is right.

    *places*: of each query the index of its card, None out of scope.
    """
    rows = np.array([matcher.rows[key] for key in ids])
    ours, lexical, dense = [], [], []
    somebody, sure, right = np.zeros(len(texts)), np.zeros(len(texts)), np.zeros(len(texts), dtype=np.bool_)
    for index, (text, vector, answer) in enumerate(zip(texts, vectors, places, strict=True)):
        matches = matcher.match(vector, text)
        somebody[index], sure[index] = matches.somebody, matches.right
        if answer is not None:
            ours.append(place(matches.fits[rows], answer))
            lexical.append(place(matcher.lexical(words(text))[rows], answer))
            dense.append(place(matcher.cosines(vector)[rows], answer))
            right[index] = ours[-1] == 0
    inside = np.array([answer is not None for answer in places], dtype=np.bool_)
    ranks = np.array(ours)
    figures = Figures(
        top1=_percent((ranks < 1).mean() if len(ranks) else None),
        top3=_percent((ranks < 3).mean() if len(ranks) else None),
        mrr=_rounded((1 / (ranks + 1)).mean() if len(ranks) else None),
        auroc_oos=_rounded(auroc(somebody[inside], somebody[~inside])),
        coverage_at_95=_percent(coverage(sure, right)),
        bm25_top1=_percent(np.mean([rank < 1 for rank in lexical]) if lexical else None),
        cosine_top1=_percent(np.mean([rank < 1 for rank in dense]) if dense else None),
        n=len(ranks),
        n_oos=int((~inside).sum()),
    )
    return figures, float(sure.mean() - right.mean()) if len(texts) else 0.0


def _percent(share: float | np.floating[Any] | None) -> float | None:
    return None if share is None else round(float(share) * 100, 2)


def _rounded(value: float | np.floating[Any] | None) -> float | None:
    return None if value is None else round(float(value), 4)


def embed(embedder: Embedder, texts: Sequence[str]) -> Vectors:
    """As the router embeds an intent; equal texts once."""
    different = list(dict.fromkeys(texts))
    vectors = dict(zip(different, embedder.embed(different), strict=True))
    return np.array([vectors[text] for text in texts], dtype=np.float32).reshape(len(texts), embedder.space.dimensions)


def semantic_router(
    cards: Sequence[Card], places: Sequence[int | None], vectors: Vectors, embedder: Embedder
) -> float | None:
    """Top-1 of semantic-router with its defaults and our vectors; None: not installed, or nothing to ask."""
    named = os.environ.get(PEER_VARIABLE)
    python = named or (str(PEER_PYTHON) if PEER_PYTHON.exists() else sys.executable)
    asked = [index for index, answer in enumerate(places) if answer is not None]
    if not asked or subprocess.run([python, "-c", "import semantic_router"], capture_output=True).returncode:
        return None
    examples = [(index, text) for index, card in enumerate(cards) for text in card.examples or (card.description,)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        np.save(folder / "examples.npy", embed(embedder, [text for _, text in examples]))
        np.save(folder / "queries.npy", vectors[asked])
        (folder / "routes.json").write_text(json.dumps([index for index, _ in examples]))
        done = subprocess.run([python, PEER_SCRIPT, name], capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"semantic-router failed: {done.stderr[-500:]}")
        answers = json.loads((folder / "answers.json").read_text())
    return _percent(np.mean([answers[place] == places[index] for place, index in enumerate(asked)]))


def load(options: argparse.Namespace, notes: list[str]) -> tuple[list[Card], list[Query], list[int | None]]:
    """The cards with their examples, the queries to ask, and of each the index of its card; None: no card can do it.

    *notes*: gets what was left out. Raises FileError.
    """
    capabilities = read_capabilities(options.caps, notes)
    queries = read_queries(options.queries, {capability.id for capability in capabilities}, notes)
    cards, taken = draw(capabilities, queries, options.shots, options.seed)
    asked = _asked(queries, taken, options)
    index_of = {capability.id: index for index, capability in enumerate(capabilities)}
    return cards, asked, [None if query.cap is None else index_of[query.cap] for query in asked]


def _asked(queries: Sequence[Query], taken: set[int], options: argparse.Namespace) -> list[Query]:
    """The queries to ask: no examples, of the split that was chosen. Raises FileError where there is none."""
    asked = [
        query for index, query in enumerate(queries)
        if index not in taken and (query.split == options.split if options.split else query.split != TRAIN)
    ]
    if not asked:
        splits = ", ".join(sorted({query.split or "(none)" for query in queries})) or "no query at all"
        wanted = f"of the split {options.split!r}" if options.split else f"outside the split {TRAIN!r}"
        raise FileError(f"{options.queries} holds no query {wanted} to ask; it has {splits}: choose one with --split")
    return asked


def run(options: argparse.Namespace) -> None:
    notes: list[str] = []
    cards, asked, places = load(options, notes)
    short = sum(len(card.examples) < options.shots for card in cards)
    if short:
        notes.append(f"{short} capabilities have fewer than {options.shots} examples; they have what there is")

    embedder = load_embedder(options.embedder)
    matcher, ids = ready(cards, embedder)
    texts = [query.text for query in asked]
    vectors = embed(embedder, texts)
    figures, bias = measure(matcher, ids, places, texts, vectors)
    peer = None if options.json else semantic_router(cards, places, vectors, embedder)

    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    if options.json:
        print(json.dumps(asdict(figures)))
        return
    splits = ", ".join(sorted({query.split or "(none)" for query in asked}))
    print(f"{len(cards)} capabilities, {options.shots} examples each (seed {options.seed}); {figures.n} queries in "
          f"scope, {figures.n_oos} out of scope (split {splits})")
    print(f"top-1 {_show(figures.top1, '%')}   top-3 {_show(figures.top3, '%')}   MRR {_show(figures.mrr)}")
    print(f"alone, top-1: BM25 {_show(figures.bm25_top1, '%')}   cosine {_show(figures.cosine_top1, '%')}   "
          f"semantic-router {_show(peer, '%') if peer is not None else 'not installed'}")
    print(f"out of scope: AUROC {_show(figures.auroc_oos)}   coverage at {PRECISION:.0%} precision "
          f"{_show(figures.coverage_at_95, '%')}   probability that the pick is right minus share: {bias:+.3f}")


def _show(value: float | None, unit: str = "") -> str:
    return "none" if value is None else f"{value:.2f} {unit}" if unit else f"{value:.4f}"


def _count(text: str) -> int:
    value = int(text)
    if value < 0:
        raise ValueError(text)
    return value


def arguments(description: str | None, shots: int) -> argparse.ArgumentParser:
    """What every benchmark on labelled intents takes; *shots*: examples per capability unless said otherwise."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--caps", required=True, metavar="FILE", help="capabilities, JSON lines")
    parser.add_argument("--queries", required=True, metavar="FILE", help="labelled queries, JSON lines")
    parser.add_argument("--shots", type=_count, default=shots, metavar="K", help=f"examples per capability ({shots})")
    parser.add_argument("--split", default="", metavar="S", help=f"queries to ask (all that are not of {TRAIN!r})")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of everything that is drawn (0)")
    return parser


def main() -> None:
    parser = arguments(__doc__, 0)
    parser.add_argument("--json", action="store_true", help="figures as one JSON object on the last line")
    parser.add_argument("--embedder", default="", metavar="FOLDER", help="of another model than the one in the wheel")
    try:
        run(parser.parse_args())
    except (FileError, EmbedderError) as error:
        raise SystemExit(f"error: {error}") from None


if __name__ == "__main__":
    main()
