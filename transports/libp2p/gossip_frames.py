"""RPCs of gossip as bytes: each behind its length, a varint."""

from __future__ import annotations

from libp2p.pubsub.pb import rpc_pb2

from transports.varint import encode_varint


def frame_of(rpc: rpc_pb2.RPC) -> bytes:
    """The bytes of *rpc* as they travel."""
    data = rpc.SerializeToString()
    return encode_varint(len(data)) + data


def read_rpc(frame: bytes) -> rpc_pb2.RPC:
    """What :func:`frame_of` made bytes of, without the length. Raises DecodeError."""
    return rpc_pb2.RPC.FromString(frame)


def split_frame(buffer: bytes, limit: int) -> tuple[bytes | None, bytes]:
    """The first length-prefixed frame of *buffer* and what follows it; ``(None, buffer)`` while it is incomplete.

    Raises ValueError for a length above *limit* or a varint that does not end.
    """
    size = shift = 0
    for position, byte in enumerate(buffer[:5]):
        size |= (byte & 0x7F) << shift
        shift += 7
        if byte < 128:
            if size > limit:
                raise ValueError(f"a frame of {size} bytes, the largest is {limit}")
            start = position + 1
            if len(buffer) < start + size:
                return None, buffer
            return buffer[start : start + size], buffer[start + size :]
    if len(buffer) >= 5:
        raise ValueError("a length that is no varint")
    return None, buffer
