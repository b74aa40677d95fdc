"""The answering side of join. Strangers may open it: small frames, a deadline, one request per stream."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable

import trio

from protocols.framing import FrameError, FrameReader, encode_frame
from protocols.join.messages import MAX_FRAME, JoinError, Refused, Reply, Request, decode_request, encode_reply
from transports.peer_id import PeerId
from transports.stream import Stream, StreamClosed

TIMEOUT_S = 10.0

Judge = Callable[[PeerId, Request], Awaitable[Reply]]
"""Decides a request of an authenticated peer. What it grants is on its disk when it returns."""


RATE_LIMITED = "rate_limited"

Admit = Callable[[PeerId], float]
"""Asked before the request is looked at: 0 when the peer may ask now, otherwise the seconds it has to wait."""


def _everybody(peer: PeerId) -> float:
    return 0.0


async def serve_join(
    stream: Stream,
    judge: Judge,
    now: Callable[[], float],
    timeout: float = TIMEOUT_S,
    admit: Admit = _everybody,
) -> None:
    """Answer the one request on *stream*, whole within *timeout* seconds; *now* is the wall clock, Unix seconds.

    A peer that *admit* lets wait is refused with ``rate_limited`` and the time, and costs no signature check.
    A peer that breaks the framing or is too slow gets a reset; one whose request cannot be read is told why. Raises
    only what *judge* raises (after a reset).
    """
    done = False
    try:
        with trio.move_on_after(timeout):
            payload = await FrameReader(stream, MAX_FRAME).read()
            if payload is not None and (wait := admit(stream.peer)):
                await stream.write(encode_frame(encode_reply(_later(wait, now()))))
            elif payload is not None:
                try:
                    reply = await judge(stream.peer, decode_request(payload))
                except JoinError as error:
                    reply = Reply(Refused("malformed", str(error)), int(now() * 1000))
                await stream.write(encode_frame(encode_reply(reply)))
            await stream.close()
            done = True
    except (FrameError, StreamClosed):
        return  # the peer's doing; the reset below is its answer
    finally:
        if not done:
            with trio.CancelScope(shield=True):
                await stream.reset()


def _later(wait: float, now: float) -> Reply:
    seconds = math.ceil(min(wait, 3600.0))
    message = f"this node gets too many join requests now; ask again in {seconds} s, or ask another issuer"
    return Reply(Refused(RATE_LIMITED, message, seconds * 1000), int(now * 1000))
