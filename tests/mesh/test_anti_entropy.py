"""Anti-entropy among whole nodes: a line of four is cut in the middle, both halves learn, the link comes back.

The nodes connect along the line only. Who is dead over there is said by the test: how a node finds that out is the
failure detector's business.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import pairwise
from pathlib import Path

import pytest
import trio

from atmosphere.identity import Keyring, Target
from atmosphere.mesh.inventory import Inventory
from atmosphere.mesh.reconciler import Reconciler
from atmosphere.mesh.table import State
from atmosphere.node import Node
from protocols.sync.messages import Ask, Hello, Overview, SyncError
from tests.meshes import ENV, Meshes, knows, until
from transports.errors import PeerUnreachable
from transports.host import Host
from transports.peer_id import PeerId

pytestmark = pytest.mark.e2e

HEALED_S = 2.0


class Cables:
    """Which nodes can reach which: a dial along anything else fails at once."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.nodes: set[PeerId] = set()
        self.up: set[frozenset[PeerId]] = set()
        connect = Host.connect

        async def guarded(
            host: Host, peer: PeerId, addresses: Sequence[str], *, timeout_s: float | None = None
        ) -> None:
            ends = frozenset((host.peer_id, peer))
            if ends <= self.nodes and ends not in self.up:
                raise PeerUnreachable("no cable", refused=False)
            await connect(host, peer, addresses, timeout_s=timeout_s)

        monkeypatch.setattr(Host, "connect", guarded)

    async def pull(self, left: Node, right: Node) -> None:
        self.up.remove(frozenset((left.peer_id, right.peer_id)))
        await left.host.disconnect(right.peer_id)
        await right.host.disconnect(left.peer_id)

    async def plug(self, left: Node, right: Node) -> None:
        self.up.add(frozenset((left.peer_id, right.peer_id)))
        await left.host.connect(right.peer_id, right.addresses())


@asynccontextmanager
async def line_of(folder: Path, names: str, cables: Cables) -> AsyncIterator[tuple[Meshes, list[Node]]]:
    """Running nodes, each connected to the one before it only; all know each other."""
    meshes = Meshes(folder)
    async with AsyncExitStack() as stack:
        homes = [meshes.found(names[0])]
        async with meshes.node(homes[0]) as founder:
            invite = founder.create_invite(len(names), 3600)
            homes += [await meshes.join(name, invite, at=founder) for name in names[1:]]
        peers = [Keyring(home).node_peer_id(ENV.token_bytes) for home in homes]
        cables.nodes.update(peers)
        cables.up.update(frozenset(pair) for pair in pairwise(peers))
        nodes: list[Node] = []
        for home in homes:
            nodes.append(await stack.enter_async_context(meshes.node(home, *nodes[-1:])))
        took = await until(lambda: all(knows(node, other) for node in nodes for other in nodes))
        print(f"\na line of {len(nodes)} knows itself after {took:.2f} s")
        yield meshes, nodes


def routes(node: Node) -> set[tuple[PeerId, str]]:
    return {(route.node.peer, route.card.description) for route in node.table.routes()}


def root(node: Node) -> bytes:
    return node.mesh.neighbours.inventory.nodes.root


def give_up(nodes: Sequence[Node], others: Sequence[Node]) -> None:
    for node in nodes:
        for other in others:
            node.table.gone(other.peer_id, "the detector's verdict")


async def learn(node: Node, folder: Path, text: str) -> None:
    """The node offers something new."""
    notes = trio.Path(folder)
    await notes.mkdir()
    await (notes / "notes.md").write_text(f"# {text}\n\n{text} is what this node alone knows.\n")
    await node.add_knowledge(folder)


