"""What a join costs the mesh in gossip: everybody hears of who joins once, also through one who has just joined."""

from __future__ import annotations

import json
import subprocess
import sys

PROGRAM = """
import json
from dataclasses import replace

import trio
from simulations.hashing import fix_hashing

fix_hashing()
from protocols.beacons import Announcement
from simulations.scenarios import growing
from simulations.scenarios.running import Options
from simulations.virtual import Virtual, run
from simulations.world import until

FIRST, COMING, EVERY_S = 15, 9, 0.4
LAST = FIRST + COMING - 1


class Chained(growing.GrowingWorld):
    def _settings(self, member):
        settings = super()._settings(member)
        if member.number == LAST:  # it knows nobody but the one that has joined before it
            return replace(settings, bootstrap=(self.network.address(self.members[LAST - 1].peer),), neighbours=1)
        return settings


growing.GrowingWorld = Chained


async def main(virtual: Virtual):
    async with growing.open_growing(virtual, Options(), FIRST, COMING) as world:
        await trio.sleep(5.0)
        world.meter.following = True
        for _ in range(COMING):
            last = await world.join()
            await trio.sleep(EVERY_S)
        began = trio.current_time()
        await until(lambda: all(world.knows(member, last) for member in world.members if member is not last), 30.0)
        known_s = trio.current_time() - began
        await until(world.tables_are_whole, 30.0)
        await trio.sleep(5.0)
        said = [(each.author, Announcement.decode(data), each) for data, each in world.meter.said.items()
                if each.topic.endswith("/beacons")]
        introduced = [author for author, announcement, each in said
                      if announcement.membership and len(each.heard) > FIRST]
        return {"introduced": introduced, "known_s": known_s, "whole": world.tables_are_whole()}


print(json.dumps(run(main, seed=1).value))
"""


def test_who_joins_is_introduced_once() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert found["whole"]
    assert found["known_s"] <= 3.0
    # The last one is known through the one before it, which had no other neighbour yet when it came.
    assert sorted(found["introduced"]) == list(range(15, 23)), "each says all about itself once, and nobody else does"
