"""The home folder's part that is about trust: keys, mesh, memberships. Written whole or not at all."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from nacl.signing import SigningKey

from atmosphere.identity.chain import open_chain, verify_chain
from atmosphere.identity.errors import IdentityError, Reason
from atmosphere.identity.identity import ISSUER_S, MEMBERSHIP_S, Identity, TokenBytes, issue_link
from atmosphere.identity.invite import MAX_MESH_NAME_BYTES
from atmosphere.identity.link import MAX_NAME_BYTES, Kind, check_name
from atmosphere.identity.scopes import ALL
from transports.peer_id import PeerId

SEED_SIZE = 32
NODE_KEY, OWNER_KEY = "node.key", "owner.key"
MESH, MEMBERSHIP, ISSUER = "mesh.json", "membership.chain", "issuer.chain"
MESH_VERSION = 1


class HomeError(Exception):
    """The home folder cannot be used as asked; the message names the file and the next step."""


@dataclass(frozen=True)
class Keyring:
    """The keys and chains in one home folder.

    ``mesh.json`` is written last and removed first: where it is, the rest is.
    """

    home: Path

    @property
    def has_mesh(self) -> bool:
        """Whether this home belongs to a mesh."""
        return (self.home / MESH).exists()

    @property
    def has_owner_key(self) -> bool:
        return (self.home / OWNER_KEY).exists()

    def node_seed(self, token_bytes: TokenBytes) -> bytes:
        """The node key's seed, made now if there is none. Raises HomeError."""
        return self._seed(NODE_KEY, token_bytes)

    def node_peer_id(self, token_bytes: TokenBytes) -> PeerId:
        """The peer id that this home has or gets."""
        return _peer_id(self.node_seed(token_bytes))

    def init(self, name: str, mesh_name: str, now: float, token_bytes: TokenBytes) -> Identity:
        """Make a mesh: owner key, node key, and for this node an issuer certificate and a membership, all scopes.

        Raises HomeError when the home has a mesh.
        """
        self._refuse_mesh()
        check_name(name, MAX_NAME_BYTES)
        check_name(mesh_name, MAX_MESH_NAME_BYTES)
        seed, owner = self.node_seed(token_bytes), SigningKey(self._seed(OWNER_KEY, token_bytes))
        mesh, peer = owner.verify_key.encode(), _peer_id(seed)
        issuer = issue_link(owner, b"", Kind.ISSUER, peer, (ALL,), "", mesh, now, ISSUER_S, token_bytes)
        chain = issue_link(
            SigningKey(seed), issuer, Kind.MEMBERSHIP, peer, (ALL,), name, mesh, now, MEMBERSHIP_S, token_bytes
        )
        write_atomically(self.home / ISSUER, issuer)
        return self._enter(mesh, mesh_name, chain)

    def join(self, mesh: bytes, mesh_name: str, chain: bytes, now: float) -> Identity:
        """Keep a membership that was just granted to this home's node key. Raises HomeError, IdentityError."""
        self._refuse_mesh()
        verify_chain(chain, mesh, _peer_id(self._read_seed(NODE_KEY)), now)
        check_name(mesh_name, MAX_MESH_NAME_BYTES)
        return self._enter(mesh, mesh_name, chain)

    def load(self) -> Identity:
        """The identity in this home. Raises HomeError (no mesh, unreadable) or IdentityError (files do not fit)."""
        try:
            about = json.loads((self.home / MESH).read_bytes())
            version, mesh_id, mesh_name = about["version"], about["id"], about["name"]
            if version != MESH_VERSION:
                raise HomeError(f"{self.home / MESH} has version {version}, this release knows {MESH_VERSION}: update")
            mesh = PeerId.parse(mesh_id).public_key
            chain = (self.home / MEMBERSHIP).read_bytes()
            issuer = (self.home / ISSUER).read_bytes() if (self.home / ISSUER).exists() else b""
        except FileNotFoundError as error:
            raise HomeError(
                f"{error.filename} is missing: this home has no mesh. Make one with `atmosphere-p2p init`, "
                "or join one with `atmosphere-p2p join INVITE`."
            ) from error
        except (ValueError, KeyError, TypeError) as error:
            raise HomeError(f"{self.home / MESH} is damaged ({error}): restore it from a backup, or `leave`") from error
        return Identity.load(self._read_seed(NODE_KEY), mesh, mesh_name, chain, issuer)

    def save_membership(self, identity: Identity) -> None:
        """Put a renewed membership in place of the old one; on disk when it returns."""
        write_atomically(self.home / MEMBERSHIP, identity.chain)

    def save_issuer(self, chain: bytes) -> None:
        """Keep the chain that makes this node an issuer. Raises IdentityError if it is for another."""
        identity = self.load()
        if open_chain(chain, identity.mesh).peer != identity.peer_id:
            raise IdentityError(Reason.WRONG_AUDIENCE, "this issuer certificate is for another node")
        write_atomically(self.home / ISSUER, chain)

    def forget(self) -> None:
        """Leave: remove mesh, memberships and keys. An owner key goes too: without a copy its mesh ends with it."""
        for name in (MESH, MEMBERSHIP, ISSUER, OWNER_KEY, NODE_KEY):
            (self.home / name).unlink(missing_ok=True)
        _sync_folder(self.home)

    def _enter(self, mesh: bytes, mesh_name: str, chain: bytes) -> Identity:
        write_atomically(self.home / MEMBERSHIP, chain)
        about = {"version": MESH_VERSION, "id": str(PeerId.from_public_key(mesh)), "name": mesh_name}
        write_atomically(self.home / MESH, json.dumps(about, indent=2).encode() + b"\n")
        return self.load()

    def _refuse_mesh(self) -> None:
        if self.has_mesh:
            raise HomeError(
                f"{self.home} belongs to a mesh already. Use another --home, or `atmosphere-p2p leave` first."
            )

    def _seed(self, name: str, token_bytes: TokenBytes) -> bytes:
        if not (self.home / name).exists():
            write_atomically(self.home / name, token_bytes(SEED_SIZE))
        return self._read_seed(name)

    def _read_seed(self, name: str) -> bytes:
        path = self.home / name
        try:
            mode = path.stat().st_mode
            if mode & 0o077:
                raise HomeError(f"{path} can be read by other users: run `chmod 600 {path}`")
            seed = path.read_bytes()
        except OSError as error:
            raise HomeError(f"cannot read the key {path}: {error.strerror}. Restore it from a backup.") from error
        if len(seed) != SEED_SIZE:
            raise HomeError(f"{path} is not a key: {len(seed)} bytes instead of {SEED_SIZE}. Restore it from a backup.")
        return seed


def _peer_id(seed: bytes) -> PeerId:
    return PeerId.from_public_key(SigningKey(seed).verify_key.encode())


def write_atomically(path: Path, data: bytes) -> None:
    """Replace *path* by *data*, mode 0600: after a crash the old content or the new is there, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = path.with_name(f".{path.name}.new")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