async def test_halves_that_learnt_apart_are_whole_when_the_link_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cables = Cables(monkeypatch)
    async with line_of(tmp_path, "ABCD", cables) as (meshes, nodes):
        a, b, c, d = nodes
        stolen = await meshes.join("stolen", a.create_invite(1, 3600))
        home = await meshes.join("E", a.create_invite(1, 3600))
        ghost = Keyring(home).node_peer_id(ENV.token_bytes)
        cables.nodes.add(ghost)
        cables.up.add(frozenset((d.peer_id, ghost)))
        async with meshes.node(home, d) as e:
            await until(lambda: all(knows(node, e) for node in nodes))
            await cables.pull(b, c)
            give_up((a, b), (c, d, e))
            give_up((c, d), (a, b))
            # Both halves learn: revocations, offers, and the last words of E, which dies without a goodbye.
            await a.revoke(Target.PEER, Keyring(stolen).node_peer_id(ENV.token_bytes).public_key, "stolen")
            await learn(a, tmp_path / "left", "The history of tin")
            await learn(d, tmp_path / "right", "The breeding of eels")
            spoken = e.announcer.sequence
            await learn(e, tmp_path / "ghost", "The last words")
            await until(lambda: (beacon := c.table.nodes[ghost].beacon) and beacon.sequence > spoken)

            async def dies() -> None:
                return None

            monkeypatch.setattr(e.mesh, "say_goodbye", dies)
        give_up((c, d), (e,))
        await trio.sleep(4.0)  # until gossip has forgotten E's words: their age is not what is tested here
        assert root(a) == root(b) != root(c) == root(d)
        assert a.mesh.trust.digest != d.mesh.trust.digest
        first_change = [node.table.version for node in nodes]

        began = trio.current_time()
        await cables.plug(c, b)
        for what, same in (
            ("who is there", lambda: len({root(node) for node in nodes}) == 1),
            ("who may act", lambda: len({node.mesh.trust.digest for node in nodes}) == 1),
            ("routes", lambda: len({frozenset(routes(node)) for node in nodes}) == 1),
        ):
            await until(same, HEALED_S)
            print(f"{what}: equal on all four {trio.current_time() - began:.2f} s after the dial")
        assert trio.current_time() - began < HEALED_S
        assert all(knows(node, other) for node in nodes for other in nodes)
        assert len({peer for peer, _ in routes(a)}) == 4
        for node, version in zip(nodes, first_change, strict=True):
            assert node.table.nodes[ghost].state is State.OFFLINE
            back = [change for change in node.table.changes if change.peer == ghost and change.number > version]
            assert not any(change.what == "online" for change in back)
        seen = {node.table.nodes[ghost].beacon for node in nodes}
        assert len(seen) == 1  # what it said last is known everywhere, and proves nothing


async def test_equal_neighbours_exchange_greetings_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    meshes = Meshes(tmp_path)
    async with meshes.node(meshes.found("A")) as a:
        home = await meshes.join("B", a.create_invite(1, 3600))
        async with meshes.node(home, a) as b:
            await until(lambda: knows(a, b) and knows(b, a) and root(a) == root(b))
            asked: list[Ask] = []
            answer = Inventory.answer

            def noted(inventory: Inventory, ask: Ask) -> Overview:
                asked.append(ask)
                return answer(inventory, ask)

            greeted: list[Hello] = []
            question = Inventory.question

            def heard(inventory: Inventory, hello: Hello, *, answering: bool) -> Ask | None:
                greeted.append(hello)
                return question(inventory, hello, answering=answering)

            monkeypatch.setattr(Inventory, "answer", noted)
            monkeypatch.setattr(Inventory, "question", heard)
            began = trio.current_time()
            for _ in range(20):
                await a.mesh.neighbours.reconcile(b.peer_id)
            print(f"\na comparison that finds nothing: {(trio.current_time() - began) * 50:.1f} ms on both sides")
            assert len(greeted) == 20
            assert asked == []
            b.table.gone(a.peer_id, "so b thinks")
            await a.mesh.neighbours.reconcile(b.peer_id)
            assert len(asked) == 1


@pytest.mark.parametrize("failures", [1, 4])
async def test_a_greeting_that_breaks_off_is_begun_again(
    failures: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once on the same connection; a peer that never answers is let go and dialled again."""
    monkeypatch.setattr("atmosphere.mesh.neighbours.GREET_AGAIN_S", 0.05)
    meshes = Meshes(tmp_path)
    broken: list[PeerId] = []
    async with meshes.node(meshes.found("A")) as a:
        home = await meshes.join("B", a.create_invite(1, 3600))
        overview = Reconciler.overview

        def breaks(reconciler: Reconciler, peer: PeerId, ask: Ask) -> Overview:
            if reconciler is a.mesh.neighbours._reconciler and len(broken) < failures:
                broken.append(peer)
                raise SyncError("the disk is full")
            return overview(reconciler, peer, ask)

        monkeypatch.setattr(Reconciler, "overview", breaks)
        async with meshes.node(home, a) as b:
            await until(lambda: knows(b, a) and knows(a, b))
            assert broken == [b.peer_id] * failures
            assert b.mesh.neighbours.ready() == [a.peer_id]
