"""A node like any other, whose searches take a stated time: ``python -m tests.e2e.stated_search_node MS WORDS...``.

WORDS are those of ``atmosphere-p2p``. A search is the real one, given back when the stated time has passed; after
SIGUSR1 as soon as it is there, after SIGUSR2 as at the start.
"""

from __future__ import annotations

import signal
import sys

import trio

from atmosphere.capabilities.backend import Emit, ToolCall
from atmosphere.capabilities.card import Card
from atmosphere.cli import main
from atmosphere.knowledge import KnowledgeBackend
from atmosphere.node import node


class StatedSearch(KnowledgeBackend):
    """Holds answers back until *seconds* have passed since the call."""

    seconds = 0.0

    async def invoke(self, card: Card, call: ToolCall, emit: Emit) -> bytes:
        due = trio.current_time() + self.seconds
        result = await super().invoke(card, call, emit)
        await trio.sleep_until(due)
        return result


def run() -> None:
    stated = StatedSearch.seconds = float(sys.argv.pop(1)) / 1000

    def change(number: int, frame: object) -> None:
        StatedSearch.seconds = stated if number == signal.SIGUSR2 else 0.0

    signal.signal(signal.SIGUSR1, change)
    signal.signal(signal.SIGUSR2, change)
    node.KnowledgeBackend = StatedSearch  # type: ignore[attr-defined]
    main()


if __name__ == "__main__":
    run()
