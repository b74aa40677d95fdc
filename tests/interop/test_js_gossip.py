"""GossipSub with js-libp2p, both ways: after admission only, and again after every reconnect."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from tests.interop.js_peer import Dialler, JsPeer, Transport, js_peer, meet
from tests.interop.test_js_connection import LISTEN
from tests.transports.support import TOPIC, eventually, seed
from transports.gossip import GossipMessage, Verdict
from transports.host import Host, open_host

pytestmark = pytest.mark.e2e

HEARTBEATS_S = 1.5
"""More than a heartbeat of either side: what would leak has leaked by then."""


class Listener:
    """What a host has heard on the topic."""

    def __init__(self, host: Host, js: JsPeer) -> None:
        self.host = host
        self.js = js
        self.heard: list[GossipMessage] = []

    def __call__(self, message: GossipMessage) -> Verdict:
        self.heard.append(message)
        return Verdict.ACCEPT

    def heard_data(self) -> list[bytes]:
        return [message.data for message in self.heard]

    async def both_ways(self, mark: str) -> None:
        """A message each way, and each arrives once, from its author."""
        await self.js.call("publish", topic=TOPIC, data=f"js {mark}")
        await eventually(lambda: f"js {mark}".encode() in self.heard_data())
        await self.host.gossip.publish(TOPIC, f"we {mark}".encode())
        mine = await self.js.event("message", data=f"we {mark}")
        assert (mine["topic"], mine["author"], mine["forwarder"]) == (TOPIC, *[str(self.host.peer_id)] * 2)
        theirs = [message for message in self.heard if message.data == f"js {mark}".encode()]
        assert theirs == [GossipMessage(TOPIC, self.js.peer_id, self.js.peer_id, f"js {mark}".encode())]

    async def in_touch(self) -> None:
        """Wait until each has heard that the other listens to the topic."""
        await eventually(lambda: self.js.peer_id in self.host.gossip.topic_peers(TOPIC))
        with trio.fail_after(5):
            while str(self.host.peer_id) not in await self.js.call("subscribers", topic=TOPIC):  # noqa: ASYNC110 - its state
                await trio.sleep(0.01)


@asynccontextmanager
async def listening(folder: Path) -> AsyncIterator[Listener]:
    """A host and a js peer, both on the topic, not yet connected. The host gossips with whom it has admitted."""
    async with js_peer(folder) as js, open_host(LISTEN, seed(1)) as host, trio.open_nursery() as nursery:
        listener = Listener(host, js)

        def connected(peer: object) -> None:
            if host.is_admitted(js.peer_id):
                nursery.start_soon(host.gossip.add_peer, js.peer_id)

        host.add_listener(connected, lambda peer: None)
        await host.gossip.subscribe(TOPIC, listener)
        await js.call("subscribe", topic=TOPIC)
        yield listener
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(("dialler", "transport"), [("js", "ws"), ("we", "tcp")])
async def test_messages_go_both_ways(js_folder: Path, dialler: Dialler, transport: Transport) -> None:
    async with listening(js_folder) as listener:
        listener.host.admit(listener.js.peer_id)
        await meet(listener.host, listener.js, dialler, transport)
        await listener.in_touch()
        for number in range(10):
            await listener.both_ways(str(number))
        assert len(listener.heard) == 10
        assert len(listener.js.said("message")) == 10
        assert listener.host.gossip.statistics().topics == {TOPIC: 1}
        assert listener.host.gossip.statistics().rejected == 0


async def test_silence_before_admission(js_folder: Path) -> None:
    """js opens its gossip stream as soon as it has identified us, is turned away, and opens it again on ours."""
    async with listening(js_folder) as listener:
        host, js = listener.host, listener.js
        await meet(host, js)
        await eventually(lambda: host.statistics().refused.get("stream of a stranger"))
        await js.call("publish", topic=TOPIC, data="too early")
        await host.gossip.publish(TOPIC, b"too early")
        await trio.sleep(HEARTBEATS_S)
        assert listener.heard == []
        assert js.said("message") == []
        assert not host.gossip.topic_peers(TOPIC)
        host.admit(js.peer_id)
        await host.gossip.add_peer(js.peer_id)
        await listener.in_touch()
        await listener.both_ways("admitted")


@pytest.mark.parametrize(("dialler", "who_leaves"), [("js", "we"), ("we", "js")])
async def test_gossip_survives_a_reconnect_at_once(js_folder: Path, dialler: Dialler, who_leaves: Dialler) -> None:
    """Bug F: the bare library forgets the subscriptions of a peer that is back within 100 ms."""
    async with listening(js_folder) as listener:
        host, js = listener.host, listener.js
        host.admit(js.peer_id)
        await meet(host, js, dialler)
        await listener.in_touch()
        await listener.both_ways("before")
        for number in range(3):
            if who_leaves == "js":
                await js.call("hangUp", peer=str(host.peer_id))
            else:
                await host.disconnect(js.peer_id)
            await eventually(lambda: not host.connections())
            await meet(host, js, dialler)
            await listener.in_touch()
            await trio.sleep(0.3)  # a late clean-up would come now
            await listener.both_ways(str(number))


async def test_an_expelled_js_peer_hears_nothing_more(js_folder: Path) -> None:
    async with listening(js_folder) as listener:
        host, js = listener.host, listener.js
        host.admit(js.peer_id)
        await meet(host, js)
        await listener.in_touch()
        await listener.both_ways("before")
        host.expel(js.peer_id)
        await eventually(lambda: not host.connections())
        await meet(host, js)
        await js.call("publish", topic=TOPIC, data="too late")
        await host.gossip.publish(TOPIC, b"too late")
        await trio.sleep(HEARTBEATS_S)
        assert listener.heard_data() == [b"js before"]
        assert [event["data"] for event in js.said("message")] == ["we before"]
