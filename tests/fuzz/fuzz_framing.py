"""Frames: however the bytes are cut, the same come out, and memory follows what has come, not what is claimed."""

from __future__ import annotations

from tests.fuzz.runner import fuzz, instrumented

with instrumented():
    from protocols.framing import FrameDecoder, FrameError, encode_frame

MAX_FRAME = 1000


def frames_of(data: bytes, step: int) -> tuple[list[bytes], bool]:
    """The frames in *data*, fed *step* bytes at a time, and whether the stream ended soundly."""
    decoder, frames = FrameDecoder(MAX_FRAME), []
    try:
        for start in range(0, len(data), step):
            frames += decoder.feed(data[start : start + step])
            assert decoder.pending <= MAX_FRAME + 10
        decoder.end()
    except FrameError:
        return frames, False
    return frames, True


def target(data: bytes) -> None:
    """First byte: how the rest is cut."""
    step, body = data[0] % 64 + 1 if data else 1, data[1:]
    whole, sound = frames_of(body, len(body) or 1)
    assert frames_of(body, step) == (whole, sound)
    assert not sound or b"".join(map(encode_frame, whole)) == body


if __name__ == "__main__":
    seeds = [b"\1" + encode_frame(b"x" * size) + encode_frame(b"") for size in (0, 1, 127, 128, 999, 1000, 1001)]
    fuzz(target, seeds, ())
