"""Probe: the questions of a member as bytes on a stream, and the answers of a witness that may lie."""

from __future__ import annotations

from tests.fuzz.runner import fuzz, instrumented

with instrumented():
    import trio
    from trio.testing import MockClock

    from protocols.framing import encode_frame
    from protocols.probe.client import ask
    from protocols.probe.messages import ProbeError, ProbeOutcome, Reply, Request
    from protocols.probe.server import BURST, ProbeServer
    from tests.hostile.house import conversation
    from tests.identity.keys import peer
    from transports.peer_id import PeerId
    from transports.stream import memory_stream_pair


async def served(data: bytes) -> None:
    checked: list[PeerId] = []

    async def check(subject: PeerId) -> ProbeOutcome:
        checked.append(subject)
        return ProbeOutcome(len(checked) % 4 + 1)

    server = ProbeServer(check)
    payloads = await conversation("member", data, server.serve)
    assert len(payloads) <= len(checked) <= BURST  # a reset may overtake an answer
    assert "checking 0" in repr(server)


async def answered(data: bytes) -> None:
    near, far = memory_stream_pair(peer("member"), peer("mallory"))
    await far.write(data)
    await far.close()
    assert isinstance(await ask(near, peer("alice"), 1.0), ProbeOutcome)


def target(data: bytes) -> None:
    """First byte: 0 questions, 1 an answer."""
    side, body = served if data[:1] in (b"", b"\0") else answered, data[1:]
    trio.run(side, body, clock=MockClock(autojump_threshold=0))


def seeds() -> list[bytes]:
    question = encode_frame(Request(peer("alice"), 800).encode())
    answers = [encode_frame(Reply(outcome).encode()) for outcome in ProbeOutcome]
    return [b"\0" + question, b"\0" + question * 3] + [b"\1" + answer for answer in answers]


if __name__ == "__main__":
    fuzz(target, seeds(), (ProbeError,), max_len=2500)
