"""A world starts whole: what its nodes have been told is what they would have told each other."""

from __future__ import annotations

import json
import subprocess
import sys

PROGRAM = """
import json
from simulations.hashing import fix_hashing

fix_hashing()
from simulations.virtual import Virtual, run
from simulations.world import open_world


async def main(virtual: Virtual) -> tuple[bool, int, int, list[int]]:
    async with open_world(virtual, 12, degree=4) as world:
        meshes = [member.node.mesh for member in world.members]
        summaries = {mesh.neighbours.inventory.nodes.root for mesh in meshes}
        orders = {tuple(sorted(n.beacon.order for n in mesh.table.nodes.values())) for mesh in meshes}
        return world.tables_are_whole(), len(summaries), len(orders), [len(m.intake.wanted) for m in meshes]


print(json.dumps(run(main, seed=1).value))
"""


def test_nodes_that_are_acquainted_agree() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    whole, summaries, orders, wanted = json.loads(done.stdout)
    assert whole
    assert (summaries, orders) == (1, 1)  # nobody has anything to tell anybody
    assert set(wanted) == {0}
