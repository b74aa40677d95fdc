"""The event-stream splitter against a plain reading of the standard, whatever the chunks."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atmosphere.capabilities.sse import SseError, SseSplitter


def reference(stream: bytes) -> list[bytes]:
    """The standard's algorithm, line by line, on the whole stream."""
    *lines, _cut_off = re.split(rb"\r\n|\n|\r", stream.removeprefix(b"\xef\xbb\xbf"))
    events, data = [], []
    for line in lines:
        if not line:
            if data:
                events.append(b"\n".join(data))
            data = []
            continue
        name, _, value = line.partition(b":")
        if name == b"data":
            data.append(value.removeprefix(b" "))
    return events


def split(stream: bytes, cuts: list[int]) -> list[bytes]:
    splitter, events, start = SseSplitter(), [], 0
    for cut in [*sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]:
        events += splitter.feed(stream[start:cut])
        start = cut
    return events


pieces = st.sampled_from(
    [b"data: ", b"data:", b"data", b"a", b'{"x": 1}', b": ping", b"event: e", b"id", b"\n", b"\r", b"\r\n", b"\n\n",
     b"\xe2\x80\xa8", b"\x0b\x0c\x1c\x85", b"\xef\xbb\xbf"]
)


@given(st.lists(pieces, max_size=30).map(b"".join), st.lists(st.integers(0, 1000), max_size=12))
def test_any_stream_in_any_chunks(stream: bytes, cuts: list[int]) -> None:
    assert split(stream, cuts) == reference(stream)


@given(st.lists(pieces, max_size=20).map(b"".join))
def test_one_byte_at_a_time(stream: bytes) -> None:
    assert split(stream, list(range(len(stream)))) == reference(stream)


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        (b"data: a\n\ndata: b\n\n", [b"a", b"b"]),
        (b"data:a\r\n\r\n", [b"a"]),
        (b"data: a\rdata: b\r\r", [b"a\nb"]),
        (b": keepalive\n\nevent: x\ndata: a\nid: 4\n\n", [b"a"]),
        (b"data\n\n", [b""]),
        (b"\n\n\n", []),
        (b"data: cut off", []),
        (b"data: cut off\n", []),
        (b"\xef\xbb\xbfdata: bom\n\n", [b"bom"]),
    ],
    ids=repr,
)
def test_cases_of_the_standard(stream: bytes, events: list[bytes]) -> None:
    assert split(stream, []) == events == reference(stream)


ENDLESS = {"line": b"x" * 100, "data": b"data: " + b"x" * 94 + b"\n", "lines": b"data\n" * 20}


@pytest.mark.parametrize("chunk", ENDLESS.values(), ids=ENDLESS)
def test_an_endless_event_is_refused(chunk: bytes) -> None:
    splitter = SseSplitter(limit=1000)

    def endless() -> None:
        for _ in range(20):
            splitter.feed(chunk)

    with pytest.raises(SseError, match="1000 bytes"):
        endless()


def test_memory_held_returns_to_zero() -> None:
    splitter = SseSplitter(limit=1000)
    for _ in range(100):
        assert splitter.feed(b"data: " + b"x" * 500) == []
        assert len(splitter.feed(b"y\n\n")) == 1
    assert repr(splitter) == "<SseSplitter 0 bytes held>"
