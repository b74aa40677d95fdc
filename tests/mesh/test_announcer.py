"""What a node says early: a load that crosses a step, a queue that doubles or halves."""

from __future__ import annotations

import pytest

from atmosphere.env import FixedEnv
from atmosphere.mesh.announcer import JITTER, LOADS_PER_SECOND, Announcer, Load
from tests.mesh.people import ENV, ME, identity_of


@pytest.mark.parametrize(
    ("told", "now", "early"),
    [
        (Load(0, 0), Load(249, 0), False),
        (Load(0, 0), Load(250, 0), True),
        (Load(1000, 0), Load(700, 0), True),
        (Load(1000, 0), Load(1000, 1), True),  # the first one waits: this node is full
        (Load(1000, 4), Load(1000, 7), False),
        (Load(1000, 4), Load(1000, 8), True),
        (Load(1000, 4), Load(1000, 2), True),
        (Load(1000, 4), Load(1000, 3), False),
        (Load(1000, 1), Load(1000, 0), True),
        (Load(0, 0), Load(0, 0), False),
        (Load(0, 0), Load(0, 0, 2000), True),
        (Load(0, 0, 2000), Load(0, 0), True),
        (Load(500, 1, 2000), Load(500, 1, 2000), False),
    ],
)
def test_a_crossing_is_told_early(told: Load, now: Load, early: bool) -> None:
    load = told
    announcer = Announcer(lambda: identity_of(ME), 1, ENV, lambda: load)
    announcer.set_offer("me", ())
    announcer.beacon(nodes=3)
    load = now
    assert (announcer.load_due(nodes=3) is not None) is early


def test_the_more_nodes_the_rarer_each_tells_its_load() -> None:
    env = FixedEnv()
    load = Load()
    announcer = Announcer(lambda: identity_of(ME), 1, env, lambda: load)
    announcer.set_offer("me", ())
    announcer.beacon(nodes=1600)
    load = Load(1000, 0)
    assert announcer.load_due(nodes=1600) == 1600 / LOADS_PER_SECOND
    env.advance(40.0)
    assert announcer.load_due(nodes=1600) == 60.0
    assert announcer.load_due(nodes=16) == 0.0


def test_nodes_that_start_together_do_not_go_on_speaking_together() -> None:
    first, later = [], []
    for _ in range(200):
        announcer = Announcer(lambda: identity_of(ME), 1, ENV, Load)
        announcer.set_offer("me", ())
        announcer.beacon(nodes=1000)
        first.append(announcer.share())
        announcer.beacon(nodes=1000)
        later.append(announcer.share())
    assert min(first) < 0.1
    assert max(first) > 0.9
    assert all(abs(share - 1) <= JITTER for share in later)
