"""Calls: a callee against any caller, and a caller against any callee."""

from __future__ import annotations

from contextlib import suppress

from tests.fuzz.runner import fuzz, instrumented

with instrumented():
    import trio
    from trio.testing import MockClock

    from protocols.call import call_pb2 as pb
    from protocols.call.client import CallClient
    from protocols.call.errors import CallError
    from protocols.call.messages import IncomingCall, IncomingSubscription
    from protocols.call.server import CallServer, Emit, EmitEvent
    from protocols.framing import encode_frame
    from tests.hostile.house import conversation
    from tests.identity.keys import peer
    from transports.stream import MemoryStream, memory_stream_pair

CARD = bytes(32)


async def handler(call: IncomingCall, emit: Emit) -> bytes:
    await emit(call.args)
    return call.args


async def subscribed(subscription: IncomingSubscription, emit: EmitEvent) -> None:
    await emit(subscription.filter, 1)


async def served(data: bytes) -> None:
    server = CallServer(handler, subscribe=subscribed)
    with trio.move_on_after(3600):
        await conversation("mallory", data, server.serve)
    left = server.statistics()
    assert (left.streams, left.calls, left.peers, left.args_bytes) == (0, 0, 0, 0), left


async def answered(data: bytes) -> None:
    async def open_stream(_: object) -> MemoryStream:
        near, far = memory_stream_pair(peer("guest"), peer("mallory"))
        await far.write(data)
        await far.close()
        return near

    client = CallClient(open_stream)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.run)
        with suppress(CallError):
            await client.request(peer("mallory"), CARD, "tool", b"{}", deadline_s=5)
        nursery.cancel_scope.cancel()


def target(data: bytes) -> None:
    """First byte: 0 the frames of a caller, 1 of a callee."""
    side, body = served if data[:1] in (b"", b"\0") else answered, data[1:]
    trio.run(side, body, clock=MockClock(autojump_threshold=0))


def seeds() -> list[bytes]:
    opening = pb.Frame(call=1, open=pb.Open(card=CARD, tool="x", args=b"{}", credit=9))
    subscribe = pb.Frame(call=2, subscribe=pb.Subscribe(card=CARD, trigger="x", filter=b"{}", credit=9))
    caller = [opening, subscribe, pb.Frame(call=1, credit=pb.Credit(bytes=5)), pb.Frame(call=1, cancel=pb.Cancel())]
    callee = [
        pb.Frame(call=1, accepted=pb.Accepted()), pb.Frame(call=1, data=pb.Data(payload=b"x")),
        pb.Frame(call=1, result=pb.Result(payload=b"{}", load=pb.Load(permille=5, queue=1))),
    ]
    failed = [pb.Frame(call=1, error=pb.Error(code="overloaded", message="no", retryable=True, retry_after_ms=9))]
    flows = ((b"\0", caller), (b"\1", callee), (b"\1", failed), (b"\1", [pb.Frame(error=failed[0].error)]))
    return [side + b"".join(encode_frame(f.SerializeToString()) for f in frames) for side, frames in flows]


if __name__ == "__main__":
    fuzz(target, seeds(), ())
