"""The asking side of join: one request, one reply, then the stream ends."""

from __future__ import annotations

import trio

from protocols.framing import FrameError, FrameReader, encode_frame
from protocols.join.messages import MAX_FRAME, JoinError, Reply, Request, decode_reply, encode_request
from transports.stream import Stream, StreamClosed

TIMEOUT_S = 10.0  # the other side writes to its disk before it answers; anything slower is broken


async def ask(stream: Stream, request: Request, timeout: float = TIMEOUT_S) -> Reply:
    """Send *request* on a fresh *stream* and return the answer, within *timeout* seconds.

    What is in the answer is not verified here. The stream is over afterwards, also when cancelled. Raises JoinError.
    """
    done = False
    try:
        with trio.fail_after(timeout):
            await stream.write(encode_frame(encode_request(request)))
            await stream.close()
            payload = await FrameReader(stream, MAX_FRAME).read()
        if payload is None:
            raise JoinError("the other side closed the stream without an answer; try again, or another address")
        reply = decode_reply(payload)
        done = True
        return reply
    except trio.TooSlowError as error:
        raise JoinError(f"no answer within {timeout:g} s; try again, or another address") from error
    except (FrameError, StreamClosed) as error:
        raise JoinError(f"the exchange broke off: {error}; try again, or another address") from error
    finally:
        if not done:
            with trio.CancelScope(shield=True):
                await stream.reset()
