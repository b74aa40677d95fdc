"""The owner key can leave: sealed in a file that opens with its passphrase only, while the mesh works on without it."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nacl.bindings import crypto_pwhash_alg, crypto_pwhash_ALG_ARGON2ID13, crypto_secretbox_open
from nacl.pwhash import argon2id

from atmosphere.env import FixedEnv
from atmosphere.identity import (
    HomeError,
    Identity,
    IdentityError,
    Keyring,
    Reason,
    RevocationSet,
    Target,
    open_chain,
    open_revocation,
    verify_chain,
    verify_issuer,
)
from atmosphere.identity import owner_key as module
from atmosphere.identity.owner_key import OwnerKeyError, is_sealed, seal, unseal
from tests.identity.keys import DAY, NOW, key, peer

PASSPHRASE = "correct horse battery"
SEED = key("owner").encode()
tokens = FixedEnv(9).token_bytes


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The least that Argon2id takes: these tests are about the format, not about its cost."""
    kdf = argon2id.kdf
    monkeypatch.setattr(module.argon2id, "kdf", lambda size, password, salt, operations, memory: kdf(
        size, password, salt, argon2id.OPSLIMIT_MIN, argon2id.MEMLIMIT_MIN))


def sealed() -> bytes:
    return seal(SEED, PASSPHRASE, tokens)


def changed(**members: Any) -> bytes:
    about = json.loads(seal(SEED, PASSPHRASE, tokens, operations=1, memory=argon2id.MEMLIMIT_MIN))
    about.update(members)
    return json.dumps({name: value for name, value in about.items() if value is not None}).encode()


def test_round_trip_and_nothing_of_the_seed_in_the_file() -> None:
    data = sealed()
    assert unseal(data, PASSPHRASE) == SEED
    assert is_sealed(data)
    assert not is_sealed(SEED)
    about = json.loads(data)
    assert (about["version"], about["kdf"], about["operations"], about["memory"]) == (1, "argon2id", 3, 256 * 1024**2)
    assert base64.b64encode(SEED)[:20] not in data
    assert data != sealed(), "another salt and nonce each time"
    assert unseal(seal(SEED, "Ku\u0308hlschrank", tokens), "K\u00fchlschrank") == SEED, "however the keyboard writes it"


