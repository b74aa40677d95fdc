"""Bodies of HTTP requests and the field ``atmosphere``: what is read can be sent on, and reads the same there."""

from __future__ import annotations

from tests.fuzz.runner import fuzz, instrumented

with instrumented():
    from atmosphere.http.errors import HttpError
    from atmosphere.http.requests import FIELD, dump_body, parse_body, take_extension
    from transports.peer_id import PeerId

SEEDS = [
    b'{"model": "auto", "messages": [{"role": "user", "content": "hi"}]}',
    b'{"atmosphere": {"constraints": {"type": "llm/chat", "labels": ["gpu"], "local_only": true}, "explain": true}}',
    b'{"atmosphere": {"deadline_ms": 1e3, "constraints": {"node": "12D3KooW", "card": "00112233", "space": "a:3"}}}',
    b'{"atmosphere": {"constraints": {"max_latency_ms": 5.5, "min_context_tokens": 9}}, "x": "\\ud800"}',
    b'{"a": NaN}', b'{"a": 1, "a": 2}', b"[[[[[[]]]]]]", b'{"a": 1e999}', b'"' + "ä€😀".encode() + b'"',
]


KEYS = (b"type", b"node", b"card", b"labels", b"local_only", b"max_latency_ms", b"space", b"min_context_tokens")


def target(data: bytes) -> None:
    """First byte: 0 a whole body, 1 the value of ``atmosphere``, from 2 on the value of one of its constraints."""
    way, rest = data[0] % (2 + len(KEYS)) if data else 0, data[1:]
    if way == 1:
        rest = b'{"atmosphere": %b}' % rest
    elif way:
        rest = b'{"atmosphere": {"constraints": {"%b": %b}}}' % (KEYS[way - 2], rest)
    body = parse_body(rest)
    asked = take_extension(body)
    assert FIELD not in body
    assert asked.deadline_s is None or 0 < asked.deadline_s <= 86_400
    again = parse_body(dump_body(body))
    assert again == body, "another body after one more reading"


if __name__ == "__main__":
    somebody = b'"%b"' % str(PeerId.from_public_key(bytes(32))).encode()
    values = (b'"a"', b"true", b"5", b'["gpu"]', b"null", b'"0011223344"', somebody)
    valued = [bytes([way]) + value for way in range(2, 2 + len(KEYS)) for value in values]
    extension = [b'\1{"constraints": {}, "deadline_ms": 5}', b'\1{"explain": 1}', b"\1null"]
    fuzz(target, [b"\0" + seed for seed in SEEDS] + extension + valued, (HttpError,))
