"""The scenario flash-crowd, small."""

from __future__ import annotations

import json
import subprocess
import sys

from tests.simulations.commands import simulate

SMALL_NODES = """
import dataclasses
import json
from simulations.hashing import fix_hashing

fix_hashing()
from atmosphere.node import start
from simulations.scenarios import flash_crowd
from simulations.scenarios.running import Options
from simulations.virtual import Virtual, run

usual = start.host_config
start.host_config = lambda *args: dataclasses.replace(usual(*args), high_water=10, low_water=8, grace=4.0)


async def main(virtual: Virtual):
    return await flash_crowd.flash_crowd(virtual, Options(nodes=40), 30.0)


found = run(main, seed=1).value
print(json.dumps({"routable": found.routable, "lost": found.lost_again, "hubs": found.bootstrap_degree}))
"""


def test_who_joins_in_a_crowd_is_routable_everywhere() -> None:
    found = simulate("flash-crowd", "--nodes", "20", "--within", "15")
    assert (found["first"], found["joined"]) == (3, 17)
    assert found["routable"] == 1.0
    assert 0 < found["routable_ms"]["p50"] <= found["routable_ms"]["max"]
    assert found["whole_after_last_ms"] <= 15_000
    assert found["degree"] > 3
    assert found["errors"] == []


def test_nodes_that_have_too_many_links_let_go_of_some_and_nobody_is_lost() -> None:
    """A tenth of the links that a node takes; a crowd of 37 is then as one of 1,000 would be."""
    done = subprocess.run([sys.executable, "-c", SMALL_NODES], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert (found["routable"], found["lost"]) == (1.0, 0)
    assert found["hubs"] <= 20  # of 39 that came
