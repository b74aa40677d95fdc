"""Keeps the number of connections down: a node that has many lets go of idle ones, and says that it means no harm.

Every node that joins through a bootstrap node connects to it, and calls leave connections behind all over the mesh. As
go-libp2p's connection manager does, a node with more than ``high_water`` connections of members closes down to
``low_water``. Never closed is one that is younger than ``grace``, carries a stream, or is in the mesh of a topic.
Of the others go those first that the peer made, the oldest before: it has had time to find other neighbours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import trio

from transports.config import HostConfig
from transports.peer_id import PeerId

if TYPE_CHECKING:
    from transports.libp2p.connection import Connection

LOOK_EVERY = 1.0
"""Seconds between two looks: a crowd of twenty in a second is some twenty connections more than wanted."""


def surplus(
    connections: Sequence[Connection], config: HostConfig, grafted: Callable[[PeerId], bool], now: float
) -> list[Connection]:
    """Which of *connections* to let go now. *grafted*: whether gossip goes to that peer at once."""
    if len(connections) <= config.high_water:
        return []
    spare = [
        connection
        for connection in connections
        if now - connection.opened_at >= config.grace and connection.idle and not grafted(connection.peer)
    ]
    spare.sort(key=lambda connection: (not connection.inbound, connection.opened_at))
    return spare[: len(connections) - config.low_water]


async def trim(
    members: Callable[[], list[Connection]],
    config: HostConfig,
    grafted: Callable[[PeerId], bool],
    nursery: trio.Nursery,
) -> None:
    """Release what is too much until cancelled. *members*: the connections of admitted peers now."""
    while True:
        await trio.sleep(LOOK_EVERY)
        for connection in surplus(members(), config, grafted, trio.current_time()):
            nursery.start_soon(connection.release)
