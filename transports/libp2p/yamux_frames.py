"""The frames of yamux 1.0.0: their header, types, flags, and the sizes that both sides keep to."""

from __future__ import annotations

import struct

HEADER = struct.Struct("!BBHII")
"""Version (0), type, flags, stream id, length; only data frames have a payload of that length."""
HEADER_SIZE = HEADER.size

DATA, WINDOW_UPDATE, PING, GO_AWAY = range(4)
SYN, ACK, FIN, RST = 1, 2, 4, 8

NORMAL_TERMINATION = 0
GARBAGE_COLLECTED = 0x1005
"""What a GO_AWAY says of the end of the connection. The second is libp2p's connection error code for one that was idle
while there were many (go-libp2p core/network, ConnGarbageCollected): nobody has failed and nobody is going."""

INITIAL_WINDOW = 256 * 1024
"""Bytes that either side may send before the first window update; fixed by the specification."""

MAX_WINDOW = 1024 * 1024
"""Receive window of a stream that moves bulk: 20 MB/s at 50 ms, and the most one stream can make us hold."""

MAX_PAYLOAD = 60 * 1024
"""Bytes in a frame that we send: fits one Noise message, and keeps streams fair to each other."""


class ProtocolViolation(Exception):
    """The peer broke the yamux protocol; the connection is closed."""
