"""The cost of real nodes: in the beacon within seconds, in every other node's ranking, gone with a revocation."""

from __future__ import annotations

from pathlib import Path

import pytest

from atmosphere.config import CostConfig
from atmosphere.cost import Battery, Readings, keeper
from atmosphere.identity import Target
from atmosphere.node import Node
from atmosphere.routing.intent import Constraints, Intent
from tests.meshes import mesh_of, until


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper, "READ_EVERY_S", 0.1)


def cost_of(other: Node, node: Node) -> int:
    beacon = node.table.nodes[other.peer_id].beacon
    return 0 if beacon is None else beacon.cost_milli


async def names(node: Node, intent: Intent) -> list[str]:
    return [candidate.node_name for candidate in (await node.router.decide(intent)).candidates]


async def test_a_cable_that_is_pulled_is_known_everywhere_at_once_and_work_goes_elsewhere(tmp_path: Path) -> None:
    async with mesh_of(tmp_path, "ABC") as (meshes, (a, b, c)):
        others = Intent(tool="check", constraints=Constraints(exclude=frozenset({a.peer_id})))
        assert {cost_of(b, node) for node in (a, b, c)} == {1000}
        meshes.machines["B"].readings = Readings(battery=Battery(80.0, False))
        took = await until(lambda: all(cost_of(b, node) == 2000 for node in (a, b, c)))
        assert took < 3.0, "long before the next beacon is due"
        assert await names(a, others) == ["C", "B"]
        meshes.machines["B"].readings = Readings(battery=Battery(80.0, True))
        meshes.machines["C"].readings = Readings(metered=True)
        await until(lambda: (cost_of(b, a), cost_of(c, a)) == (1000, 3000))
        assert await names(a, others) == ["B", "C"]
        view = c.cost_view()
        assert (view.cost_milli, view.told_milli) == (3000, 3000)


async def test_a_gpu_that_is_found_is_a_label_of_the_offer(tmp_path: Path) -> None:
    async with mesh_of(tmp_path, "AB") as (meshes, (a, b)):
        wanted = Intent(tool="check", constraints=Constraints(gpu_required=True))
        decision = await a.router.decide(wanted)
        assert (decision.candidates, decision.filtered["gpu_required"]) == ((), 2)
        meshes.machines["B"].readings = Readings(gpu=0.0, gpus=("GeForce",))
        await until(lambda: any("gpu" in entry.labels for entry in a.table.nodes[b.peer_id].offer.entries))  # type: ignore[union-attr]
        assert await names(a, wanted) == ["B"]


async def test_the_owners_word_counts_without_measuring(tmp_path: Path) -> None:
    settings = CostConfig(multiplier=4.0, measure=False)
    async with mesh_of(tmp_path, "AB", cost=settings) as (meshes, (a, b)):
        meshes.machines["A"].readings = Readings(metered=True)
        await until(lambda: cost_of(b, a) == cost_of(a, b) == 4000)
        assert meshes.machines["A"].reads == 0


async def test_what_was_learnt_of_a_peer_goes_with_its_revocation_also_from_disk(tmp_path: Path) -> None:
    async with mesh_of(tmp_path, "AB") as (_meshes, (a, b)):
        card = next(iter(b.registry.cards()))
        assert await a.judge(b.peer_id, card, good=True) > 0
        a.router.affinity.note((b"talk",), card, b.peer_id)
        await a.revoke(Target.PEER, b.peer_id.public_key, "lost")
        assert a.router.outcomes.opinion(b.peer_id, card) == 0.0
        assert a.router.affinity.holders((b"talk",), card) == frozenset()
        await until(lambda: _rows(a) == 0)


def _rows(node: Node) -> int:
    return node.store.read_now(lambda connection: int(connection.execute("SELECT count(*) FROM learnt").fetchone()[0]))
