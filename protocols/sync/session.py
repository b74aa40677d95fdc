"""Both sides of ``/atmosphere/sync/1``.

Order is the guarantee here. The serving side admits the opener before it sends its own hello, the opener admits the
serving side before it says Ready, and nobody uses the other before that: so no stream and no gossip of an admitted
peer ever meets a door that is still closed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import trio
from google.protobuf.message import DecodeError

from protocols.framing import FrameError, FrameReader, encode_frame
from protocols.sync import sync_pb2 as pb
from protocols.sync.messages import (
    HELLO_TIMEOUT,
    IDLE_TIMEOUT,
    MAX_FRAME_BYTES,
    MAX_HELLO_BYTES,
    MAX_KEYS,
    MAX_OVERVIEW_BYTES,
    MAX_OVERVIEW_ENTRIES,
    MAX_RECORDS_BYTES,
    OVERVIEW_ENTRIES,
    RECORDS_FRAME_BYTES,
    REQUEST_TIMEOUT,
    VERSION,
    Ask,
    Hello,
    Key,
    Kind,
    Known,
    Overview,
    Record,
    Refused,
    Source,
    SyncError,
)
from transports.peer_id import PeerId
from transports.stream import Stream, StreamClosed

Judge = Callable[[PeerId, Hello], None]
"""Admits the peer or raises :class:`Refused`. Called once per session, before anything else is exchanged."""


class Session:
    """The opener's side after the greeting. One request at a time; close it with :meth:`aclose`."""

    def __init__(self, channel: _Channel, hello: Hello) -> None:
        self._channel = channel
        self.hello = hello
        """What the other side said of itself."""

    @property
    def peer(self) -> PeerId:
        """Who is at the other end."""
        return self._channel.stream.peer

    async def overview(self, ask: Ask | None = None) -> Overview:
        """What the other side knows otherwise than *ask* says; None: all that it knows. Raises SyncError."""
        trust: list[Key] = []
        known: list[Known] = []
        size = 0
        with _deadline(REQUEST_TIMEOUT):
            await self._channel.send(pb.Frame(ask=(ask or Ask()).to_proto()))
            while True:
                part = (await self._channel.receive("overview")).overview
                size += part.ByteSize()
                trust.extend(Key(Kind(item.kind), item.key) for item in part.trust if item.kind in _KINDS)
                known.extend(Known.from_proto(item) for item in part.known)
                if len(known) + len(trust) > MAX_OVERVIEW_ENTRIES or size > MAX_OVERVIEW_BYTES:
                    raise SyncError(
                        f"an overview of more than {MAX_OVERVIEW_ENTRIES} entries or {MAX_OVERVIEW_BYTES} bytes"
                    )
                if part.last:
                    return Overview(trust, known)

    async def fetch(self, keys: Sequence[Key]) -> list[Record]:
        """The records of *keys* (at most MAX_KEYS) that the other side has. Raises SyncError."""
        if len(keys) > MAX_KEYS:
            raise ValueError(f"{len(keys)} keys in one request, {MAX_KEYS} are allowed")
        records: list[Record] = []
        size = 0
        with _deadline(REQUEST_TIMEOUT):
            await self._channel.send(pb.Frame(want=pb.Want(keys=[key.to_proto() for key in keys])))
            while True:
                part = (await self._channel.receive("records")).records
                size += part.ByteSize()
                for item in part.records:
                    if item.kind in _KINDS:  # later releases may add kinds
                        records.append(Record(Kind(item.kind), item.body))
                if len(records) > len(keys):
                    raise SyncError("more records than were asked for")
                if size > MAX_RECORDS_BYTES:
                    raise SyncError(f"more than {MAX_RECORDS_BYTES} bytes of records in one answer")
                if part.last:
                    return records

    async def aclose(self) -> None:
        await self._channel.stream.close()


def greeting(hello: Hello) -> bytes:
    """What a session begins with."""
    return encode_frame(pb.Frame(hello=hello.to_proto()).SerializeToString())


async def open_session(stream: Stream, hello: Hello | None, judge: Judge) -> Session:
    """Greet the peer at the other end of *stream*. On return both sides have admitted each other.

    *hello*: None if its :func:`greeting` was sent already. Raises :class:`Refused` (by them, or by *judge* after they
    were told) and :class:`SyncError`.
    """
    channel = _Channel(stream, MAX_HELLO_BYTES)
    with _deadline(HELLO_TIMEOUT):
        if hello is not None:
            await channel.send(pb.Frame(hello=hello.to_proto()))
        theirs = await channel.receive("hello", "refusal")
        if theirs.HasField("refusal"):
            raise Refused(theirs.refusal.code[:64], theirs.refusal.message[:500])
        try:
            their_hello = _hello(theirs.hello)
            judge(stream.peer, their_hello)
        except Refused as refusal:
            await channel.refuse(refusal)
            raise
        await channel.send(pb.Frame(ready=pb.Ready()))
    channel.admit()
    return Session(channel, their_hello)