DAMAGED: dict[str, bytes] = {
    "nothing": b"", "a plain seed": SEED, "no JSON": b"{", "a list": b"[]", "deep": b"[" * 4000,
    "too long": b" " * 5000, "another format": changed(format="x"), "a newer version": changed(version=2),
    "another function": changed(kdf="md5"), "no mesh": changed(mesh=None), "another mesh": changed(mesh=str(peer("x"))),
    "no salt": changed(salt=None), "a short salt": changed(salt="AAAA"), "no base64": changed(nonce="\u00e4"),
    "a number": changed(sealed=7), "cut off": changed(sealed="AAAA"), "too much memory": changed(memory=2**40),
    "too many passes": changed(operations=99), "no memory": changed(memory=0),
    "memory as text": changed(memory="much"), "infinite": changed(memory=float("inf")),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_what_is_no_sealed_key_is_refused(case: str) -> None:
    with pytest.raises(OwnerKeyError):
        unseal(DAMAGED[case], PASSPHRASE)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_no_changed_byte_gives_another_key(data: st.DataObject) -> None:
    original = sealed()
    position = data.draw(st.integers(0, len(original) - 1))
    mutated = bytearray(original)
    mutated[position] ^= data.draw(st.integers(1, 255))
    try:
        assert unseal(bytes(mutated), PASSPHRASE) == SEED  # white space, or a limit that this test does not use
    except OwnerKeyError:
        return


def test_another_program_can_open_it_by_what_the_file_says() -> None:
    about = json.loads(changed())
    salt, nonce, box = (base64.b64decode(about[name]) for name in ("salt", "nonce", "sealed"))
    opened = crypto_pwhash_alg(
        32, PASSPHRASE.encode(), salt, about["operations"], about["memory"], crypto_pwhash_ALG_ARGON2ID13
    )
    assert crypto_secretbox_open(box, nonce, opened) == SEED
    assert about["mesh"] == str(peer("owner"))


def test_passphrases() -> None:
    with pytest.raises(OwnerKeyError, match="passphrase"):
        unseal(sealed(), "incorrect horse")
    with pytest.raises(OwnerKeyError, match="few words"):
        seal(SEED, "short", tokens)


def make(home: Path) -> tuple[Keyring, Identity]:
    ring = Keyring(home)
    return ring, ring.init("first", "home", NOW, FixedEnv().token_bytes)


def test_export_remove_import(tmp_path: Path) -> None:
    ring, made = make(tmp_path / "home")
    before = (tmp_path / "home" / "owner.key").read_bytes()
    file = tmp_path / "drawer" / "owner.json"
    ring.export_owner(file, PASSPHRASE, tokens)
    assert ring.has_owner_key
    assert file.stat().st_mode & 0o777 == 0o600
    with pytest.raises(HomeError, match="exists already"):
        ring.export_owner(file, PASSPHRASE, tokens)
    ring.export_owner(tmp_path / "second.json", PASSPHRASE, tokens, remove=True)
    assert not ring.has_owner_key
    assert ring.load() == made
    with pytest.raises(HomeError, match="owner import"):
        ring.export_owner(tmp_path / "third.json", PASSPHRASE, tokens)
    with pytest.raises(HomeError, match="passphrase"):
        ring.import_owner(file, "wrong horse battery")
    assert not ring.has_owner_key
    ring.import_owner(file, PASSPHRASE)
    assert (tmp_path / "home" / "owner.key").read_bytes() == before
    assert (tmp_path / "home" / "owner.key").stat().st_mode & 0o777 == 0o600


def test_nothing_is_removed_when_the_export_does_not_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ring, _ = make(tmp_path)
    monkeypatch.setattr("atmosphere.identity.home.unseal", lambda *_: b"something else")
    with pytest.raises(HomeError, match="read back"):
        ring.export_owner(tmp_path / "out.json", PASSPHRASE, tokens, remove=True)
    assert ring.has_owner_key
    with pytest.raises(HomeError, match="few words"):
        ring.export_owner(tmp_path / "out2.json", "short", tokens, remove=True)
    (tmp_path / "a file").write_bytes(b"")
    with pytest.raises(HomeError, match="cannot write"):
        ring.export_owner(tmp_path / "a file" / "out.json", PASSPHRASE, tokens, remove=True)
    assert ring.has_owner_key


def test_the_key_may_stay_sealed_in_the_home(tmp_path: Path) -> None:
    ring, _ = make(tmp_path / "home")
    file = tmp_path / "owner.json"
    ring.export_owner(file, PASSPHRASE, tokens, remove=True)
    ring.import_owner(file, PASSPHRASE, keep_sealed=True)
    assert is_sealed((tmp_path / "home" / "owner.key").read_bytes())
    with pytest.raises(HomeError, match="sealed"):
        ring.renew_issuer(NOW, tokens)
    with pytest.raises(HomeError, match="passphrase is wrong"):
        ring.renew_issuer(NOW, tokens, "wrong horse battery")
    assert ring.renew_issuer(NOW, tokens, PASSPHRASE).issuer
    ring.export_owner(tmp_path / "again.json", PASSPHRASE, tokens)


def test_another_meshs_key_is_not_taken(tmp_path: Path) -> None:
    ring, _ = make(tmp_path / "a")
    other = Keyring(tmp_path / "b")
    other.init("second", "other", NOW, FixedEnv(5).token_bytes)
    other.export_owner(tmp_path / "b.json", PASSPHRASE, tokens)
    with pytest.raises(HomeError, match="another mesh"):
        ring.import_owner(tmp_path / "b.json", PASSPHRASE)
    (tmp_path / "a" / "owner.key").write_bytes((tmp_path / "b" / "owner.key").read_bytes())
    with pytest.raises(HomeError, match="not the owner key of this"):
        ring.renew_issuer(NOW, tokens)
    with pytest.raises(HomeError, match="cannot read"):
        ring.import_owner(tmp_path / "nothing.json", PASSPHRASE)


def test_a_new_home_with_the_owner_key_is_a_node_of_the_same_mesh(tmp_path: Path) -> None:
    ring, made = make(tmp_path / "old")
    ring.export_owner(tmp_path / "owner.json", PASSPHRASE, tokens)
    new = Keyring(tmp_path / "new")
    new.import_owner(tmp_path / "owner.json", PASSPHRASE)
    again = new.init("again", "home", NOW, FixedEnv(8).token_bytes)
    assert again.mesh == made.mesh
    assert again.peer_id != made.peer_id
    drawer = Keyring(tmp_path / "sealed")
    drawer.import_owner(tmp_path / "owner.json", PASSPHRASE, keep_sealed=True)
    with pytest.raises(HomeError, match="sealed"):
        drawer.init("again", "home", NOW, FixedEnv(8).token_bytes)
    assert drawer.init("again", "home", NOW, FixedEnv(8).token_bytes, PASSPHRASE).mesh == made.mesh
    third = Keyring(tmp_path / "third")
    third.init("third", "third", NOW, FixedEnv(3).token_bytes)
    (tmp_path / "third" / "mesh.json").unlink()
    with pytest.raises(HomeError, match="another owner key"):
        third.import_owner(tmp_path / "owner.json", PASSPHRASE)


def test_everything_but_renewing_the_certificate_works_without_the_owner_key(tmp_path: Path) -> None:
    ring, first = make(tmp_path / "home")
    ring.export_owner(tmp_path / "owner.json", PASSPHRASE, tokens, remove=True)
    first = ring.load()
    invite = first.create_invite(("/ip4/10.0.0.1/tcp/1",), NOW, tokens)
    assert first.redeem_record(invite, peer("guest"), NOW)
    guest = first.issue_membership(peer("guest"), "guest", invite.scopes, NOW, tokens)
    assert first.renew(guest, peer("guest"), NOW + DAY, tokens)
    own = first.renew(first.chain, first.peer_id, NOW + 6 * DAY, tokens)
    ring.save_membership(first.with_membership(own, NOW + 6 * DAY))
    sub = first.appoint_issuer(peer("sub"), ("call", "serve", "invite"), NOW, tokens)
    revoked = RevocationSet(first.mesh)
    for kind, target in ((Target.PEER, peer("guest")), (Target.ISSUER, peer("sub"))):
        revoked.add(first.revoke(kind, target.public_key, NOW), NOW)
    assert revoked.is_revoked(open_chain(guest, first.mesh))
    assert revoked.is_revoked(open_chain(sub, first.mesh))
    assert first.create_offline_invite(("/ip4/10.0.0.1/tcp/1",), NOW, tokens)
    with pytest.raises(HomeError, match="owner import"):
        ring.renew_issuer(NOW + 364 * DAY, tokens)
    with pytest.raises(HomeError, match="owner import"):
        ring.revoke_as_owner(Target.ISSUER, first.peer_id.public_key, NOW)


def test_the_certificate_is_renewed_with_the_owner_key(tmp_path: Path) -> None:
    ring, first = make(tmp_path)
    later = NOW + 364 * DAY
    renewed = ring.renew_issuer(later, tokens)
    assert ring.load() == renewed
    assert renewed.membership == first.membership
    assert verify_issuer(renewed.issuer_chain, first.mesh, later).not_after == later + 365 * DAY
    granted = renewed.issue_membership(peer("x"), "x", ("serve",), later, tokens)
    assert verify_chain(granted, first.mesh, peer("x"), later).not_after == later + 7 * DAY


def test_the_owner_strikes_the_first_issuer(tmp_path: Path) -> None:
    ring, first = make(tmp_path)
    record = ring.revoke_as_owner(Target.ISSUER, first.peer_id.public_key, NOW, "stolen")
    said = open_revocation(record, first.mesh, NOW)
    assert (said.level, said.reason) == (0, "stolen")
    revoked = RevocationSet(first.mesh)
    revoked.add(record, NOW)
    with pytest.raises(IdentityError) as caught:
        first.issue_membership(peer("x"), "x", ("serve",), NOW, tokens, revoked)
    assert caught.value.reason is Reason.REVOKED
