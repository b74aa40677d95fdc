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


SHARED = """
import json, sys
from simulations.hashing import fix_hashing

fix_hashing()
import trio

from atmosphere.identity import Target
from simulations.fast import NAMES, accelerated
from simulations.shared import Shared
from simulations.virtual import Virtual, run
from simulations.world import open_world


async def main(virtual: Virtual) -> tuple[bool, str, str]:
    async with open_world(virtual, 20, degree=6) as world:
        shared = isinstance(world.members[1].node.table.nodes, Shared)
        await trio.sleep(5)
        world.crash(world.members[3], False)
        await world.stop(world.members[4])
        await trio.sleep(12)
        await world.members[0].node.revoke(Target.PEER, world.members[5].peer.public_key, "lost")
        await world.start(world.members[3])
        await trio.sleep(12)
        meshes = [member.node.mesh for member in world.running]
        knowledge = [
            [(str(n.peer), n.state, n.beacon and n.beacon.order, n.last_seen) for n in mesh.table.nodes.values()]
            + [mesh.neighbours.inventory.nodes.root.hex(), mesh.library.size, repr(mesh.library)]
            for mesh in meshes
        ]
        return shared, repr(knowledge), repr(world.network.statistics())


names = [name for name in NAMES if name != "tables"] + sys.argv[1:]
with accelerated(names):
    outcome = run(main, seed=3)
print(json.dumps([*outcome.value, outcome.trace_hash]))
"""


def played(*accelerations: str) -> list[object]:
    command = [sys.executable, "-c", SHARED, *accelerations]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found: list[object] = json.loads(done.stdout)
    return found


def test_nodes_that_share_what_they_know_in_common_know_what_those_do_that_copy_it() -> None:
    shared, copied = played("tables"), played()
    assert (shared.pop(0), copied.pop(0)) == (True, False)
    assert shared == copied
