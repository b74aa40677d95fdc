"""What one decision costs: ``python -m tests.benchmarks.decision [--json]``.

A router that knows 100, 1,000 and 10,000 cards with five examples each, a tenth as many nodes, two offers per card.
Texts are made of random words by Zipf's law and the cards' vectors of random numbers: what is measured is the time, not
the choice. Four kinds of decisions:

- *known intent*: it names no model, so meaning decides; its embedding is known (agents ask the same thing again);
- *after a change*: the same, and before each decision a node of the table has failed or come back;
- *new text*: the same, but the text is new, and embedded by the shipped model;
- *named model*: every node offers it, and nothing but the nodes decides.

Each is measured in several runs, and the run with the lowest p99 is reported: on a machine that does other things too,
the slowest decisions are those that were interrupted. Memory is what the matcher holds per card, numpy's share
included; the table's own share is not in it. With ``--json`` the last line is one JSON object.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import time
import tracemalloc
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

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
"""p99 of a known intent, by cards."""
GOAL_NEW_MS = 8.0
"""p99 of a new text, at any number of cards."""
EXAMPLES = 5
OFFERS = 2
WARM_UP = 20
SYLLABLES = [a + b for a in "bcdfghklmnprstvz" for b in "aeiou"]
WORDS = ["".join(word) for length in (1, 2, 3) for word in itertools.product(SYLLABLES[::3], repeat=length)]
OFTEN = list(itertools.accumulate(1 / rank for rank in range(1, len(WORDS) + 1)))  # Zipf's law


@dataclass(frozen=True)
class Times:
    """Milliseconds; CPU is the whole process's, per decision."""

    p50_ms: float
    p99_ms: float
    cpu_ms: float


@dataclass(frozen=True)
class Figures:
    """Of one size."""

    cards: int
    known: Times
    changed: Times
    new: Times
    named: Times
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
    chat = Card("llm/chat", "A model that every node has", model="llama", tools=(Tool("chat"),))
    every = card_id(chat.encode())
    table.described(every, chat)
    held: dict[PeerId, list[OfferEntry]] = {peer: [OfferEntry(every, 1)] for peer in peers}
    for key in ids:
        for peer in chance.sample(peers, OFFERS):
            held[peer].append(OfferEntry(key, 1, 0, ()))
    member = membership_of(OTHER)  # the table looks at its scopes alone
    for peer, entries in held.items():
        table.connected(peer, Path.LAN, 0.0)
        table.observe(peer, Beacon(bytes(32), 1, 1, 15_000, bytes(32), 0, chance.randrange(500), 0, 1000), member, 0.0)
        table.measured(peer, chance.uniform(0.5, 40.0))
        table.offered(peer, Offer(peer, 1, 1, "", tuple(entries), 0.0))


async def decide(router: Router, intents: Sequence[Intent], before: Callable[[], None] = lambda: None) -> Times:
    """One decision per intent; *before* each, which is not timed as such."""
    took = []
    cpu = time.process_time()
    for intent in intents:
        before()
        began = time.perf_counter()
        decision = await router.decide(intent)
        took.append((time.perf_counter() - began) * 1000)
        assert decision.candidates
    cpu = (time.process_time() - cpu) * 1000 / len(intents)
    took.sort()
    return Times(took[len(took) // 2], took[int(len(took) * 0.99)], cpu)


def flap(table: GradientTable, chance: random.Random) -> Callable[[], None]:
    """Some node fails, and comes back the next time."""
    peers = [peer for peer in table.nodes if peer != table.me]
    away: list[PeerId] = []

    def change() -> None:
        if away:
            table.alive(away.pop(), 1.0)
        else:
            away.append(chance.choice(peers))
            table.doubt(away[0], "silent", 1.0)

    return change


async def measure(count: int, rounds: int, runs: int = 1) -> Figures:
    chance = random.Random(count)
    router = Router(GradientTable(PeerId(b"\x00\x24\x08\x01\x12\x20" + bytes(32))), MiniLM.load(), SystemEnv(), {})
    per_card = fill(router, count, chance)
    texts = [sentence(chance, 10) for _ in range(32)]
    known = [Intent(tool="work", text=text) for text in itertools.islice(itertools.cycle(texts), rounds)]
    named = [Intent(tool="chat", model="llama", text=text) for text in itertools.islice(itertools.cycle(texts), rounds)]
    await decide(router, [Intent(tool="work", text=text) for text in texts[:WARM_UP]])

    async def best(intents: Callable[[], Sequence[Intent]], before: Callable[[], None] = lambda: None) -> Times:
        return min([await decide(router, intents(), before) for _ in range(runs)], key=lambda times: times.p99_ms)

    return Figures(
        count,
        known=await best(lambda: known),
        changed=await best(lambda: known, flap(router.table, chance)),
        new=await best(lambda: [Intent(tool="work", text=sentence(chance, 10)) for _ in range(rounds)]),
        named=await best(lambda: named),
        bytes_per_card=per_card,
    )


def goals(found: Sequence[Figures]) -> list[dict[str, Any]]:
    """What was wanted of each size, and whether it was met."""
    wanted = [(row.cards, kind, times.p99_ms, goal) for row in found for kind, times, goal in (
        ("known intent", row.known, GOALS_MS.get(row.cards)), ("new text", row.new, GOAL_NEW_MS)) if goal is not None]
    return [{"cards": cards, "decision": kind, "p99_ms": p99, "goal_ms": goal, "met": p99 <= goal}
            for cards, kind, p99, goal in wanted]


def show(found: Sequence[Figures]) -> None:
    met = {(goal["cards"], goal["decision"]): goal for goal in goals(found)}
    print(f"{'cards':>7}  {'decision':14} {'p50':>8} {'p99':>8} {'CPU':>8} ms   goal, p99")
    for row in found:
        for kind, times in (("known intent", row.known), ("after a change", row.changed), ("new text", row.new),
                            ("named model", row.named)):
            goal = met.get((row.cards, kind))
            said = f"<= {goal['goal_ms']:g}: {'met' if goal['met'] else 'MISSED'}" if goal is not None else ""
            print(f"{row.cards:7}  {kind:14} {times.p50_ms:8.3f} {times.p99_ms:8.3f} {times.cpu_ms:8.3f}      {said}")
    print("memory of the matcher: " + ", ".join(f"{row.bytes_per_card / 1000:.1f} kB per card at {row.cards}"
                                               for row in found))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=500, help="decisions per run (500)")
    parser.add_argument("--runs", type=int, default=3, help="of which the best is reported (3)")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    options = parser.parse_args()
    busy = os.getloadavg()[0]
    found = [trio.run(measure, size, options.rounds, options.runs) for size in options.sizes]
    if options.json:
        print(json.dumps({"figures": [asdict(row) for row in found], "goals": goals(found), "rounds": options.rounds,
                          "runs": options.runs, "load": busy, "cores": os.cpu_count()}))
        return
    show(found)
    print(f"best of {options.runs} runs of {options.rounds} decisions; load when it began {busy:.1f}, "
          f"{os.cpu_count()} cores")


if __name__ == "__main__":
    main()
