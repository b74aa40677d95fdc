"""The issuers of a mesh: who else can renew memberships and redeem invites. Known to every node, offline."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from atmosphere.identity.chain import CLOCK_SKEW_S, Credential, open_chain
from atmosphere.identity.errors import IdentityError, Reason
from atmosphere.identity.link import Kind
from atmosphere.identity.redemption import MAX_AUTHORITY_BYTES
from atmosphere.identity.revocation import RevocationSet
from transports.peer_id import PeerId

MAX_ISSUERS = 1000  # certificates; a mesh has a handful


class IssuerDirectory:
    """The issuer chains of one mesh that a node knows; merging in any order gives the same set.

    One chain for each issuer and appointer: the newest. An issuer appointed twice is still one when one of those who
    appointed it is struck. Holding a chain proves nothing by itself: time and revocation are checked at every use.
    Bounded: at *limit* the ones furthest below the owner go, of those the ones that end first.
    """

    def __init__(self, mesh: bytes, revocations: RevocationSet | None = None, *, limit: int = MAX_ISSUERS) -> None:
        self._mesh = mesh
        self._revocations = revocations if revocations is not None else RevocationSet(mesh)
        self._limit = limit
        self._entries: dict[tuple[PeerId, PeerId], tuple[Credential, bytes]] = {}

    def __repr__(self) -> str:
        return f"<IssuerDirectory {len(self._entries)} chains>"

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[bytes]:
        """The chains, in the order of their digests."""
        return iter([chain for _, chain in self._sorted()])

    @property
    def digest(self) -> bytes:
        """SHA-256 over the sorted digests of the chains: equal sets, equal digests."""
        return hashlib.sha256(b"".join(credential.digest for credential, _ in self._sorted())).digest()

    def add(self, chain: bytes, now: float) -> Credential | None:
        """Verify *chain* and take it in; None if it says nothing new or has ended. Raises IdentityError."""
        if len(chain) > MAX_AUTHORITY_BYTES:
            raise IdentityError(
                Reason.OVERSIZED, f"an issuer's chain of {len(chain)} bytes, {MAX_AUTHORITY_BYTES} is the maximum"
            )
        credential = open_chain(chain, self._mesh)
        if credential.last.kind is not Kind.ISSUER:
            raise IdentityError(Reason.NOT_ISSUER, "the chain does not make its subject an issuer")
        if credential.not_before - CLOCK_SKEW_S > now:
            raise IdentityError(Reason.NOT_YET_VALID, "an issuer's chain from the future: one of the clocks is wrong")
        appointer = credential.links[-2].subject if len(credential.links) > 1 else PeerId.from_public_key(self._mesh)
        key = (credential.peer, appointer)
        present = self._entries.get(key)
        if self._has_ended(credential, now) or (present and self._rank(present[0]) <= self._rank(credential)):
            return None
        self._entries[key] = (credential, chain)
        if len(self._entries) > self._limit:
            del self._entries[max(self._entries, key=lambda at: self._rank_to_keep(self._entries[at][0]))]
        return credential if key in self._entries else None

    def chain_of(self, peer: PeerId) -> bytes:
        """The best chain that makes *peer* an issuer and is not struck; b"" if none is known."""
        held = [entry for entry in self._held() if entry[0].peer == peer]
        return min(held, key=lambda entry: self._rank(entry[0]))[1] if held else b""

    def issuers(self) -> list[Credential]:
        """The best credential of each issuer that is not struck, highest first. Some may have ended."""
        best: dict[PeerId, Credential] = {}
        for credential in sorted((credential for credential, _ in self._held()), key=self._rank):
            best.setdefault(credential.peer, credential)
        return list(best.values())

    def forget_ended(self, now: float) -> int:
        """Drop certificates that have ended; how many there were."""
        ended = [key for key, (credential, _) in self._entries.items() if self._has_ended(credential, now)]
        for key in ended:
            del self._entries[key]
        return len(ended)

    def _held(self) -> Iterator[tuple[Credential, bytes]]:
        return (entry for entry in self._entries.values() if not self._revocations.is_revoked(entry[0]))

    def _sorted(self) -> list[tuple[Credential, bytes]]:
        return sorted(self._entries.values(), key=lambda entry: entry[0].digest)

    @staticmethod
    def _has_ended(credential: Credential, now: float) -> bool:
        return credential.not_after + CLOCK_SKEW_S < now

    @staticmethod
    def _rank(credential: Credential) -> tuple[int, int, int, bytes]:
        """The smallest is the best: closest to the owner, then the newest, then the one that lasts longest."""
        return credential.level, -credential.not_before, -credential.not_after, credential.digest

    @staticmethod
    def _rank_to_keep(credential: Credential) -> tuple[int, int, bytes]:
        return credential.level, -credential.not_after, credential.digest
