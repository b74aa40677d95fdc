"""A caller and a callee joined by memory streams: what the tests of the call protocol stand on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio
from trio.testing import wait_all_tasks_blocked

from protocols.call import call_pb2 as pb
from protocols.call.client import CallClient
from protocols.call.limits import CallLimits
from protocols.call.server import CallServer, Handler
from protocols.framing import FrameReader, encode_frame
from transports.peer_id import PeerId
from transports.stream import MemoryStream, memory_stream_pair

ALICE = PeerId.from_public_key(b"a" * 32)
BOB = PeerId.from_public_key(b"b" * 32)
CARD = b"c" * 32


@dataclass
class Line:
    """A client whose streams end at a server; remembers every stream it was given."""

    client: CallClient
    server: CallServer
    nursery: trio.Nursery
    ends: list[tuple[MemoryStream, MemoryStream]] = field(default_factory=list)

    async def open_stream(self, peer: PeerId) -> MemoryStream:
        assert peer == BOB
        near, far = memory_stream_pair(ALICE, BOB)
        self.ends.append((near, far))
        self.nursery.start_soon(self.server.serve, far)
        await trio.lowlevel.checkpoint()
        return near


@asynccontextmanager
async def line(server: CallServer | Handler, limits: CallLimits | None = None) -> AsyncIterator[Line]:
    """ALICE's client, joined to *server* (or one made of a handler) at BOB."""
    made = server if isinstance(server, CallServer) else CallServer(server, limits)
    async with trio.open_nursery() as nursery:
        joined: list[Line] = []

        async def open_stream(peer: PeerId) -> MemoryStream:
            return await joined[0].open_stream(peer)

        joined.append(Line(CallClient(open_stream, limits), made, nursery))
        nursery.start_soon(joined[0].client.run)
        yield joined[0]
        nursery.cancel_scope.cancel()


@dataclass
class RawCaller:
    """The caller's end of a served stream, for frames that no client of ours would send."""

    stream: MemoryStream
    reader: FrameReader

    async def send(self, *frames: pb.Frame) -> None:
        for frame in frames:
            await self.stream.write(encode_frame(frame.SerializeToString()))

    async def receive(self) -> pb.Frame | None:
        payload = await self.reader.read()
        return None if payload is None else pb.Frame.FromString(payload)


@asynccontextmanager
async def raw_caller(server: CallServer) -> AsyncIterator[RawCaller]:
    near, far = memory_stream_pair(ALICE, BOB)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.serve, far)
        await wait_all_tasks_blocked()  # served before the next one is
        yield RawCaller(near, FrameReader(near, 1 << 25))
        nursery.cancel_scope.cancel()


def opening(call: int, tool: str = "echo", args: bytes = b"{}", **fields: object) -> pb.Frame:
    values: dict[str, object] = {"card": CARD, "tool": tool, "args": args, "credit": 1 << 18, **fields}
    return pb.Frame(call=call, open=pb.Open(**values))  # type: ignore[arg-type]
