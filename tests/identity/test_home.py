"""The home folder: keys that nobody else can read, and a mesh that is there whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from atmosphere.env import FixedEnv
from atmosphere.identity import HomeError, Identity, IdentityError, Keyring, Reason, verify_chain
from tests.identity.keys import MESH, NOW, member, peer


def make(home: Path) -> Identity:
    return Keyring(home).init("first", "home", NOW, FixedEnv().token_bytes)


def test_init_makes_a_node_that_can_invite_and_reads_back_equal(tmp_path: Path) -> None:
    made = make(tmp_path / "new")
    ring = Keyring(tmp_path / "new")
    again = ring.load()
    assert again == made
    assert again.peer_id == ring.node_peer_id(FixedEnv(5).token_bytes)
    assert again.membership.allows("admin")
    assert verify_chain(again.chain, again.mesh, again.peer_id, NOW).name == "first"
    assert again.create_invite(("/ip4/127.0.0.1/tcp/1",), NOW, FixedEnv(1).token_bytes).inviter == again.peer_id
    for name in ("node.key", "owner.key", "mesh.json", "membership.chain", "issuer.chain"):
        assert (tmp_path / "new" / name).stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in (tmp_path / "new").iterdir() if path.name.startswith(".")) == []
    assert made.seed.hex() not in repr(made)


def test_works_with_the_owner_key_gone(tmp_path: Path) -> None:
    made = make(tmp_path)
    (tmp_path / "owner.key").unlink()
    assert Keyring(tmp_path).load() == made
    assert not Keyring(tmp_path).has_owner_key
    assert made.issue_membership(peer("x"), "x", ("serve",), NOW, FixedEnv().token_bytes)


def test_never_overwrites_a_mesh(tmp_path: Path) -> None:
    before = make(tmp_path)
    with pytest.raises(HomeError, match="leave"):
        make(tmp_path)
    with pytest.raises(HomeError, match="leave"):
        Keyring(tmp_path).join(MESH, "other", member(), NOW)
    assert Keyring(tmp_path).load() == before


def test_an_interrupted_init_is_continued_with_the_same_keys(tmp_path: Path) -> None:
    before = make(tmp_path)
    (tmp_path / "mesh.json").unlink()
    again = Keyring(tmp_path).init("first", "home", NOW, FixedEnv(99).token_bytes)
    assert (again.mesh, again.peer_id) == (before.mesh, before.peer_id)


@pytest.mark.parametrize("name", ["node.key"])
@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660])
def test_a_key_that_others_can_read_is_refused(tmp_path: Path, name: str, mode: int) -> None:
    make(tmp_path)
    (tmp_path / name).chmod(mode)
    with pytest.raises(HomeError, match="chmod 600"):
        Keyring(tmp_path).load()


def test_damaged_files_say_so(tmp_path: Path) -> None:
    make(tmp_path)
    (tmp_path / "node.key").write_bytes(b"short")
    with pytest.raises(HomeError, match="not a key"):
        Keyring(tmp_path).load()
    for damage in (b"{", b"[]", b'{"version": 9, "id": "x", "name": ""}', b'{"version": 1, "id": "x", "name": ""}'):
        (tmp_path / "mesh.json").write_bytes(damage)
        with pytest.raises(HomeError):
            Keyring(tmp_path).load()
    with pytest.raises(HomeError, match="init"):
        Keyring(tmp_path / "nothing").load()


def test_join_keeps_only_what_is_for_this_node(tmp_path: Path) -> None:
    founder = make(tmp_path / "a")
    ring = Keyring(tmp_path / "b")
    env = FixedEnv(7)
    me = ring.node_peer_id(env.token_bytes)
    with pytest.raises(IdentityError) as caught:
        ring.join(MESH, "x", member(), NOW)
    assert caught.value.reason is Reason.WRONG_AUDIENCE
    assert not ring.has_mesh
    chain = founder.issue_membership(me, "b", ("call:*",), NOW, env.token_bytes)
    joined = ring.join(founder.mesh, "home", chain, NOW)
    assert joined.mesh_id == founder.mesh_id
    assert joined.issuer is None
    renewed = joined.with_membership(founder.renew(chain, me, NOW + 9, env.token_bytes), NOW + 9)
    ring.save_membership(renewed)
    assert ring.load() == renewed
    assert renewed.chain_digest != joined.chain_digest


def test_forget_leaves_nothing(tmp_path: Path) -> None:
    make(tmp_path)
    Keyring(tmp_path).forget()
    assert list(tmp_path.iterdir()) == []
    assert make(tmp_path)


def test_only_an_issuer_certificate_of_this_node_is_kept(tmp_path: Path) -> None:
    founder = make(tmp_path / "a")
    ring, env = Keyring(tmp_path / "b"), FixedEnv(7)
    me = ring.node_peer_id(env.token_bytes)
    joined = ring.join(
        founder.mesh, "home", founder.issue_membership(me, "b", ("call:*",), NOW, env.token_bytes), NOW
    )
    certificate = founder.appoint_issuer(me, ("call", "invite"), NOW, env.token_bytes)
    for data, reason in (
        (founder.issuer_chain, Reason.WRONG_AUDIENCE), (joined.chain, Reason.NOT_ISSUER), (b"", Reason.MALFORMED),
    ):
        with pytest.raises(IdentityError) as caught:
            ring.save_issuer(data)
        assert caught.value.reason is reason
        with pytest.raises(IdentityError) as caught:
            joined.with_issuer(data, NOW)
        assert caught.value.reason is reason
    with pytest.raises(IdentityError) as caught:
        joined.with_issuer(certificate, NOW + 366 * 86400)
    assert caught.value.reason is Reason.EXPIRED
    ring.save_issuer(certificate)
    assert ring.load() == joined.with_issuer(certificate, NOW)
