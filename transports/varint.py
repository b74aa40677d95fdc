"""Unsigned varints: the lengths in front of frames, in libp2p's protocols and in ours. Pure."""

from __future__ import annotations

_SHORT = [bytes((value,)) for value in range(128)]


def encode_varint(value: int) -> bytes:
    """*value* as an unsigned varint in its shortest form."""
    if value < 128:
        return _SHORT[value]
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)
