"""The home folder's in-memory twin, for tests and simulations: nothing is written anywhere."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from atmosphere.identity.home import HomeError
from atmosphere.identity.identity import Identity
from atmosphere.identity.revocation import Target


@dataclass
class MemoryKeyring:
    """Keeps one identity for as long as the process lives. The owner key of its mesh is elsewhere."""

    identity: Identity | None
    home: Path = Path()
    """Nothing is kept there; the disk it is on is the one that the node reports."""
    has_owner_key = False

    def load(self) -> Identity:
        """The identity. Raises HomeError after :meth:`forget`."""
        if self.identity is None:
            raise HomeError("this node has left its mesh and kept nothing: give it a new identity")
        return self.identity

    def save_membership(self, identity: Identity) -> None:
        """Put a renewed membership in place of the old one."""
        self.identity = replace(self.load(), membership=identity.membership, chain=identity.chain)

    def save_issuer(self, chain: bytes) -> None:
        """Keep the chain that makes this node an issuer."""
        self.identity = replace(self.load(), issuer_chain=chain)

    def revoke_as_owner(self, kind: Target, target: bytes, now: float, reason: str = "", until: int = 0) -> bytes:
        """Raises HomeError, as a home does that has no owner key."""
        raise HomeError("the owner key is not kept in memory: revoke by an issuer that stands above")

    def forget(self) -> None:
        """Leave: the identity is gone."""
        self.identity = None
