"""A node whose network was gone for longer than it remembers others finds the mesh again by its bootstrap nodes."""

from __future__ import annotations

import json
import subprocess
import sys

PROGRAM = """
import json
import trio
from simulations.hashing import fix_hashing

fix_hashing()
from atmosphere.mesh.table import MIN_PRUNE_S
from simulations.scenarios.growing import open_growing
from simulations.scenarios.running import Options
from simulations.virtual import Virtual, run
from simulations.world import until


async def main(virtual: Virtual) -> list[object]:
    async with open_growing(virtual, Options(5, 2), 4, 1) as world:
        sleeper = await world.join()
        known = await until(world.tables_are_whole, 20.0)
        world.network.stall(sleeper.peer)
        await trio.sleep(MIN_PRUNE_S + 100)
        alone = len(sleeper.node.table.nodes)
        world.network.wake(sleeper.peer)
        return [known, alone, await until(world.tables_are_whole, 70.0)]


print(json.dumps(run(main, seed=1).value))
"""


def test_who_was_cut_off_for_long_comes_back() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout) == [True, 1, True]
