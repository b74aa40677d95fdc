"""Units over whole nodes and real sockets: what a broken connection, a cancelled map and a stated pace do there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
import trio

from atmosphere.capabilities.backend import Backend, Emit, Provision, ToolCall
from atmosphere.capabilities.card import Card, Effects, Tool, card_id
from atmosphere.node import Node
from atmosphere.routing.intent import Constraints, Intent
from atmosphere.work.units import Outcome, Unit, UnitResult
from tests.meshes import mesh_of, until

CARD = Card(
    "test/ledger",
    "Writes down what it did",
    tools=tuple(Tool(str(effects), effects=effects) for effects in Effects),
)
CARD_ID = card_id(CARD.encode())
SLOTS = 4


class Ledger(Backend):
    """Counts the keys of the calls that took effect at one node."""

    def __init__(self, node: Node, service_s: float) -> None:
        self.name = f"ledger of {node.name}"
        self.keys: Counter[bytes] = Counter()
        self.cancelled = 0
        self.service_s = service_s
        self.node = node

    async def discover(self) -> Sequence[Provision]:
        return [Provision(CARD, SLOTS)]

    async def invoke(self, card: Card, call: ToolCall, emit: Emit) -> bytes:
        self.keys[call.idempotency_key] += 1
        try:
            await trio.sleep(self.service_s)
        except trio.Cancelled:
            self.cancelled += 1
            raise
        return call.args


async def ledgers(here: Node, nodes: list[Node], service_s: float) -> list[Ledger]:
    """One at each of *nodes*, known to *here*."""
    made = [Ledger(node, service_s) for node in nodes]
    for ledger in made:
        ledger.node.registry.update(ledger, await ledger.discover())
    await until(lambda: sum(route.card == CARD for route in here.table.routes()) == len(nodes))
    return made


def units(tool: str, count: int) -> list[Unit]:
    return [Unit(Intent(tool=tool), b'{"n": %d}' % number, b"key %d" % number) for number in range(count)]


@pytest.mark.parametrize("effects", [Effects.IDEMPOTENT, Effects.ONCE])
async def test_connections_that_break_under_a_map_lose_nothing(effects: Effects, tmp_path: Path) -> None:
    async with mesh_of(tmp_path, "ABC") as (_, (here, b, c)):
        made = await ledgers(here, [b, c], 0.05)
        results: list[UnitResult] = []
        async with here.dispatcher.map(units(effects, 100)) as running:
            async for result in running:
                results.append(result)
                if len(results) == 20:
                    await b.host.disconnect(here.peer_id)
        assert sorted(result.number for result in results) == list(range(100))
        unknown = [result for result in results if result.outcome is Outcome.UNKNOWN]
        assert all(result.ok and result.result == b'{"n": %d}' % result.number
                   for result in results if result not in unknown), [str(r.error) for r in results if not r.ok]
        took_effect = made[0].keys + made[1].keys
        if effects is Effects.ONCE:
            assert max(took_effect.values()) == 1
            assert 0 < len(unknown) <= 2 * SLOTS
            assert {result.peer for result in unknown} == {b.peer_id}
        else:
            assert unknown == []
            assert len(took_effect) == 100
        assert here.dispatcher.running == 0


async def test_a_map_that_is_cancelled_cancels_its_calls_at_the_other_nodes(tmp_path: Path) -> None:
    async with mesh_of(tmp_path, "ABC") as (_, (here, b, c)):
        made = await ledgers(here, [b, c], 60.0)
        with trio.CancelScope() as scope:
            async with here.dispatcher.map(units(Effects.ONCE, 50)) as running:
                await until(lambda: all(len(ledger.keys) == SLOTS for ledger in made))
                assert running.given == 4 * SLOTS
                scope.cancel()
                await anext(running)
        assert scope.cancelled_caught
        await until(lambda: all(ledger.cancelled == ledger.keys.total() for ledger in made), 2.0)
        assert sum(ledger.cancelled for ledger in made) <= 4 * SLOTS  # those that waited may have begun, to end at once
        for node in (b, c):
            await until(lambda node=node: node.registry.statistics().running == 0)  # type: ignore[misc]
            assert node.registry.statistics().waiting == 0


async def test_who_never_called_keeps_away_from_a_node_that_others_found_slow(tmp_path: Path) -> None:
    async with mesh_of(tmp_path, "ABC") as (_, (here, slow, quick)):
        made = await ledgers(here, [slow, quick], 0.05)
        made[0].service_s = 2.0
        for ledger in made:  # their own users have called them
            intent = Intent(tool="none", constraints=Constraints(node=ledger.node.peer_id))
            assert (await ledger.node.dispatcher.unit(Unit(intent, b"{}"))).ok
        await until(lambda: all(here.table.pace_s(node.peer_id, CARD_ID) for node in (slow, quick)))
        for unit in units("once", 4):
            assert (await here.dispatcher.unit(unit)).peer == quick.peer_id
        assert made[0].keys.total() == 1
