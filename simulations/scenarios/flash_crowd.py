"""``flash-crowd``: most of the nodes join within a minute, all through the same three bootstrap nodes.

The mesh begins with a tenth of its nodes. Measured is, for each ordered pair of which one at least has joined, when the
first could send work to the second, from the moment at which both run; and how long after the last joining every node
could send work to every other one, for good.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import trio

from simulations.metrics import Spread
from simulations.scenarios.growing import BOOTSTRAPS, Views, open_growing
from simulations.scenarios.running import SETTLE_S, Measured, Options, measured
from simulations.virtual import Virtual

FIRST_SHARE = 0.1
AFTER_S = 30.0
"""What is not whole so long after the last joining counts as never."""


@dataclass(frozen=True, slots=True)
class FlashCrowdResult:
    """See the module."""

    first: int
    joined: int
    within_s: float
    routable: float
    """Share of all ordered pairs in the end."""
    routable_ms: Spread | None
    whole_after_last_ms: float | None
    lost_again: int
    """Pairs that were routable and then, for a while, not."""
    degree: float
    bootstrap_degree: float
    """Links in the end: of all nodes, and of the bootstrap nodes."""
    joining: Measured
    after: Measured


@dataclass
class _Pairs:
    """When pairs became routable."""

    began: dict[int, float] = field(default_factory=dict)
    """Of those who joined: when they ran."""
    seconds: dict[tuple[int, int], float] = field(default_factory=dict)
    lost: int = 0
    latest: float = 0.0

    def changed(self, viewer: int, seen: int, usable: bool) -> None:
        now = self.latest = trio.current_time()
        if usable:
            since = max(self.began.get(viewer, 0.0), self.began.get(seen, 0.0))
            self.seconds.setdefault((viewer, seen), now - since)
        else:
            self.lost += 1


async def flash_crowd(virtual: Virtual, options: Options, within_s: float) -> FlashCrowdResult:
    """Let nine tenths of the nodes join at random moments of *within_s* seconds."""
    first = min(options.nodes - 1, max(BOOTSTRAPS, round(FIRST_SHARE * options.nodes)))
    draw = virtual.random("joins").random
    async with open_growing(virtual, options, first, options.nodes - first) as world:
        await trio.sleep(SETTLE_S)
        pairs = _Pairs()
        views = Views(world, pairs.changed)
        for member in world.members:
            views.follow(member)
        began = trio.current_time()
        with measured(world) as joining:
            for count, after in enumerate(sorted(draw() * within_s for _ in world.coming)):
                await trio.sleep_until(began + after)
                pairs.began[first + count] = trio.current_time()
                views.follow(await world.join())
                options.progress(f"{len(world.members)} nodes run", len(world.members) / options.nodes)
            joining_cost = joining()
        last = trio.current_time()
        with measured(world) as after_last:
            await trio.sleep(AFTER_S)
            after_cost = after_last()
        virtual.trace.note("routable", views.pairs - views.missing, pairs.latest)
        hubs = world.members[:BOOTSTRAPS]
        return FlashCrowdResult(
            first=first,
            joined=options.nodes - first,
            within_s=within_s,
            routable=round(1 - views.missing / views.pairs, 6),
            routable_ms=Spread.of(list(pairs.seconds.values())),
            whole_after_last_ms=None if views.missing else round(1000 * max(0.0, pairs.latest - last), 1),
            lost_again=pairs.lost,
            degree=round(world.degree, 2),
            bootstrap_degree=round(sum(len(hub.node.host.connections()) for hub in hubs) / len(hubs), 2),
            joining=joining_cost,
            after=after_cost,
        )
