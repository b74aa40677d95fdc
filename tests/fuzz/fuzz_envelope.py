"""Envelopes of exact bytes: there is one encoding of each, and nothing but the signer's own passes."""

from __future__ import annotations

from tests.fuzz.runner import fuzz, instrumented

with instrumented():
    from protocols.records import EnvelopeError, domains, open_envelope, sign
    from tests.identity.keys import key, peer

GOOD = sign(domains.BEACON, b"payload", key("alice"))
UNNAMED = sign(domains.LINK, b"payload", key("alice"), name_signer=False)


def target(data: bytes) -> None:
    """First byte: 0 the signer is named, 1 it is known."""
    known, body = bool(data) and data[0] % 2 == 1, data[1:]
    opened = open_envelope(body, domains.LINK if known else domains.BEACON, 4096, peer("alice") if known else None)
    assert opened == (b"payload", peer("alice")), "nobody signed this"
    assert body == (UNNAMED if known else GOOD), "two encodings of one envelope"


if __name__ == "__main__":
    fuzz(target, [b"\0" + GOOD, b"\1" + UNNAMED, b"\0" + GOOD + b"\x20\x01"], (EnvelopeError,))
