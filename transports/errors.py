"""What can go wrong when bytes are to move between nodes."""

from __future__ import annotations


class TransportError(Exception):
    """Base of everything below."""


class ListenError(TransportError):
    """We cannot listen on an address. The text names the address and what to change."""

    def __init__(self, address: str, reason: str) -> None:
        super().__init__(f"cannot listen on {address}: {reason}")
        self.address = address
        self.reason = reason


class PeerUnreachable(TransportError):
    """No connection, or no stream, to a peer. The text says what was tried."""

    def __init__(self, message: str, *, refused: bool = False) -> None:
        super().__init__(message)
        self.refused = refused
        """Every address that was tried refused the connection at once: machines are there, and nobody listens. False
        after any timeout, unreachable network, or connection that was taken and dropped (a crowded node does that)."""


class AddressError(ValueError):
    """A multiaddr that this node cannot use. The text says why and what a good one looks like."""
