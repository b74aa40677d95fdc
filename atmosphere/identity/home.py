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
from atmosphere.identity.owner_key import SEED_SIZE, OwnerKeyError, is_sealed, seal, unseal
from atmosphere.identity.revocation import Target, revoke
from atmosphere.identity.scopes import ALL
from transports.peer_id import PeerId

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

    def init(
        self, name: str, mesh_name: str, now: float, token_bytes: TokenBytes, passphrase: str | None = None
    ) -> Identity:
        """Make a mesh: owner key, node key, and for this node an issuer certificate and a membership, all scopes.

        With an imported owner key it is that key's mesh again; *passphrase* opens it if it is sealed. Raises HomeError
        when the home has a mesh.
        """
        self._refuse_mesh()
        check_name(name, MAX_NAME_BYTES)
        check_name(mesh_name, MAX_MESH_NAME_BYTES)
        seed = self.node_seed(token_bytes)
        if not self.has_owner_key:
            write_atomically(self.home / OWNER_KEY, token_bytes(SEED_SIZE))
        owner = self._owner(passphrase)
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
        """Keep the chain that makes this node an issuer. Raises IdentityError if it is for another, or none."""
        identity = self.load()
        certificate = open_chain(chain, identity.mesh)
        if certificate.last.kind is not Kind.ISSUER:
            raise IdentityError(Reason.NOT_ISSUER, "the chain does not make its subject an issuer")
        if certificate.peer != identity.peer_id:
            raise IdentityError(Reason.WRONG_AUDIENCE, "this issuer certificate is for another node")
        write_atomically(self.home / ISSUER, chain)

    def export_owner(
        self, path: Path, passphrase: str, token_bytes: TokenBytes, *, remove: bool = False
    ) -> None:
        """Write the owner key to *path*, sealed with *passphrase*: a new file, mode 0600, read back before it counts.

        *remove* takes the key out of this home then; the mesh goes on without it, see :meth:`renew_issuer`. Where the
        home's own key is sealed, *passphrase* must open it. Raises HomeError; the home's key is then untouched.
        """
        if path.exists():
            raise HomeError(f"{path} exists already: choose another file, an owner key is never written over")
        seed = self._owner(passphrase).encode()
        try:
            write_atomically(path, seal(seed, passphrase, token_bytes))
            if unseal(path.read_bytes(), passphrase) != seed:
                raise HomeError(f"{path} does not read back as it was written: choose another disk")
        except OSError as error:
            raise HomeError(f"cannot write {path}: {error.strerror}") from error
        except OwnerKeyError as error:
            raise HomeError(f"cannot export the owner key: {error}") from error
        if remove:
            (self.home / OWNER_KEY).unlink()
            _sync_folder(self.home)

    def import_owner(self, path: Path, passphrase: str, *, keep_sealed: bool = False) -> None:
        """Take the owner key in *path* into this home, plain (mode 0600) or as it is, *keep_sealed*.

        A home without a mesh may take any: `init` then makes this node one of that owner's. Raises HomeError if the
        file cannot be opened, or if the key is another mesh's or differs from the one that is here.
        """
        try:
            data = path.read_bytes()
            seed = unseal(data, passphrase)
        except OSError as error:
            raise HomeError(f"cannot read {path}: {error.strerror}") from error
        except OwnerKeyError as error:
            raise HomeError(f"{path}: {error}") from error
        public = SigningKey(seed).verify_key.encode()
        if self.has_mesh and self.load().mesh != public:
            raise HomeError(f"{path} is the owner key of another mesh ({_peer_id(seed)}) than the one in {self.home}")
        if self.has_owner_key and not self.has_mesh and self._owner(passphrase).encode() != seed:
            raise HomeError(f"{self.home / OWNER_KEY} is another owner key: export it first, or use another --home")
        write_atomically(self.home / OWNER_KEY, data if keep_sealed else seed)

    def renew_issuer(self, now: float, token_bytes: TokenBytes, passphrase: str | None = None) -> Identity:
        """Give this node a new issuer certificate by the owner's key, all scopes, a year from *now*.

        On disk when it returns. Raises HomeError when the owner key is not in this home, is sealed and *passphrase*
        does not open it, or is another mesh's.
        """
        identity = self.load()
        chain = issue_link(
            self._owner_of(identity, passphrase), b"", Kind.ISSUER, identity.peer_id, (ALL,), "", identity.mesh, now,
            ISSUER_S, token_bytes,
        )
        self.save_issuer(chain)
        return self.load()

    def revoke_as_owner(
        self, kind: Target, target: bytes, now: float, reason: str = "", until: int = 0,
        passphrase: str | None = None,
    ) -> bytes:
        """As :meth:`Identity.revoke`, with the owner's own authority, which strikes every issuer. Raises HomeError."""
        identity = self.load()
        owner = self._owner_of(identity, passphrase)
        return revoke(kind, target, owner, identity.mesh, now, until=until, reason=reason)

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

    def _owner_of(self, identity: Identity, passphrase: str | None) -> SigningKey:
        owner = self._owner(passphrase)
        if owner.verify_key.encode() != identity.mesh:
            raise HomeError(f"{self.home / OWNER_KEY} is not the owner key of this home's mesh: import the right one")
        return owner

    def _owner(self, passphrase: str | None = None) -> SigningKey:
        """The owner's key, opened if it is sealed. Raises HomeError."""
        path = self.home / OWNER_KEY
        if not path.exists():
            raise HomeError(f"{path} is missing: this needs the owner's key. Bring it with `owner import FILE` first.")
        data = self._read_private(path)
        if is_sealed(data):
            if passphrase is None:
                raise HomeError(f"{path} is sealed: its passphrase is needed")
            try:
                data = unseal(data, passphrase)
            except OwnerKeyError as error:
                raise HomeError(f"{path}: {error}") from error
        return SigningKey(_check_seed(path, data))

    def _seed(self, name: str, token_bytes: TokenBytes) -> bytes:
        if not (self.home / name).exists():
            write_atomically(self.home / name, token_bytes(SEED_SIZE))
        return self._read_seed(name)

    def _read_seed(self, name: str) -> bytes:
        path = self.home / name
        return _check_seed(path, self._read_private(path))

    @staticmethod
    def _read_private(path: Path) -> bytes:
        try:
            mode = path.stat().st_mode
            if mode & 0o077:
                raise HomeError(f"{path} can be read by other users: run `chmod 600 {path}`")
            return path.read_bytes()
        except OSError as error:
            raise HomeError(f"cannot read the key {path}: {error.strerror}. Restore it from a backup.") from error


def _check_seed(path: Path, seed: bytes) -> bytes:
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
