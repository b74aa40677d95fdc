"""Invites: the text that people paste, the envelope, and payloads that somebody has signed whatever they say."""

from __future__ import annotations

from tests.fuzz.runner import fuzz, instrumented

with instrumented():
    from atmosphere.identity import IdentityError, parse_invite
    from atmosphere.identity.invite import open_invite
    from protocols.records import domains, sign
    from protocols.records.records_pb2 import Envelope
    from tests.hostile.house import INVITE, OFFLINE
    from tests.identity.keys import key


def target(data: bytes) -> None:
    """First byte: 0 text, 1 an envelope, 2 a payload signed by a stranger."""
    way, body = data[0] % 3 if data else 0, data[1:]
    if way == 0:
        invite = parse_invite(body.decode("utf-8", "surrogateescape"))
    else:
        invite = open_invite(body if way == 1 else sign(domains.INVITE, body, key("mallory")))
    assert parse_invite(invite.text) == invite, "what is taken can be passed on"
    assert all("/p2p/" in address for address in invite.addresses)
    assert OFFLINE.text not in repr(invite)


def seeds() -> list[bytes]:
    whole = [INVITE, OFFLINE]
    texts = [b"\0" + invite.text.encode() for invite in whole]
    envelopes = [b"\1" + invite.envelope for invite in whole]
    return texts + envelopes + [b"\2" + Envelope.FromString(invite.envelope).payload for invite in whole]


if __name__ == "__main__":
    fuzz(target, seeds(), (IdentityError,), max_len=1100)
