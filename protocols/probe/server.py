"""The answering side of probe: a witness. Members may ask it, one question at a time on each stream."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

import trio

from protocols.framing import FrameError, FrameReader, encode_frame
from protocols.probe.messages import MAX_FRAME, ProbeError, ProbeOutcome, Reply, Request
from transports.peer_id import PeerId
from transports.rates import TokenBuckets
from transports.stream import Stream, StreamClosed

logger = logging.getLogger(__name__)

RATE = 10.0
"""Questions per second of one peer, lastingly: a node asks three witnesses of what it suspects, once a second."""
BURST = 40.0
"""Questions of one peer at once: a part of the mesh that vanishes is many suspects."""
MAX_PEERS = 1024
"""Peers whose rate is remembered: more than can be connected."""
MAX_CHECKS = 64
"""Checks at a time, of all peers; beyond it the answer is UNKNOWN."""
IDLE_TIMEOUT = 30.0
"""Seconds that a stream waits for the next question."""

Check = Callable[[PeerId], Awaitable[ProbeOutcome]]
"""Tries to reach a node now. Cancelled when the asker's time is over. It must not ask others in turn."""


class ProbeServer:
    """Answers what *check* finds out; SILENT when it does not end in the asker's time."""

    def __init__(self, check: Check) -> None:
        self._check = check
        self._rates: TokenBuckets[PeerId] = TokenBuckets(RATE, BURST, MAX_PEERS)
        self._checking = 0

    def __repr__(self) -> str:
        return f"<ProbeServer checking {self._checking}, asked by {len(self._rates)} peers>"

    async def serve(self, stream: Stream) -> None:
        """Answer the questions on *stream* until the asker closes it or is silent for IDLE_TIMEOUT.

        An asker that breaks the format, or asks more often than any sound node, gets a reset. Raises what *check*
        raises, after a reset.
        """
        reader = FrameReader(stream, MAX_FRAME)
        ended = False
        try:
            while not ended:
                with trio.move_on_after(IDLE_TIMEOUT) as idle:
                    payload = await reader.read()
                if idle.cancelled_caught or payload is None:
                    await stream.close()
                    ended = True
                elif self._rates.take(stream.peer, trio.current_time()):
                    raise ProbeError(f"more than {RATE:g} questions a second")
                else:
                    outcome = await self._find_out(Request.decode(payload))
                    await stream.write(encode_frame(Reply(outcome).encode()))
        except (FrameError, StreamClosed, ProbeError) as error:
            logger.debug("a probe of %s ended: %s", stream.peer, error)
        finally:
            if not ended:
                with trio.CancelScope(shield=True):
                    await stream.reset()

    async def _find_out(self, request: Request) -> ProbeOutcome:
        if self._checking >= MAX_CHECKS:
            return ProbeOutcome.UNKNOWN
        self._checking += 1
        try:
            with trio.move_on_after(request.timeout_ms / 1000):
                return await self._check(request.subject)
            return ProbeOutcome.SILENT
        finally:
            self._checking -= 1
