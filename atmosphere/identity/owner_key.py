"""The owner's key at rest: sealed with a passphrase, in a file that can lie in a drawer.

The file is JSON with these members, binary ones in base64:

    {"format": "atmosphere owner key", "version": 1, "mesh": "12D3KooW...", "kdf": "argon2id",
     "operations": 3, "memory": 268435456, "salt": <16 bytes>, "nonce": <24 bytes>, "sealed": <48 bytes>}

``sealed`` is the 32-byte Ed25519 seed in NaCl's secretbox (XSalsa20-Poly1305), under the 32-byte key that Argon2id
(1.3) makes of the passphrase (UTF-8, NFC), ``salt``, ``operations`` passes over ``memory`` bytes. ``mesh`` is the
owner's peer id, for people and as a check: the seed must give it.
"""

from __future__ import annotations

import base64
import binascii
import json
import unicodedata
from collections.abc import Callable

from nacl.exceptions import CryptoError
from nacl.pwhash import argon2id
from nacl.secret import SecretBox
from nacl.signing import SigningKey

from transports.peer_id import PeerId

FORMAT, VERSION, KDF = "atmosphere owner key", 1, "argon2id"
SEED_SIZE = 32
OPERATIONS = argon2id.OPSLIMIT_MODERATE  # with the memory below about a second for each guess
MEMORY = argon2id.MEMLIMIT_MODERATE      # 256 MiB: a Raspberry Pi has it, a guessing graphics card not often
MAX_OPERATIONS = 16                      # what a file may ask of whoever opens it
MAX_MEMORY = 1024 * 1024 * 1024
MAX_FILE_BYTES = 4096
MIN_PASSPHRASE = 8                       # characters; Argon2id makes up for some weakness, not for all


class OwnerKeyError(Exception):
    """The owner key cannot be sealed or opened; the message names cause and next step."""


def is_sealed(data: bytes) -> bool:
    """Whether *data* is a sealed key rather than a plain seed."""
    return len(data) > SEED_SIZE and data.startswith(b"{")


def seal(
    seed: bytes, passphrase: str, token_bytes: Callable[[int], bytes], *, operations: int = OPERATIONS,
    memory: int = MEMORY,
) -> bytes:
    """The file for *seed*; takes about a second and 256 MiB on purpose. Raises OwnerKeyError."""
    if len(passphrase) < MIN_PASSPHRASE:
        raise OwnerKeyError(f"a passphrase of fewer than {MIN_PASSPHRASE} characters: use a few words")
    salt, nonce = token_bytes(argon2id.SALTBYTES), token_bytes(SecretBox.NONCE_SIZE)
    sealed = SecretBox(_key(passphrase, salt, operations, memory)).encrypt(seed, nonce).ciphertext
    about = {
        "format": FORMAT, "version": VERSION, "mesh": str(_mesh(seed)), "kdf": KDF, "operations": operations,
        "memory": memory, "salt": _text(salt), "nonce": _text(nonce), "sealed": _text(sealed),
    }
    return json.dumps(about, indent=2).encode() + b"\n"


def unseal(data: bytes, passphrase: str) -> bytes:
    """The seed in *data*. Raises OwnerKeyError: not such a file, a newer version, damaged, or another passphrase."""
    if len(data) > MAX_FILE_BYTES:
        raise OwnerKeyError(f"not a sealed owner key: {len(data)} bytes")
    try:
        about = json.loads(data)
        known = about["format"] == FORMAT
        version, kdf, mesh = about["version"], about["kdf"], about["mesh"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise OwnerKeyError("not a sealed owner key: use the file that `owner export` wrote") from error
    if not known:
        raise OwnerKeyError("not a sealed owner key: use the file that `owner export` wrote")
    if version != VERSION or kdf != KDF:
        raise OwnerKeyError(f"a sealed owner key of version {version!r}; this release knows {VERSION}: update it")
    try:
        operations, memory = int(about["operations"]), int(about["memory"])
        salt, nonce, sealed = (_bytes(about[name]) for name in ("salt", "nonce", "sealed"))
        fits = (
            argon2id.OPSLIMIT_MIN <= operations <= MAX_OPERATIONS and argon2id.MEMLIMIT_MIN <= memory <= MAX_MEMORY
            and len(salt) == argon2id.SALTBYTES and len(nonce) == SecretBox.NONCE_SIZE
        )
    except (ValueError, KeyError, TypeError, binascii.Error, OverflowError) as error:
        raise OwnerKeyError("the sealed owner key is damaged: use another copy") from error
    if not fits:
        raise OwnerKeyError("the sealed owner key is damaged or asks for too much memory or time: use another copy")
    try:
        seed = SecretBox(_key(passphrase, salt, operations, memory)).decrypt(sealed, nonce)
    except (CryptoError, ValueError) as error:
        raise OwnerKeyError("the passphrase is wrong or the file damaged: try again, or use another copy") from error
    if len(seed) != SEED_SIZE or str(_mesh(seed)) != mesh:
        raise OwnerKeyError("the sealed owner key is not that of the mesh it names: use another copy")
    return seed


def _key(passphrase: str, salt: bytes, operations: int, memory: int) -> bytes:
    text = unicodedata.normalize("NFC", passphrase).encode()  # keyboards differ in how they write an umlaut
    return argon2id.kdf(SecretBox.KEY_SIZE, text, salt, operations, memory)


def _mesh(seed: bytes) -> PeerId:
    return PeerId.from_public_key(SigningKey(seed).verify_key.encode())


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _bytes(text: str) -> bytes:
    return base64.b64decode(text, validate=True)
