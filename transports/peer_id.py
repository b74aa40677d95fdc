"""The one address of a node: its peer id.

A peer id is the identity multihash of a protobuf-encoded Ed25519 public key, as the libp2p peer-id specification
defines it, so the key can be read back from the id. Other key types are refused: nothing here speaks them.
"""

from __future__ import annotations

from functools import cached_property, lru_cache

import base58

_PREFIX = bytes.fromhex("0024080112 20".replace(" ", ""))  # identity multihash, 36 bytes: key type Ed25519, 32 bytes
_LENGTH = len(_PREFIX) + 32

REMEMBERED = 1 << 14
"""Ids of which :meth:`PeerId.of` has the object at hand."""


class PeerId:
    """An Ed25519 libp2p peer id: immutable, hashable, ordered by its bytes. ``str()`` is the base58 form."""

    __slots__ = ("__dict__", "raw")

    raw: bytes

    def __init__(self, raw: bytes) -> None:
        """Source: *raw*, the 38 binary bytes. Raises ValueError for anything but an Ed25519 peer id."""
        if len(raw) != _LENGTH or not raw.startswith(_PREFIX):
            raise ValueError(f"not an Ed25519 peer id: {raw[:48].hex()}")
        self.raw = bytes(raw)

    @staticmethod
    @lru_cache(REMEMBERED)
    def of(raw: bytes) -> PeerId:
        """As ``PeerId(raw)``, and the same object for the same bytes as long as it is remembered: for what is read from
        the wire again and again, and kept."""
        return PeerId(raw)

    @classmethod
    def from_public_key(cls, public_key: bytes) -> PeerId:
        """The id of the 32-byte Ed25519 *public_key*."""
        return cls.of(_PREFIX + public_key)

    @classmethod
    def parse(cls, text: str) -> PeerId:
        """Read the base58 form (``12D3KooW...``). Raises ValueError with the reason."""
        if len(text) > 64:
            raise ValueError("a peer id has 52 characters; this text is much longer")
        try:
            return cls(base58.b58decode(text.strip()))
        except ValueError as error:
            raise ValueError(f"not a peer id: {text!r} ({error})") from None

    @cached_property
    def public_key(self) -> bytes:
        """The 32 bytes of the Ed25519 public key that this id names: always the same object, as tables keep it."""
        return self.raw[len(_PREFIX) :]

    @cached_property
    def text(self) -> str:
        return base58.b58encode(self.raw).decode("ascii")

    @property
    def short(self) -> str:
        """The last eight characters: enough for a person to tell nodes apart."""
        return self.text[-8:]

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"PeerId({self.text})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PeerId) and self.raw == other.raw

    def __lt__(self, other: PeerId) -> bool:
        return self.raw < other.raw

    def __hash__(self) -> int:
        return hash(self.raw)
