"""Invites: a short text that lets somebody enrol a key, and nothing more.

``ATM1`` and the base32 of a signed envelope: upper case without padding, the alphabet that a QR code stores densest.
Whoever holds the text can use it until it expires or is used up, so it is shown to one person and kept out of logs.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from google.protobuf.message import DecodeError
from multiaddr import Multiaddr
from nacl.signing import SigningKey

from atmosphere.identity import scopes as scope_rules
from atmosphere.identity.chain import Credential, open_chain
from atmosphere.identity.errors import IdentityError, Reason, from_envelope
from atmosphere.identity.identity_pb2 import Invite as Wire
from atmosphere.identity.link import KEY_SIZE, MAX_TIME, Kind, check_name, check_version
from protocols.records import EnvelopeError, domains, open_envelope, sign
from transports.peer_id import PeerId

VERSION = 1
PREFIX = "ATM1"
SECRET_SIZE = 16
MAX_INVITE_BYTES = 300          # two addresses fit; as QR code about version 13-M, which a phone reads from a screen
MAX_OFFLINE_INVITE_BYTES = 600  # it carries a key and a chain besides
MAX_TEXT = 1024                 # characters looked at: 600 bytes are 964 of them, and people add line breaks
MAX_MESH_NAME_BYTES = 32
MAX_ADDRESSES = 3
MAX_USES = 10_000
MAX_INVITE_S = 30 * 86400       # an invite is a bearer thing: not longer than people remember that they gave it
_AGAIN = "Copy the whole text again, or ask for a new invite."


@dataclass(frozen=True, slots=True)
class Invite:
    """A verified invite. Its signature holds; whether the signer is an issuer is seen in the answer to it."""

    mesh: bytes
    mesh_name: str
    inviter: PeerId
    addresses: tuple[str, ...]
    """Multiaddrs, all with ``/p2p/``; where to ask."""
    expires: int
    """Unix seconds."""
    uses: int
    scopes: tuple[str, ...]
    approval: bool
    envelope: bytes
    """The exact bytes: what is shown in join."""
    key_seed: bytes = b""
    """Of an offline invite: the seed of the key that signs the membership; otherwise empty."""
    chain: bytes = b""

    @property
    def id(self) -> bytes:
        """SHA-256 of the envelope: names the invite without giving it away."""
        return hashlib.sha256(self.envelope).digest()

    @property
    def offline(self) -> bool:
        """Whether it enrols without asking an issuer (and then as often as it is copied)."""
        return bool(self.key_seed)

    @property
    def mesh_id(self) -> str:
        return str(PeerId.from_public_key(self.mesh))

    @property
    def text(self) -> str:
        """What people pass on."""
        return PREFIX + base64.b32encode(self.envelope).decode("ascii").rstrip("=")

    def __repr__(self) -> str:  # never the secret, the text or the key: this ends up in logs
        return f"<Invite {self.id.hex()[:12]} to {self.mesh_name!r} by {self.inviter.short}, expires {self.expires}>"


def create_invite(
    key: SigningKey, mesh: bytes, mesh_name: str, addresses: Iterable[str], *, expires: int, secret: bytes,
    uses: int = 1, scopes: Iterable[str] = scope_rules.MEMBER, approval: bool = False,
) -> Invite:
    """An invite signed by the inviter's node *key*; as many of the first three *addresses* as fit.

    *secret*: 16 random bytes. Raises IdentityError if nobody could use it.
    """
    wire = Wire(
        version=VERSION, mesh=mesh, mesh_name=mesh_name, secret=secret, expires=expires, uses=uses,
        scopes=scopes, approval=approval,
    )
    return _sealed(wire, key, addresses, MAX_INVITE_BYTES)


def create_offline_invite(
    key: SigningKey, mesh: bytes, mesh_name: str, addresses: Iterable[str], *, key_seed: bytes, chain: bytes
) -> Invite:
    """An invite that enrols without any issuer: it carries the key of *key_seed* and the *chain* that ends in it."""
    wire = Wire(version=VERSION, mesh=mesh, mesh_name=mesh_name, key_seed=key_seed, chain=chain)
    wire.expires = open_chain(chain, mesh).not_after
    return _sealed(wire, key, addresses, MAX_OFFLINE_INVITE_BYTES)


def _sealed(wire: Wire, key: SigningKey, addresses: Iterable[str], limit: int) -> Invite:
    own = f"/p2p/{PeerId.from_public_key(key.verify_key.encode())}"
    wanted = [_to_bytes(address.removesuffix(own)) for address in addresses][:MAX_ADDRESSES]
    if not wanted:
        raise IdentityError(Reason.MALFORMED, "an invite needs an address of this node: start it, or name one")
    while True:
        del wire.addresses[:]
        wire.addresses.extend(wanted)
        envelope = sign(domains.INVITE, wire.SerializeToString(), key)
        if len(envelope) <= limit:
            return open_invite(envelope)
        if len(wanted) == 1:
            raise IdentityError(
                Reason.OVERSIZED,
                f"the invite would have {len(envelope)} bytes, {limit} are the maximum: use fewer scopes, a shorter "
                "mesh name or a shorter address",
            )
        wanted.pop()


def parse_invite(text: str) -> Invite:
    """The invite in *text*, as a person pasted it: case, spaces and line breaks do not matter. Raises IdentityError.

    Expiry is not looked at: the clock of a new machine may be wrong, and the issuer decides.
    """
    if len(text) > MAX_TEXT:
        raise IdentityError(Reason.OVERSIZED, f"this text is too long for an invite. {_AGAIN}")
    compact = "".join(text.split()).upper()
    if not compact.startswith(PREFIX):
        raise IdentityError(Reason.MALFORMED, f"not an invite: it does not begin with {PREFIX}. {_AGAIN}")
    body = compact[len(PREFIX) :]
    try:
        envelope = base64.b32decode(body + "=" * (-len(body) % 8))
    except (binascii.Error, ValueError) as error:
        raise IdentityError(Reason.MALFORMED, f"the invite is damaged or incomplete. {_AGAIN}") from error
    invite = open_invite(envelope)
    if invite.text != compact:  # the last character may carry bits that decode to nothing
        raise IdentityError(Reason.MALFORMED, f"the invite is damaged at its end. {_AGAIN}")
    return invite


def open_invite(envelope: bytes) -> Invite:
    """The invite in the exact bytes *envelope*. Raises IdentityError."""
    try:
        payload, inviter = open_envelope(envelope, domains.INVITE, MAX_OFFLINE_INVITE_BYTES)
        wire = Wire.FromString(payload)
    except EnvelopeError as error:
        refused = from_envelope(error, "invite")
        raise IdentityError(refused.reason, f"{refused}. {_AGAIN}") from error
    except DecodeError as error:
        raise IdentityError(Reason.MALFORMED, f"the invite is damaged. {_AGAIN}") from error
    check_version(wire.version, VERSION, "invite")
    if not wire.key_seed and len(envelope) > MAX_INVITE_BYTES:
        raise IdentityError(Reason.OVERSIZED, f"an invite of more than {MAX_INVITE_BYTES} bytes. {_AGAIN}")
    if len(wire.mesh) != KEY_SIZE or not 1 <= len(wire.addresses) <= MAX_ADDRESSES or not 0 < wire.expires < MAX_TIME:
        raise IdentityError(Reason.MALFORMED, "an invite with a wrong mesh key, expiry or number of addresses")
    check_name(wire.mesh_name, MAX_MESH_NAME_BYTES)
    scopes = _offline_scopes(wire) if wire.key_seed or wire.chain else _online_scopes(wire)
    return Invite(
        wire.mesh, wire.mesh_name, inviter, tuple(_address(raw, inviter) for raw in wire.addresses), wire.expires,
        wire.uses, scopes, wire.approval, envelope, wire.key_seed, wire.chain,
    )


def _online_scopes(wire: Wire) -> tuple[str, ...]:
    if len(wire.secret) != SECRET_SIZE or not 1 <= wire.uses <= MAX_USES:
        raise IdentityError(Reason.MALFORMED, "an invite with a wrong secret or number of uses")
    return scope_rules.check(wire.scopes)


def _offline_scopes(wire: Wire) -> tuple[str, ...]:
    if len(wire.key_seed) != KEY_SIZE or wire.secret or wire.uses or wire.scopes or wire.approval:
        raise IdentityError(Reason.MALFORMED, "an offline invite with a wrong key or fields of an online one")
    above: Credential = open_chain(wire.chain, wire.mesh)
    if above.last.kind is not Kind.INVITE_KEY or above.peer.public_key != SigningKey(wire.key_seed).verify_key.encode():
        raise IdentityError(Reason.NOT_ISSUER, "an offline invite whose chain is not for the key in it")
    if above.not_after != wire.expires:
        raise IdentityError(Reason.MALFORMED, "an offline invite that expires at another time than its chain")
    return above.scopes


def _to_bytes(address: str) -> bytes:
    try:
        return bytes(Multiaddr(address).to_bytes())
    except Exception as error:  # the library raises many types, each for text that is no address
        message = f"not an address: {address!r}; write it like /ip4/1.2.3.4/tcp/5"
        raise IdentityError(Reason.MALFORMED, message) from error


def _address(raw: bytes, inviter: PeerId) -> str:
    try:
        text = str(Multiaddr(raw))
        exact = Multiaddr(text).to_bytes() == raw  # the library pads short input instead of refusing it
    except Exception as error:  # it raises many types, each for bytes that are no address
        raise IdentityError(Reason.MALFORMED, f"an address in the invite is damaged. {_AGAIN}") from error
    if not exact:
        raise IdentityError(Reason.MALFORMED, f"an address in the invite is damaged. {_AGAIN}")
    return text if "/p2p/" in text else f"{text}/p2p/{inviter}"
