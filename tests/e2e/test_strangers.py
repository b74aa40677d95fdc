"""SPEC "Admission": a node of another mesh and a node without a membership get a reason, and nothing else.

Node A is a real process; the strangers are real hosts in this one that try everything they can. A member does the same
beside them, so that silence on the strangers' side proves something.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
import trio

from protocols.beacons import beacons_topic
from protocols.call import CallError, Code
from protocols.call.client import CallClient
from protocols.sync.messages import PROTOCOL as SYNC
from protocols.sync.messages import Hello, Refused
from protocols.sync.session import open_session
from tests.processes import Node, eventually, invite, nodes
from transports.addresses import split_peer
from transports.config import HostConfig
from transports.errors import PeerUnreachable
from transports.gossip import GossipMessage, Verdict
from transports.host import Host, open_host
from transports.peer_id import PeerId

pytestmark = pytest.mark.e2e

CALL = "/atmosphere/call/1"
LISTEN_S = 4.0
"""Longer than it takes A to speak after its offer has changed (1 s), which the tests make it do."""


@pytest.fixture
def a() -> Iterator[Node]:
    with nodes() as group:
        yield group.start("A", options=("--no-probe",))


def address_of(node: Node) -> tuple[PeerId, str]:
    status = json.loads(node.command("status", "--json"))
    return split_peer(status["me"]["addresses"][0])


def owner_key(node: Node) -> bytes:
    status = json.loads(node.command("status", "--json"))
    return PeerId.parse(status["mesh"]["id"]).public_key


@asynccontextmanager
async def stranger(node: Node, seed: int) -> AsyncIterator[tuple[Host, PeerId, list[GossipMessage]]]:
    """A host connected to *node* that subscribes to its beacons and takes everything in."""
    heard: list[GossipMessage] = []
    peer, address = address_of(node)

    def hear(message: GossipMessage) -> Verdict:
        heard.append(message)
        return Verdict.ACCEPT

    async with open_host(HostConfig(), bytes([seed]) * 32) as host:
        mesh_id = json.loads(node.command("status", "--json"))["mesh"]["id"]
        await host.gossip.subscribe(beacons_topic(mesh_id), hear)
        await host.connect(peer, [address])
        host.admit(peer)  # the stranger is open to A; it is A that must not be open to the stranger
        yield host, peer, heard


async def greet(host: Host, peer: PeerId, mesh: bytes, membership: bytes) -> Refused:
    hello = Hello(mesh=mesh, membership=membership, trust=bytes(32), agent="stranger", now_ms=0)
    with pytest.raises(Refused) as refused:
        await open_session(await host.open_stream(peer, SYNC), hello, lambda *_: None)
    return refused.value


async def call_health(host: Host, peer: PeerId) -> CallError:
    client = CallClient(lambda to: host.open_stream(to, CALL))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.run)
        with pytest.raises(CallError) as failed:
            await client.request(peer, bytes(32), "check", b"{}", deadline_s=5)
        nursery.cancel_scope.cancel()
    return failed.value


async def make_it_speak(node: Node, folder: str) -> None:
    """Change what *node* offers, so that it sends a beacon now."""
    (node.home / folder).mkdir()
    (node.home / folder / "note.md").write_text(f"# {folder}\n\nWhat {folder} is about, in a few words.\n")
    await trio.to_thread.run_sync(node.command, "knowledge", "add", str(node.home / folder))


@pytest.mark.parametrize("own_mesh", [False, True], ids=["no membership", "another mesh"])
async def test_a_stranger_is_told_why_and_hears_nothing(a: Node, own_mesh: bool) -> None:
    other_mesh = bytes(PeerId.parse("12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN").public_key)
    async with stranger(a, 7) as (host, peer, heard):
        refused = await greet(host, peer, other_mesh if own_mesh else owner_key(a), b"")
        assert refused.code == ("foreign_mesh" if own_mesh else "no_membership")
        assert "invite" in refused.message
    async with stranger(a, 8) as (host, peer, heard):
        error = await call_health(host, peer)
        assert error.code in (Code.UNAVAILABLE, Code.UNKNOWN_OUTCOME)  # the stream was reset, nothing answered
        with trio.move_on_after(5):  # A resets the stream, at once or after it was opened
            with contextlib.suppress(PeerUnreachable):
                await host.gossip.add_peer(peer)
        await make_it_speak(a, "first")
        await trio.sleep(LISTEN_S)
        assert heard == []
        mesh_id = json.loads(a.command("status", "--json"))["mesh"]["id"]
        assert host.gossip.topic_peers(beacons_topic(mesh_id)) == frozenset()
    assert [node["name"] for node in a.get("/v1/mesh/nodes")["nodes"]] == ["A"]


async def test_a_member_in_the_same_place_hears_beacons_and_gets_its_call_through(a: Node) -> None:
    """The control: what the strangers do not get is there to be had."""
    with nodes() as group:
        member = await trio.to_thread.run_sync(lambda: group.start("M", invite=invite(a), options=("--no-probe",)))
        health = await trio.to_thread.run_sync(
            lambda: eventually("M knows A", 10, lambda: next(
                (n for n in member.get("/v1/mesh/nodes")["nodes"] if n["name"] == "A" and n["capabilities"]), None))
        )
        await make_it_speak(a, "second")
        await trio.to_thread.run_sync(
            lambda: eventually("M hears of what A indexed", 10, lambda: True if any(
                item["type"] == "knowledge/answer" for node in member.get("/v1/mesh/nodes")["nodes"]
                if node["name"] == "A" for item in node["capabilities"]) else None)
        )
        answer = await trio.to_thread.run_sync(
            lambda: json.loads(member.command("call", "system/health", "check", "--node", health["peer_id"]))
        )
        assert answer


def test_a_node_of_another_mesh_is_told_why_in_its_log(a: Node) -> None:
    with nodes() as group:
        peer, address = address_of(a)
        other = group.start("X", options=("--no-probe", "--bootstrap", f"{address}/p2p/{peer}"))
        eventually("X says why A refused it", 15, lambda: True if "another mesh" in other.log else None)
        assert [node["name"] for node in a.get("/v1/mesh/nodes")["nodes"]] == ["A"]
        assert [node["name"] for node in other.get("/v1/mesh/nodes")["nodes"]] == ["X"]
