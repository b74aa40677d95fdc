"""Peers and memberships for tests of the pure rooms."""

from __future__ import annotations

from nacl.signing import SigningKey

from atmosphere.env import FixedEnv
from atmosphere.identity import Identity, Membership, verify_chain
from atmosphere.identity.identity import ISSUER_S, issue_link
from atmosphere.identity.link import Kind
from atmosphere.identity.scopes import ALL, MEMBER
from transports.peer_id import PeerId

ENV = FixedEnv(seed=1)
NOW = 1_800_000_000.0
OWNER = SigningKey(bytes([99]) * 32)
MESH = OWNER.verify_key.encode()
SEEDS = [bytes([number]) * 32 for number in range(1, 5)]
ME, OTHER, THIRD, FOURTH = (PeerId.from_public_key(SigningKey(seed).verify_key.encode()) for seed in SEEDS)
_ISSUER = issue_link(OWNER, b"", Kind.ISSUER, ME, (ALL,), "", MESH, NOW, ISSUER_S, ENV.token_bytes)
_ME_KEY = SigningKey(SEEDS[0])


def chain_of(peer: PeerId) -> bytes:
    """A week's membership of *peer*, issued by ME."""
    scopes = (ALL,) if peer == ME else MEMBER
    return issue_link(
        _ME_KEY, _ISSUER, Kind.MEMBERSHIP, peer, scopes, peer.short, MESH, NOW, 7 * 86400, ENV.token_bytes
    )


CHAINS = {peer: chain_of(peer) for peer in (ME, OTHER, THIRD, FOURTH)}


def membership_of(peer: PeerId) -> Membership:
    return verify_chain(CHAINS[peer], MESH, peer, NOW)


def identity_of(peer: PeerId) -> Identity:
    """The identity of one of the four."""
    seed = SEEDS[[ME, OTHER, THIRD, FOURTH].index(peer)]
    return Identity.load(seed, MESH, "test", CHAINS[peer], _ISSUER if peer == ME else b"")
