"""What ``/atmosphere/call/1`` takes at most, each number with its reason. Both sides keep the same ones."""

from __future__ import annotations

from dataclasses import dataclass

KIB, MIB = 1024, 1024 * 1024


@dataclass(frozen=True, slots=True)
class CallLimits:
    """Sizes in bytes, times in seconds."""

    max_args: int = 16 * MIB
    """Arguments or result of one call: a chat with several images in base64; what HTTP servers of this kind take."""

    max_frame: int = 16 * MIB + 64 * KIB
    """One frame: the largest arguments and the fields around them."""

    max_data: int = 256 * KIB
    """Payload of one Data or Event frame that is taken."""

    piece: int = 64 * KIB
    """Payload of one Data frame that is sent: other calls on the stream get their turn between two pieces."""

    window: int = 256 * KIB
    """Credit a caller gives: unread data it holds per call. One yamux window: more could not be under way anyway."""

    calls_per_stream: int = 128
    """Open calls on one stream. Beyond it the callee answers ``overloaded``."""

    calls_per_peer: int = 256
    """Open calls of one peer on all its streams: one node cannot take all of another."""

    args_per_peer: int = 64 * MIB
    """Arguments of one peer's open calls together: four of the largest."""

    streams_per_peer: int = 16
    """Streams a callee serves for one peer; twice what a caller of ours opens, as closing takes a round trip."""

    shared_streams: int = 3
    """Streams a caller opens to one peer for ordinary calls. One is enough; more help when many stream at once."""

    busy_stream: int = 48
    """Calls on a stream that make the caller open its next one."""

    bulk_streams: int = 4
    """Streams a caller opens besides for large arguments, so that those do not hold up small calls."""

    bulk_args: int = 64 * KIB
    """Arguments above this are large."""

    queued_bytes: int = 128 * KIB
    """Frames waiting to be written on a stream. Who has more waits: a result is never far back in the line."""

    batch: int = 64 * KIB
    """Frames written together. Above it one write would only hold up the calls behind it."""

    frame_timeout: float = 120.0
    """From a frame's first byte to its last: the largest frame at 140 kB/s. A sender slower than that is an attack."""

    write_timeout: float = 120.0
    """For one batch: a peer that reads nothing for so long is given up, and what it was to read is freed."""

    first_frame: float = 30.0
    """From the opening of a stream to its first call."""

    idle_callee: float = 600.0
    """A callee closes a stream without calls after this; well above the caller's, who should be first."""

    idle_caller: float = 60.0
    """A caller closes a stream without calls after this. Opening one again costs 2-3 ms."""

    open_timeout: float = 15.0
    """For dialling and opening a stream, within the call's own deadline."""

    watch: float = 30.0
    """How often a stream is looked at for the idle and write times above, so they are exact to this much: one timer for
    each stream, where a cancel scope around every write and every pause cost 10 % of a call."""

    max_call: float = 3600.0
    """The longest deadline, and the one of a call that names none: long generations on small machines."""

    grace: float = 2.0
    """How long past the deadline a caller waits for the callee's own ``deadline`` answer."""

    accept_after: float = 0.05
    """A call that is not answered sooner is confirmed with Accepted; a quick one needs no receipt."""

    goodbye: float = 1.0
    """How long a refused peer has to read the reason before the stream is reset."""

    retry_after_ms: int = 250
    """What an overloaded callee proposes."""
