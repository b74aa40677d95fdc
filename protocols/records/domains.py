"""The domain of every signed type: a signature made for one can never pass for another."""

from __future__ import annotations

from typing import Final

LINK: Final = b"atmosphere/link/v1"
INVITE: Final = b"atmosphere/invite/v1"
BEACON: Final = b"atmosphere/beacon/v1"
OFFER: Final = b"atmosphere/offer/v1"
REVOCATION: Final = b"atmosphere/revocation/v1"
LEAVE: Final = b"atmosphere/leave/v1"
SUSPICION: Final = b"atmosphere/suspicion/v1"
REDEMPTION: Final = b"atmosphere/redemption/v1"
