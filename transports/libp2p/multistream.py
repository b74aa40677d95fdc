"""multistream-select 1.0.0 on a muxed stream.

Wrong in 0.8.1 (slow, not unsafe): opening a stream takes two round trips (header, then protocol), and each byte is read
behind a lock. Here the opener sends header and protocol at once, as the specification allows and go-libp2p does.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from libp2p.stream_muxer.exceptions import MuxedStreamError

from transports.libp2p.muxed_stream import MuxedStream

_HEADER = "/multistream/1.0.0"
_REFUSED = "na"

MAX_LINE = 256
"""Bytes of a protocol name; ours have at most 60."""

MAX_PROPOSALS = 32
"""Protocols that a peer may propose on one stream. GossipSub proposes five."""


class NegotiationError(Exception):
    """No protocol was agreed on; the text says why."""


class NotAllowedError(NegotiationError):
    """The peer chose a protocol that it may not use; it has got no answer."""


def encode_line(text: str) -> bytes:
    line = text.encode() + b"\n"
    size = len(line)
    prefix = bytes([size]) if size < 128 else bytes([size & 0x7F | 0x80, size >> 7])
    return prefix + line


async def _read(stream: MuxedStream, size: int) -> bytes:
    data = b""
    while len(data) < size:
        data += await stream.read(size - len(data))
    return data


async def read_line(stream: MuxedStream) -> str:
    """One message. Reads no byte beyond it. Raises NegotiationError on anything that is not one."""
    size = shift = 0
    while True:
        byte = (await _read(stream, 1))[0]
        size |= (byte & 0x7F) << shift
        shift += 7
        if byte < 128:
            break
        if shift > 14:
            raise NegotiationError("a length that is no varint")
    if not 0 < size <= MAX_LINE:
        raise NegotiationError(f"a line of {size} bytes, the longest is {MAX_LINE}")
    line = await _read(stream, size)
    if line[-1:] != b"\n":
        raise NegotiationError("a line without its end")
    try:
        return line[:-1].decode()
    except UnicodeDecodeError:
        raise NegotiationError("a line that is not UTF-8") from None


async def propose(stream: MuxedStream, protocols: Sequence[str], opening: bytes = b"") -> str:
    """Agree on the first of *protocols* that the peer speaks; raises NegotiationError when there is none.

    *opening*: what the first of them begins with, sent at once; to a peer that does not speak it, it is noise.
    """
    try:
        await stream.write(encode_line(_HEADER) + encode_line(protocols[0]) + opening)
        if await read_line(stream) != _HEADER:
            raise NegotiationError("the peer does not speak multistream-select")
        for protocol, following in zip(protocols, [*protocols[1:], None], strict=True):
            answer = await read_line(stream)
            if answer == protocol:
                return protocol
            if answer != _REFUSED:
                raise NegotiationError(f"the peer answered {answer!r} to {protocol}")
            if following is not None:
                await stream.write(encode_line(following))
    except MuxedStreamError as error:
        raise NegotiationError(str(error)) from error
    raise NegotiationError(f"the peer speaks none of {', '.join(protocols)}")


async def answer(stream: MuxedStream, spoken: Collection[str], allowed: Callable[[str], bool]) -> str:
    """Let the peer choose one of *spoken*; raises NegotiationError when it does not.

    A choice that is not *allowed* raises NotAllowedError and is not answered: a stream that is agreed on and reset in
    one breath counts as open in js-libp2p's gossip for as long as the connection lasts.
    """
    try:
        if await read_line(stream) != _HEADER:
            raise NegotiationError("the peer does not speak multistream-select")
        reply = encode_line(_HEADER)
        for _ in range(MAX_PROPOSALS):
            if reply and not stream.buffered:  # the proposal has not come along with the header
                await stream.write(reply)
                reply = b""
            proposal = await read_line(stream)
            if proposal in spoken:
                if not allowed(proposal):
                    raise NotAllowedError(f"{proposal} is not for this peer")
                await stream.write(reply + encode_line(proposal))
                return proposal
            await stream.write(reply + encode_line(_REFUSED))
            reply = b""
    except MuxedStreamError as error:
        raise NegotiationError(str(error)) from error
    raise NegotiationError(f"the peer proposed {MAX_PROPOSALS} protocols that nobody speaks here")

