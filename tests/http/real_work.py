"""A node whose work is real: router, dispatcher, registry, scanner and adapters, on stand-ins for model servers.

Other nodes of its mesh live in the same process, without a network between them.
"""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import openai
import trio

from atmosphere.capabilities.backend import ToolCall
from atmosphere.capabilities.offer import Offer
from atmosphere.capabilities.registry import LocalRegistry
from atmosphere.capabilities.scanner import Scanner, plan_targets
from atmosphere.config import BackendConfig, Config
from atmosphere.embedding import HashEmbedder
from atmosphere.http.server import serve
from atmosphere.mesh.table import GradientTable
from atmosphere.mesh.table import Path as Way
from atmosphere.mesh.views import CapabilityView, capability_views
from atmosphere.routing.decision import Candidate
from atmosphere.routing.models import Aliases
from atmosphere.routing.router import Router
from atmosphere.work.dispatcher import Dispatcher
from atmosphere.work.local import LocalWork
from protocols.beacons import Beacon
from tests.http.conftest import LIMITS
from tests.http.fake_node import FakeNode, echo
from tests.mesh.people import ME, OTHER, THIRD, membership_of
from transports.peer_id import PeerId

PEERS = (ME, OTHER, THIRD)
NEVER_S = 60.0
"""Between two looks at a backend: it is looked at when a call fails, so that tests know what the node knows."""


class RealNode(FakeNode):
    """The first of *backends* are its own; each further sequence is another node's."""

    def __init__(self, nursery: trio.Nursery, home: Path, config: Config) -> None:
        super().__init__(nursery, echo, home, config)
        self.peer_id = ME
        self.table = GradientTable(ME)
        self.registries: dict[PeerId, LocalRegistry] = {}
        self._router = Router(self.table, HashEmbedder(), self.env, config.aliases)
        self._dispatcher = Dispatcher(self._router, self.table, self._run_on(ME), self, self.env, nursery)

    router = property(lambda self: self._router)
    dispatcher = property(lambda self: self._dispatcher)

    async def look_at(self, peer: PeerId, backends: Sequence[BackendConfig]) -> None:
        """*peer* offers what is found at *backends*, from now on."""
        registry = self.registries[peer] = LocalRegistry(self.env.monotonic)
        self.table.connected(peer, Way.LOCAL if peer == ME else Way.LAN, 0.0)
        self.table.measured(peer, 1.0)
        self.table.observe(peer, Beacon(bytes(32), 1, 1, 15_000, bytes(32), 0), membership_of(peer), 0.0)
        registry.on_change = partial(self._offered, peer, registry)
        scanner = Scanner(registry, plan_targets(backends, probe=False, environ={}), poll_s=NEVER_S)
        self.nursery.start_soon(scanner.run)
        await scanner.settled()

    def _offered(self, peer: PeerId, registry: LocalRegistry) -> None:
        for card_id, card in registry.cards().items():
            self.table.described(card_id, card)
        self.table.offered(peer, Offer(peer, 1, registry.version, peer.short, registry.offer_entries(), 0.0))

    def _run_on(self, peer: PeerId) -> Any:
        return lambda card_id, call, emit: self.registries[peer].serve(card_id, call, emit)

    async def start(self, candidate: Candidate, call: ToolCall) -> LocalWork:
        """Begin a call on another node of this process."""
        run = self._run_on(candidate.peer)
        return LocalWork(lambda emit: run(candidate.card_id, call, emit), self.nursery)

    def capabilities(self) -> tuple[CapabilityView, ...]:
        return capability_views(self.table)

    def levels(self) -> dict[str, frozenset[str]]:
        return self._router.offered_levels()

    def models(self) -> set[str]:
        """The models that can be routed to."""
        return {route.card.model for route in self.table.routes()}


@asynccontextmanager
async def real_node(
    *nodes: Sequence[BackendConfig], aliases: Aliases | None = None
) -> AsyncIterator[tuple[RealNode, openai.AsyncOpenAI]]:
    """The node on a real socket, and the SDK that talks to it."""
    with tempfile.TemporaryDirectory() as folder:
        async with trio.open_nursery() as nursery:
            node = RealNode(nursery, Path(folder), Config(aliases=aliases or {}, grace_s=0.3))
            with trio.fail_after(10):
                for peer, backends in zip(PEERS, nodes, strict=False):
                    await node.look_at(peer, backends)
                bound = await nursery.start(partial(serve, node, public="127.0.0.1:0",
                                                    control=Path(folder) / "control.sock", limits=LIMITS))
            async with openai.AsyncOpenAI(base_url=f"{bound.url}/v1", api_key="none", max_retries=0,
                                          timeout=10) as client:
                yield node, client
            node.stop_requested.set()
            nursery.cancel_scope.cancel()
