"""Fixed keys and hand-made chains: everything here is the same in every run."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from nacl.signing import SigningKey

from atmosphere.identity.chain import encode_chain
from atmosphere.identity.identity_pb2 import Link as Wire
from atmosphere.identity.link import Kind
from protocols.records import domains, sign
from transports.peer_id import PeerId

NOW = 1_800_000_000
DAY = 86_400


def key(name: str) -> SigningKey:
    """The same key for the same name."""
    return SigningKey(hashlib.sha256(name.encode()).digest())


def peer(name: str) -> PeerId:
    return PeerId.from_public_key(key(name).verify_key.encode())


def public(name: str) -> bytes:
    return key(name).verify_key.encode()


MESH = public("owner")


def link(
    signer: str, subject: str, kind: Kind = Kind.MEMBERSHIP, *, scopes: Sequence[str] = ("*",), begins: int = NOW,
    ends: int = NOW + 7 * DAY, name: str = "", mesh: bytes = MESH, version: int = 1, serial: bytes | None = None,
    domain: bytes = domains.LINK,
) -> bytes:
    """A signed link, also one that the library would refuse to make."""
    number = hashlib.sha256(f"{signer}{subject}{kind}".encode()).digest()[:16] if serial is None else serial
    payload = Wire(
        version=version, serial=number, kind=Wire.Kind.ValueType(kind), mesh=mesh, subject=public(subject),
        scopes=scopes, not_before=begins, not_after=ends, name=name,
    ).SerializeToString()
    return sign(domain, payload, key(signer), name_signer=False)


def issuer(signer: str, subject: str, scopes: Sequence[str] = ("*",), ends: int = NOW + 365 * DAY) -> bytes:
    return link(signer, subject, Kind.ISSUER, scopes=scopes, ends=ends)


def chain(*links: bytes) -> bytes:
    return encode_chain(links)


def member(subject: str = "member", scopes: Sequence[str] = ("call:*", "serve")) -> bytes:
    """owner -> issuer -> subject."""
    return chain(issuer("owner", "issuer"), link("issuer", subject, scopes=scopes, name=subject))


def deep(subject: str = "member", scopes: Sequence[str] = ("call:*", "serve")) -> bytes:
    """owner -> issuer -> sub -> subject, with names as long as people make them."""
    return chain(
        link("owner", "issuer", Kind.ISSUER, name="workshop server", ends=NOW + 365 * DAY),
        link("issuer", "sub", Kind.ISSUER, scopes=("call:*", "serve", "invite"), name="laptop", ends=NOW + 90 * DAY),
        link("sub", subject, scopes=scopes, name="living room box"),
    )
