"""Sync: both sides of a session against a peer that sends anything, before and after it was admitted."""

from __future__ import annotations

from tests.fuzz.runner import fuzz, instrumented

with instrumented():
    import trio
    from trio.testing import MockClock

    from protocols.framing import encode_frame
    from protocols.records import records_pb2
    from protocols.sync import sync_pb2 as pb
    from protocols.sync.messages import Hello, Key, Kind, Known, Overview, Record, Refused, SyncError
    from protocols.sync.session import open_session, serve_session
    from protocols.sync.summary import Summary
    from tests.hostile.house import conversation
    from tests.identity.keys import MESH, NOW, member, peer
    from transports.stream import memory_stream_pair

HELLO = Hello(MESH, member(), bytes(32), "test", NOW * 1000)
KEYS = [Key(Kind.CARD, bytes(32)), Key(Kind.BEACON, bytes(32))]


class Shelf:
    """A node that knows one of everything."""

    def overview(self, who, ask):  # type: ignore[no-untyped-def]
        known = [Known(bytes(32), 1, 1)]
        differs = Summary((item.author, b"") for item in known).differing(ask.nodes)
        return Overview([], [item for item in known if differs(item.author)])

    def records(self, keys):  # type: ignore[no-untyped-def]
        return [Record(key.kind, b"body") for key in keys]


def judge(who: object, hello: Hello) -> None:
    if hello.mesh != MESH:
        raise Refused("foreign_mesh", "another mesh")


async def served(data: bytes) -> None:
    async def serve(stream):  # type: ignore[no-untyped-def]
        try:
            await serve_session(stream, lambda: HELLO, judge, lambda who: None, Shelf())
        except (Refused, SyncError):
            await stream.reset()

    await conversation("mallory", data, serve)


async def answered(data: bytes) -> None:
    near, far = memory_stream_pair(peer("guest"), peer("mallory"))
    await far.write(data)
    await far.close()
    session = await open_session(near, HELLO, judge)
    await session.overview()
    records = await session.fetch(KEYS)
    assert len(records) <= len(KEYS)


def target(data: bytes) -> None:
    """First byte: 0 the frames of one who opened a session, 1 of one who answers."""
    side, body = served if data[:1] in (b"", b"\0") else answered, data[1:]
    trio.run(side, body, clock=MockClock(autojump_threshold=0))


def seeds() -> list[bytes]:
    hello = pb.Frame(hello=HELLO.to_proto())
    want = pb.Frame(want=pb.Want(keys=[key.to_proto() for key in KEYS]))
    record = records_pb2.Record(kind=records_pb2.KIND_CARD, body=b"x")
    opener = [hello, pb.Frame(ready=pb.Ready()), pb.Frame(ask=pb.Ask(nodes=bytes(32), trust=bytes(8))), want]
    answer = [
        hello, pb.Frame(overview=pb.Overview(known=[pb.Known(author=bytes(32), epoch=1, sequence=1)])),
        pb.Frame(overview=pb.Overview(last=True)), pb.Frame(records=pb.Records(records=[record], last=True)),
    ]
    refused = [pb.Frame(refusal=pb.Refusal(code="x", message="y"))]
    flows = ((b"\0", opener), (b"\1", answer), (b"\1", refused), (b"\0", [hello, *refused]))
    return [side + b"".join(encode_frame(f.SerializeToString()) for f in frames) for side, frames in flows]


if __name__ == "__main__":
    fuzz(target, seeds(), (SyncError, Refused))
