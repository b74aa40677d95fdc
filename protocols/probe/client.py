"""The asking side of probe."""

from __future__ import annotations

import trio

from protocols.framing import FrameError, FrameReader, encode_frame
from protocols.probe.messages import MAX_FRAME, MAX_TIMEOUT_MS, ProbeError, ProbeOutcome, Reply, Request
from transports.peer_id import PeerId
from transports.stream import Stream, StreamClosed

WITNESS_SHARE = 0.8
"""Of the time that the asker waits, what the witness may use: so its SILENT comes in time, and an asker that hears
nothing at all knows that it has a slow witness and not a silent subject (Lifeguard's negative acknowledgement)."""


async def ask(stream: Stream, subject: PeerId, timeout_s: float) -> ProbeOutcome:
    """What the other end of *stream* finds out about *subject*; the answer comes within *timeout_s* seconds.

    The stream can then be asked again, one question at a time; whoever opened it closes it. Raises ProbeError when the
    witness gave no answer (that says nothing about *subject*); then, and when cancelled, the stream is reset.
    """
    timeout_ms = int(timeout_s * 1000 * WITNESS_SHARE)
    request = Request(subject, min(max(timeout_ms, 1), MAX_TIMEOUT_MS))
    answered = False
    try:
        with trio.fail_after(timeout_s):
            await stream.write(encode_frame(request.encode()))
            payload = await FrameReader(stream, MAX_FRAME).read()
        if payload is None:
            raise ProbeError("the witness closed the stream without an answer")
        outcome = Reply.decode(payload).outcome
        answered = True
        return outcome
    except trio.TooSlowError:
        raise ProbeError(f"no answer of the witness within {timeout_s:g} s") from None
    except (FrameError, StreamClosed) as error:
        raise ProbeError(f"the witness broke off: {error}") from error
    finally:
        if not answered:
            with trio.CancelScope(shield=True):
                await stream.reset()
