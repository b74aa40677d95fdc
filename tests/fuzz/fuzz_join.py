"""Join: the request of a stranger as bytes on a stream, and the reply of whoever says that it is an issuer."""

from __future__ import annotations

from tests.fuzz.runner import fuzz, instrumented

with instrumented():
    import trio
    from trio.testing import MockClock

    from protocols.framing import encode_frame
    from protocols.join.client import ask
    from protocols.join.messages import (
        Enrol,
        Enrolled,
        JoinError,
        Pending,
        Refused,
        Renew,
        Reply,
        encode_reply,
        encode_request,
    )
    from protocols.join.server import serve_join
    from tests.hostile.house import INVITE, conversation
    from tests.identity.keys import NOW, member, peer
    from transports.stream import memory_stream_pair


async def judge(who: object, request: object) -> Reply:
    assert isinstance(request, Enrol | Renew)
    return Reply(Pending(1), 1)


async def served(data: bytes) -> None:
    payloads = await conversation("mallory", data, lambda stream: serve_join(stream, judge, lambda: float(NOW)))
    assert len(payloads) <= 1


async def answered(data: bytes) -> None:
    near, far = memory_stream_pair(peer("guest"), peer("mallory"))
    await far.write(data)
    await far.close()
    reply = await ask(near, Renew(b""))
    assert isinstance(reply.outcome, Enrolled | Pending | Refused)


def target(data: bytes) -> None:
    """First byte: 0 a request, 1 a reply."""
    side, body = served if data[:1] in (b"", b"\0") else answered, data[1:]
    trio.run(side, body, clock=MockClock(autojump_threshold=0))


def seeds() -> list[bytes]:
    requests = [Enrol(INVITE.envelope, "laptop"), Renew(member())]
    replies = [Enrolled(member(), "home", member()), Pending(5), Refused("used_up", "no")]
    return [b"\0" + encode_frame(encode_request(request)) for request in requests] + [
        b"\1" + encode_frame(encode_reply(Reply(outcome, NOW))) for outcome in replies]


if __name__ == "__main__":
    fuzz(target, seeds(), (JoinError,), max_len=5000)
