"""Peer ids as the library has them."""

from __future__ import annotations

from functools import lru_cache

from libp2p.peer.id import ID

from transports.peer_id import REMEMBERED


@lru_cache(REMEMBERED)
def library_id(raw: bytes) -> ID:
    """``ID(raw)``, the same object for the same bytes: dicts find it without asking whether it is equal."""
    return ID(raw)
