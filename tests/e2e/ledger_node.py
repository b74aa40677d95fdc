"""A node like any other, with one more backend: it takes a stated time and writes down what it does.

``python -m tests.e2e.ledger_node LEDGER SERVICE_MS CONCURRENCY WORDS...``, where WORDS are those of ``atmosphere-p2p``.

Its tools differ in what they declare of their effects, not in what they do: half of the service time, then a line in
the ledger (the side effect), then the other half. SIGUSR1 makes it ten times slower from then on.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import trio

from atmosphere.capabilities.backend import Backend, Emit, Provision, ToolCall
from atmosphere.capabilities.card import Card, Effects, Tool
from atmosphere.cli import daemon, main
from atmosphere.config import Config
from atmosphere.node import Node, open_node

TYPE = "test/ledger"
READ, PUT, SEND = "read", "put", "send"
CARD = Card(
    type=TYPE,
    description="Writes down what it was asked to do",
    inputs=("data",),
    outputs=("data",),
    tools=(Tool(READ, effects=Effects.NONE), Tool(PUT, effects=Effects.IDEMPOTENT), Tool(SEND, effects=Effects.ONCE)),
)
SLOWED = 10.0


@dataclass(frozen=True)
class Line:
    """One side effect."""

    node: str
    tool: str
    unit: int
    key: str


def read(ledger: Path) -> list[Line]:
    """What was written down so far, by all nodes."""
    return [Line(**json.loads(line)) for line in ledger.read_text().splitlines()]


class LedgerBackend(Backend):
    """Appends one line per call that got half-way."""

    name = "ledger"

    def __init__(self, ledger: Path, service_s: float, concurrency: int) -> None:
        self.node = ""
        self.service_s = service_s
        self._concurrency = concurrency
        self._file = os.open(ledger, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    async def discover(self) -> Sequence[Provision]:
        return [Provision(CARD, self._concurrency)]

    async def invoke(self, card: Card, call: ToolCall, emit: Emit) -> bytes:
        unit = call.arguments()["unit"]
        await trio.sleep(self.service_s / 2)
        line = {"node": self.node, "tool": call.tool, "unit": unit, "key": call.idempotency_key.hex()}
        os.write(self._file, json.dumps(line).encode() + b"\n")  # O_APPEND: whole lines, whoever else writes
        await trio.sleep(self.service_s / 2)
        return json.dumps({"unit": unit, "node": self.node}).encode()

    def slow_down(self, number: int, frame: object) -> None:
        self.service_s *= SLOWED


def run() -> None:
    ledger, service_ms, concurrency = sys.argv[1:4]
    backend = LedgerBackend(Path(ledger), float(service_ms) / 1000, int(concurrency))
    signal.signal(signal.SIGUSR1, backend.slow_down)

    @asynccontextmanager
    async def open_with_ledger(home: Path, config: Config) -> AsyncIterator[Node]:
        async with open_node(home, config) as node:
            backend.node = node.name
            node.registry.update(backend, await backend.discover())
            yield node

    daemon.open_node = open_with_ledger
    sys.argv[1:4] = []
    main()


if __name__ == "__main__":
    run()