async def serve_session(
    stream: Stream, hello: Callable[[], Hello], judge: Judge, ready: Callable[[PeerId], None], source: Source
) -> None:
    """Answer the session that a peer opened, until it closes it.

    *ready* is called when the opener has admitted us too: from then on it may be called and gossiped to.
    Raises :class:`Refused` after the peer was told, and :class:`SyncError`.
    """
    channel = _Channel(stream, MAX_HELLO_BYTES)
    with _deadline(HELLO_TIMEOUT):
        theirs = (await channel.receive("hello")).hello
        try:
            judge(stream.peer, _hello(theirs))
        except Refused as refusal:
            await channel.refuse(refusal)
            raise
        await channel.send(pb.Frame(hello=hello().to_proto()))
        answer = await channel.receive("ready", "refusal")
        if answer.HasField("refusal"):
            raise Refused(answer.refusal.code[:64], answer.refusal.message[:500])
    channel.admit()
    ready(stream.peer)
    while True:
        with _deadline(IDLE_TIMEOUT):
            request = await channel.receive_or_end("ask", "want")
        if request is None:
            await stream.close()
            return
        with _deadline(REQUEST_TIMEOUT):
            if request.HasField("ask"):
                await _send_overview(channel, source.overview(stream.peer, Ask.from_proto(request.ask)))
            else:
                await _send_records(channel, source, request.want)


async def _send_overview(channel: _Channel, overview: Overview) -> None:
    for start in range(0, len(overview.trust), OVERVIEW_ENTRIES):
        keys = [key.to_proto() for key in overview.trust[start : start + OVERVIEW_ENTRIES]]
        await channel.send(pb.Frame(overview=pb.Overview(trust=keys)))
    for start in range(0, len(overview.known), OVERVIEW_ENTRIES):
        known = [entry.to_proto() for entry in overview.known[start : start + OVERVIEW_ENTRIES]]
        await channel.send(pb.Frame(overview=pb.Overview(known=known)))
    await channel.send(pb.Frame(overview=pb.Overview(last=True)))


async def _send_records(channel: _Channel, source: Source, want: pb.Want) -> None:
    if len(want.keys) > MAX_KEYS:
        raise SyncError(f"{len(want.keys)} keys in one request, {MAX_KEYS} are allowed")
    keys = [Key(Kind(item.kind), item.key) for item in want.keys if item.kind in _KINDS]
    batch = pb.Records()
    size = 0
    for record in source.records(keys):
        if size and size + len(record.body) > RECORDS_FRAME_BYTES:
            await channel.send(pb.Frame(records=batch))
            batch, size = pb.Records(), 0
        batch.records.append(record.to_proto())
        size += len(record.body)
    batch.last = True
    await channel.send(pb.Frame(records=batch))


_KINDS = frozenset(int(kind) for kind in Kind)


def _hello(message: pb.Hello) -> Hello:
    if message.version != VERSION:
        raise Refused("version", f"sync version {message.version} is not spoken here, only {VERSION}: update one side")
    return Hello(message.mesh, message.membership, message.trust, message.agent[:64], message.now_ms, message.nodes)


class _Channel:
    """Frames on the stream, with the limits of the phase the session is in."""

    def __init__(self, stream: Stream, max_frame: int) -> None:
        self.stream = stream
        self._reader = FrameReader(stream, max_frame)

    def admit(self) -> None:
        self._reader.max_frame = MAX_FRAME_BYTES

    async def send(self, frame: pb.Frame) -> None:
        try:
            await self.stream.write(encode_frame(frame.SerializeToString()))
        except StreamClosed as error:
            raise SyncError(f"the peer closed the session: {error}") from error

    async def refuse(self, refusal: Refused) -> None:
        """Tell the peer why, then end our side, so that the reason is read before the stream goes."""
        await self.send(pb.Frame(refusal=pb.Refusal(code=refusal.code, message=refusal.message)))
        await self.stream.close()

    async def receive(self, *expected: str) -> pb.Frame:
        frame = await self.receive_or_end(*expected)
        if frame is None:
            raise SyncError(f"the peer ended the session where {' or '.join(expected)} was due")
        return frame

    async def receive_or_end(self, *expected: str) -> pb.Frame | None:
        try:
            payload = await self._reader.read()
            if payload is None:
                return None
            frame = pb.Frame.FromString(payload)
        except (FrameError, StreamClosed) as error:
            raise SyncError(str(error)) from error
        except DecodeError as error:
            raise SyncError("a frame that is not protobuf") from error
        found = frame.WhichOneof("body")
        if found not in expected:
            raise SyncError(f"{found or 'an unknown message'} where {' or '.join(expected)} was due")
        return frame


@contextmanager
def _deadline(seconds: float) -> Iterator[None]:
    with trio.move_on_after(seconds) as limit:
        yield
    if limit.cancelled_caught:
        raise SyncError(f"the peer did not answer within {seconds:g} s")
