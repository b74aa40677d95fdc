"""What one decision costs: ``python -m tests.benchmarks.decision [--json]``.

A router that knows 100, 1,000 and 10,000 cards with five examples each, a tenth as many nodes, two offers per card; a
request that names no model, so that meaning decides. *Cached*: an intent whose embedding is known (agents ask the same
thing again); *uncached*: a new text, embedded by the shipped model. Texts are made of random words by Zipf's law and
the cards' vectors of random numbers: what is measured is the time, not the choice.

Memory is what the matcher holds per card, numpy's share included; the table's own share is not in it.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import time
import tracemalloc
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import trio

from atmosphere.capabilities.card import Card, Tool, card_id
from atmosphere.capabilities.offer import Offer, OfferEntry
from atmosphere.embedding import MiniLM
from atmosphere.env import SystemEnv
from atmosphere.mesh.table import GradientTable, Path
from atmosphere.routing.intent import Intent
from atmosphere.routing.matching import centroid
from atmosphere.routing.router import Router
from protocols.beacons import Beacon
from tests.mesh.people import OTHER, membership_of
from transports.peer_id import PeerId

SIZES = (100, 1_000, 10_000)
GOALS_MS = {100: 1.0, 1_000: 1.0, 10_000: 3.0}
GOAL_UNCACHED_MS = 8.0
EXAMPLES = 5
OFFERS = 2
WARM_UP = 20
SYLLABLES = [a + b for a in "bcdfghklmnprstvz" for b in "aeiou"]
WORDS = ["".join(word) for length in (1, 2, 3) for word in itertools.product(SYLLABLES[::3], repeat=length)]
OFTEN = list(itertools.accumulate(1 / rank for rank in range(1, len(WORDS) + 1)))  # Zipf's law


@dataclass(frozen=True)
class Figures:
    """Of one size. Milliseconds; CPU is the process's, per decision; memory in bytes."""

    cards: int
    cached_p50_ms: float
    cached_p99_ms: float
    cached_cpu_ms: float
    uncached_p50_ms: float
    uncached_p99_ms: float
    uncached_cpu_ms: float
    bytes_per_card: float


def sentence(chance: random.Random, words: int) -> str:
    return " ".join(chance.choices(WORDS, cum_weights=OFTEN, k=words))


def card(chance: random.Random, number: int) -> Card:
    examples = tuple(sentence(chance, 9) for _ in range(EXAMPLES))
    return Card("tool/call", f"{number} {sentence(chance, 12)}", examples=examples, tools=(Tool("work"),))


def fill(router: Router, count: int, chance: random.Random) -> float:
    """Make the table and the matcher know *count* cards; the matcher's bytes per card."""
    numbers = np.random.default_rng(1)
    cards = [card(chance, number) for number in range(count)]
    ids = [card_id(one.encode()) for one in cards]
    tracemalloc.start()
    for key, one in zip(ids, cards, strict=True):
        parts = numbers.standard_normal((EXAMPLES + 1, 384)).astype(np.float32)
        parts += 2 * numbers.standard_normal(384).astype(np.float32)  # the texts of one card are alike
        parts /= np.linalg.norm(parts, axis=1, keepdims=True)
        router.vectors.describe(key, one)
        router.vectors.put(key, centroid(parts, 1), parts)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    for key, one in zip(ids, cards, strict=True):
        router.table.described(key, one)
    offer(router.table, ids, chance)
    return held / count


def offer(table: GradientTable, ids: Sequence[bytes], chance: random.Random) -> None:
    peers = [PeerId(b"\x00\x24\x08\x01\x12\x20" + chance.randbytes(32)) for _ in range(max(2, len(ids) // 10))]
    held: dict[PeerId, list[OfferEntry]] = {peer: [] for peer in peers}
    for key in ids:
        for peer in chance.sample(peers, OFFERS):
            held[peer].append(OfferEntry(key, 1, 0, ()))
    member = membership_of(OTHER)  # the table looks at its scopes alone
    for peer, entries in held.items():
        table.connected(peer, Path.LAN, 0.0)
        table.observe(peer, Beacon(bytes(32), 1, 1, 15_000, bytes(32), 0, chance.randrange(500), 0, 1000), member, 0.0)
        table.measured(peer, chance.uniform(0.5, 40.0))
        table.offered(peer, Offer(peer, 1, 1, "", tuple(entries), 0.0))


async def decide(router: Router, texts: Sequence[str]) -> tuple[float, float, float]:
    """p50, p99 and CPU in milliseconds, one decision per text."""
    took = []
    cpu = time.process_time()
    for text in texts:
        began = time.perf_counter()
        decision = await router.decide(Intent(tool="work", text=text))
        took.append((time.perf_counter() - began) * 1000)
        assert decision.candidates
    cpu = (time.process_time() - cpu) * 1000 / len(texts)
    took.sort()
    return took[len(took) // 2], took[int(len(took) * 0.99)], cpu


async def measure(count: int, rounds: int) -> Figures:
    chance = random.Random(count)
    router = Router(GradientTable(PeerId(b"\x00\x24\x08\x01\x12\x20" + bytes(32))), MiniLM.load(), SystemEnv(), {})
    per_card = fill(router, count, chance)
    known = [sentence(chance, 10) for _ in range(32)]
    await decide(router, [*known, *known][: 2 * WARM_UP])
    cached = await decide(router, list(itertools.islice(itertools.cycle(known), rounds)))
    uncached = await decide(router, [sentence(chance, 10) for _ in range(rounds)])
    return Figures(count, *cached, *uncached, per_card)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=500, help="decisions per figure (500)")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    options = parser.parse_args()
    found = [trio.run(measure, size, options.rounds) for size in options.sizes]
    if options.json:
        print(json.dumps({"figures": [asdict(row) for row in found], "goals_cached_p99_ms": GOALS_MS,
                          "goal_uncached_p99_ms": GOAL_UNCACHED_MS}))
        return
    print(f"{'cards':>7}  {'cached p50':>10} {'p99':>7} {'CPU':>7}  {'new text p50':>12} {'p99':>7} {'CPU':>7} ms"
          f"  {'bytes/card':>10}")
    for row in found:
        print(f"{row.cards:7}  {row.cached_p50_ms:10.3f} {row.cached_p99_ms:7.3f} {row.cached_cpu_ms:7.3f}  "
              f"{row.uncached_p50_ms:12.3f} {row.uncached_p99_ms:7.3f} {row.uncached_cpu_ms:7.3f}     "
              f"{row.bytes_per_card:10.0f}")
    goals = ", ".join(f"{goal} ms at {size}" for size, goal in GOALS_MS.items())
    print(f"goals, p99: {goals} cards, embedding cached; {GOAL_UNCACHED_MS} ms with a new text")


if __name__ == "__main__":
    main()
