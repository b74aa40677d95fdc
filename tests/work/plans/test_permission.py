"""What running a unit twice does is taken from the cards, and in doubt it must not be."""

from __future__ import annotations

import pytest

from atmosphere.capabilities.card import Card, Effects, Tool
from atmosphere.routing.decision import Candidate, Decision
from atmosphere.routing.intent import Intent
from atmosphere.work.plans.permission import strictest
from transports.peer_id import PeerId

PEER = PeerId.from_public_key(bytes(range(32)))


def candidate(effects: Effects | None) -> Candidate:
    tools = () if effects is None else (Tool("work", effects=effects),)
    return Candidate(PEER, "n", bytes(32), Card(type="test/work", description="", tools=tools), 0.5, {}, "local", None)


@pytest.mark.parametrize(("offered", "expected"), [
    ([Effects.NONE, Effects.NONE], Effects.NONE),
    ([Effects.NONE, Effects.IDEMPOTENT], Effects.IDEMPOTENT),
    ([Effects.NONE, Effects.ONCE, Effects.IDEMPOTENT], Effects.ONCE),
    ([Effects.NONE, None], Effects.ONCE),
    ([], Effects.ONCE),
])
def test_the_strictest_counts(offered: list[Effects | None], expected: Effects) -> None:
    decision = Decision(Intent(tool="work"), tuple(map(candidate, offered)), {})
    assert strictest(decision) is expected
