"""Chains of links: as they come, and with links that the owner and an issuer have signed whatever they say."""

from __future__ import annotations

from tests.fuzz.runner import fuzz, instrumented

with instrumented():
    from atmosphere.identity import IdentityError, verify_chain
    from atmosphere.identity.chain import encode_chain, split_chain
    from protocols.records import domains, sign
    from protocols.records.records_pb2 import Envelope
    from tests.identity.keys import MESH, NOW, deep, issuer, key, member, peer
    from tests.identity.test_chain import HOSTILE

CERTIFICATE = issuer("owner", "issuer")


def target(data: bytes) -> None:
    """First byte: 0 a chain, 1 the payload of a link by the owner, 2 one by the issuer below him."""
    way, body = data[0] % 3 if data else 0, data[1:]
    if way == 0:
        chain = body
    else:
        link = sign(domains.LINK, body, key("owner" if way == 1 else "issuer"), name_signer=False)
        chain = encode_chain([link] if way == 1 else [CERTIFICATE, link])
    membership = verify_chain(chain, MESH, None, NOW)
    assert encode_chain(split_chain(chain)) == chain, "two encodings of one chain"
    assert way or membership.peer in (peer("member"), peer("other"), peer("sub")), "nobody signed this"


def seeds() -> list[bytes]:
    whole = [member(), deep(), *(chain for chain, _ in HOSTILE.values() if len(chain) < 1000)]
    payloads = [Envelope.FromString(link).payload for chain in whole[:2] for link in split_chain(chain)]
    return [b"\0" + chain for chain in whole] + [bytes([way]) + payload for way in (1, 2) for payload in payloads]


if __name__ == "__main__":
    fuzz(target, seeds(), (IdentityError,))
