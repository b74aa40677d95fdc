"""A flood of strangers against one node: ``python -m tests.e2e.strangers ADDRESS INVITE SECONDS``.

A thousand workers, each at a loopback address of 127.0.1.x, connect again soon after they are put out: 600 say nothing,
340 begin a handshake that leads nowhere, 60 are whole libp2p nodes that ask to join with a spent invite, again and
again, on every stream they get. Prints what became of it as JSON. Made to be run niced, beside the node it floods.
"""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from functools import partial
from typing import Any

import trio

from atmosphere.identity.invite import parse_invite
from protocols.join.client import ask
from protocols.join.messages import PROTOCOL, Enrol, JoinError, Refused
from transports.addresses import parse, split_peer
from transports.config import HostConfig
from transports.errors import PeerUnreachable
from transports.host import Host, open_host
from transports.stream import StreamClosed

SILENT, HALF, WHOLE = 600, 340, 60
ADDRESSES = 250
AGAIN_S = 2.0
"""Before a worker that was put out comes back: five hundred connections per second in all. More measures this."""
HEAD_START_S = 3.0
JOINS_EACH = 4
"""Join requests at a time of one whole stranger, below what its streams are limited to."""
HELLO = b"\x13/multistream/1.0.0\n\x07/noise\n"


PLAIN = trio.open_tcp_stream


def source(worker: int) -> str:
    return f"127.0.1.{worker % ADDRESSES + 1}"


class Flood:
    """The workers and what they have seen."""

    def __init__(self, address: str, invite: str) -> None:
        self.peer, self.address = split_peer(address)
        self.invite = parse_invite(invite)
        self.seen: Counter[str] = Counter()

    async def raw(self, worker: int, first: bytes) -> None:
        """Connect, say *first*, and wait to be put out."""
        target = parse(self.address)
        while True:
            try:
                stream = await PLAIN(target.host, target.port, local_address=source(worker))
                self.seen["connections"] += 1
                async with stream:
                    await stream.send_all(first)
                    while await stream.receive_some(4096):
                        pass
            except (OSError, trio.BrokenResourceError):
                self.seen["not connected"] += 1
            await trio.sleep(AGAIN_S)

    async def whole(self, worker: int) -> None:
        """A libp2p node that connects and asks to join."""
        async with open_host(HostConfig(listen=()), os.urandom(32)) as host:
            while True:
                self.seen["connections"] += 1
                try:
                    await host.connect(self.peer, [self.address])
                    self.seen["handshakes"] += 1
                    async with trio.open_nursery() as nursery:
                        for _ in range(JOINS_EACH):
                            nursery.start_soon(self.join, host, worker)
                except PeerUnreachable:
                    self.seen["refused"] += 1
                await trio.sleep(AGAIN_S)

    async def join(self, host: Host, worker: int) -> None:
        try:
            while True:
                stream = await host.open_stream(self.peer, PROTOCOL)
                reply = await ask(stream, Enrol(self.invite.envelope, f"stranger {worker}"))
                outcome = reply.outcome
                self.seen[f"join: {outcome.code if isinstance(outcome, Refused) else type(outcome).__name__}"] += 1
                await trio.sleep(0.05)
        except (PeerUnreachable, JoinError, StreamClosed):
            self.seen["join: no answer"] += 1

    async def run(self, seconds: float) -> None:
        with trio.move_on_after(seconds):
            async with trio.open_nursery() as nursery:
                for worker in range(WHOLE):  # first, so that some have a connection when the others shut them out
                    nursery.start_soon(self.whole, worker)
                await trio.sleep(HEAD_START_S)
                for worker in range(SILENT):
                    nursery.start_soon(self.raw, worker, b"")
                for worker in range(HALF):
                    nursery.start_soon(self.raw, worker, HELLO + os.urandom(50))
                print("flooding", flush=True)


async def main(address: str, invite: str, seconds: float) -> None:
    flood = Flood(address, invite)
    local = iter(range(10**9))

    async def from_another_address(host: Any, port: int, **_: Any) -> trio.SocketStream:
        return await PLAIN(host, port, local_address=source(next(local)))

    trio.open_tcp_stream = from_another_address  # the whole strangers dial through our transport, which asks for none
    await flood.run(seconds)
    print(json.dumps(flood.seen), flush=True)


if __name__ == "__main__":
    trio.run(partial(main, sys.argv[1], sys.argv[2], float(sys.argv[3])))
