"""What waits for a slow gossip peer: bounded, in order, control first; and signatures of exactly one length."""

from __future__ import annotations

from typing import cast

import trio
import trio.testing
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.peer.id import ID
from libp2p.pubsub.pb import rpc_pb2

from transports.libp2p.gossip_outbox import QUEUE_LIMIT, GossipOutbox
from transports.libp2p.muxed_stream import MuxedStream
from transports.libp2p.pubsub import SIGNATURE_PREFIX, Pubsub


class Slow:
    """A stream that takes nothing until it is told to."""

    def __init__(self) -> None:
        self.open = trio.Event()
        self.written: list[bytes] = []

    def write_now(self, data: bytes) -> bool:
        if self.open.is_set():
            self.written.append(data)
        return self.open.is_set()

    async def write(self, data: bytes) -> None:
        await self.open.wait()
        self.written.append(data)


def outbox_to(stream: Slow, nursery: trio.Nursery) -> GossipOutbox:
    return GossipOutbox(cast(MuxedStream, stream), nursery)


async def test_a_frame_leaves_at_once_while_the_peer_keeps_up(nursery: trio.Nursery) -> None:
    stream = Slow()
    stream.open.set()
    outbox = outbox_to(stream, nursery)
    assert outbox.push(b"one")
    assert outbox.push(b"two", urgent=True)
    assert (stream.written, len(outbox)) == ([b"one", b"two"], 0)


async def test_what_waits_is_bounded_and_leaves_in_order_control_first(nursery: trio.Nursery) -> None:
    stream = Slow()
    outbox = outbox_to(stream, nursery)
    assert outbox.push(b"first")
    await trio.testing.wait_all_tasks_blocked()  # it is being written now; nothing may overtake it
    taken = [number for number in range(QUEUE_LIMIT + 5) if outbox.push(b"%d" % number, urgent=number % 2 == 0)]
    assert taken == list(range(QUEUE_LIMIT))
    stream.open.set()
    await trio.testing.wait_all_tasks_blocked()
    control, rest = range(0, QUEUE_LIMIT, 2), range(1, QUEUE_LIMIT, 2)
    assert stream.written == [b"first", *(b"%d" % number for number in (*control, *rest))]
    assert outbox.push(b"later")
    assert stream.written[-1] == b"later"


def test_bytes_behind_a_signature_are_not_taken_for_a_part_of_what_was_signed() -> None:
    keys = create_new_key_pair(bytes(32))
    author = ID.from_pubkey(keys.public_key).to_bytes()
    message = rpc_pb2.Message(data=b"data", topicIDs=["t"], from_id=author, seqno=b"1")
    signed = SIGNATURE_PREFIX + message.SerializeToString()
    message.signature = keys.private_key.sign(signed)
    assert Pubsub._verified_author(cast(Pubsub, None), message) is not None
    extra = b"of another kind: "
    message.signature = keys.private_key.sign(extra + signed) + extra
    assert Pubsub._verified_author(cast(Pubsub, None), message) is None
    for signature in (b"", bytes(63), bytes(64)):
        message.signature = signature
        assert Pubsub._verified_author(cast(Pubsub, None), message) is None
