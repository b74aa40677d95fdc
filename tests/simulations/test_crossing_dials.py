"""Two nodes that dial each other in the same moment become neighbours."""

from __future__ import annotations

import json
import subprocess
import sys

PROGRAM = """
import json
import trio
from simulations.hashing import fix_hashing

fix_hashing()
from simulations.virtual import Virtual, run
from simulations.acquaint import acquaint
from simulations.world import World, make_members, until
from transports.memory import latencies_between, open_network


async def main(virtual: Virtual) -> list[bool]:
    links = latencies_between(0.05, 0.05, seed=1)
    async with open_network(links, virtual.random("links").random) as network, trio.open_nursery() as nursery:
        members = list(make_members(virtual, 2, 2))
        world = World(virtual, network, members, 1, nursery)
        for member in members:
            await world.start(member)
        acquaint(members)
        one, other = members
        async with trio.open_nursery() as dials:
            dials.start_soon(one.node.host.connect, other.peer, (network.address(other.peer),))
            dials.start_soon(other.node.host.connect, one.peer, (network.address(one.peer),))
        ready = await until(lambda: all(member.node.mesh.neighbours.ready() for member in members), 5.0)
        nursery.cancel_scope.cancel()
        return ready


print(json.dumps(run(main, seed=1).value))
"""


def test_both_greet_where_both_have_dialled() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout) is True
