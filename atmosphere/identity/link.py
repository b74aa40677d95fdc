"""One signed step of trust, as a value and as the payload of an envelope."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from enum import IntEnum

from google.protobuf.message import DecodeError

from atmosphere.identity import scopes as scope_rules
from atmosphere.identity.errors import IdentityError, Reason
from atmosphere.identity.identity_pb2 import Link as Wire
from transports.peer_id import PeerId

VERSION = 1
SERIAL_SIZE = 16
KEY_SIZE = 32
MAX_NAME_BYTES = 64
MAX_TIME = 2**40  # far beyond any sensible date, small enough that sums stay exact everywhere


class Kind(IntEnum):
    """What the subject of a link becomes. The numbers are the wire's."""

    ISSUER = Wire.ISSUER
    MEMBERSHIP = Wire.MEMBERSHIP
    INVITE_KEY = Wire.INVITE_KEY


@dataclass(frozen=True, slots=True)
class Link:
    """What a signer says about *subject*. Times are Unix seconds, both ends included."""

    serial: bytes
    kind: Kind
    mesh: bytes
    subject: PeerId
    scopes: tuple[str, ...]
    not_before: int
    not_after: int
    name: str = ""

    def encode(self) -> bytes:
        """The payload to sign. Raises IdentityError (malformed) for a link that nobody would accept."""
        check_name(self.name, MAX_NAME_BYTES)
        scope_rules.check(self.scopes)
        return Wire(
            version=VERSION, serial=self.serial, kind=Wire.Kind.ValueType(self.kind), mesh=self.mesh,
            subject=self.subject.public_key, scopes=self.scopes, not_before=self.not_before,
            not_after=self.not_after, name=self.name,
        ).SerializeToString()

    @classmethod
    def decode(cls, payload: bytes) -> Link:
        """Read a payload whose signature holds. Raises IdentityError (malformed, unknown_version)."""
        try:
            wire = Wire.FromString(payload)
        except DecodeError as error:
            raise IdentityError(Reason.MALFORMED, "a link whose bytes are damaged") from error
        check_version(wire.version, VERSION, "link")
        try:
            kind = Kind(wire.kind)
        except ValueError as error:
            raise IdentityError(Reason.MALFORMED, f"a link of unknown kind {wire.kind}") from error
        if len(wire.serial) != SERIAL_SIZE or len(wire.mesh) != KEY_SIZE or len(wire.subject) != KEY_SIZE:
            raise IdentityError(Reason.MALFORMED, "a link with a serial, mesh or subject of the wrong length")
        if not wire.not_before < wire.not_after < MAX_TIME:
            raise IdentityError(Reason.MALFORMED, "a link that ends before it begins, or never")
        check_name(wire.name, MAX_NAME_BYTES)
        return cls(
            wire.serial, kind, wire.mesh, PeerId.from_public_key(wire.subject),
            scope_rules.check(wire.scopes), wire.not_before, wire.not_after, wire.name,
        )


def check_version(version: int, known: int, what: str) -> None:
    """Raises IdentityError: malformed for 0, unknown_version for a newer one than *known*."""
    if version == 0:
        raise IdentityError(Reason.MALFORMED, f"a {what} without version")
    if version != known:
        raise IdentityError(
            Reason.UNKNOWN_VERSION, f"a {what} of version {version}; this release knows {known}. Update this node."
        )


def check_name(name: str, limit: int) -> str:
    """*name*, if it has at most *limit* UTF-8 bytes and no control characters: it is shown in terminals."""
    if len(name.encode()) > limit:
        raise IdentityError(Reason.MALFORMED, f"a name of more than {limit} bytes; choose a shorter one")
    if any(unicodedata.category(character).startswith("C") for character in name):
        raise IdentityError(Reason.MALFORMED, "a name with control characters; use letters, digits and spaces")
    return name
