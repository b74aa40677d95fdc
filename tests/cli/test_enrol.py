"""What a joiner makes of the inviter's answer."""

from __future__ import annotations

from pathlib import Path

import pytest

from atmosphere.cli.enrol import granted
from atmosphere.cli.home import Failure
from atmosphere.env import FixedEnv
from atmosphere.identity import Enrolment, Identity, IdentityError, Invite, InviteBook, Keyring, Reason, RevocationSet
from atmosphere.store import Store
from protocols.join.messages import Enrol, Pending, Refused, Reply

ADDRESS = "/ip4/192.0.2.7/tcp/4001"


@pytest.fixture
def env() -> FixedEnv:
    return FixedEnv(seed=1)


@pytest.fixture  # async: the clock of FixedEnv is Trio's
async def inviter(tmp_path: Path, env: FixedEnv) -> Identity:
    return Keyring(tmp_path / "inviter").init("inviter", "Home", env.now(), env.token_bytes)


@pytest.fixture
async def invite(inviter: Identity, env: FixedEnv) -> Invite:
    return inviter.create_invite([ADDRESS], env.now(), env.token_bytes)


@pytest.fixture
def keyring(tmp_path: Path) -> Keyring:
    return Keyring(tmp_path / "joiner")


async def answer(inviter: Identity, invite: Invite, keyring: Keyring, env: FixedEnv) -> Reply:
    """The inviter's honest answer."""
    book = InviteBook(Store.memory(env))
    judge = Enrolment(lambda: inviter, book, RevocationSet(inviter.mesh), env.now, env.token_bytes)
    return await judge.judge(keyring.node_peer_id(env.token_bytes), Enrol(invite.envelope, "joiner"))


async def test_a_grant_becomes_a_membership(inviter: Identity, invite: Invite, keyring: Keyring, env: FixedEnv) -> None:
    mesh_name, chain = granted(invite, keyring, await answer(inviter, invite, keyring, env), env)
    identity = keyring.join(invite.mesh, mesh_name, chain, env.now())
    assert (identity.mesh_id, identity.mesh_name, identity.name) == (inviter.mesh_id, "Home", "joiner")


async def test_a_wrong_clock_is_named(inviter: Identity, invite: Invite, keyring: Keyring, env: FixedEnv) -> None:
    reply = await answer(inviter, invite, keyring, env)
    late = FixedEnv(start=env.start + 3600)
    with pytest.raises(IdentityError, match="clock") as caught:
        granted(invite, keyring, reply, late)
    assert caught.value.reason is Reason.CLOCK


async def test_a_refusal_keeps_its_words(inviter: Identity, invite: Invite, keyring: Keyring, env: FixedEnv) -> None:
    expired = FixedEnv(seed=2, start=env.start + 7200)
    reply = await answer(inviter, invite, keyring, expired)
    assert isinstance(reply.outcome, Refused)
    with pytest.raises(Failure, match="expired"):
        granted(invite, keyring, reply, expired)


async def test_a_pending_approval_says_to_come_back(invite: Invite, keyring: Keyring, env: FixedEnv) -> None:
    with pytest.raises(Failure, match="approve"):
        granted(invite, keyring, Reply(Pending(1000), int(env.now() * 1000)), env)


async def test_a_membership_for_somebody_else_is_refused(
    inviter: Identity, invite: Invite, keyring: Keyring, tmp_path: Path, env: FixedEnv
) -> None:
    reply = await answer(inviter, invite, Keyring(tmp_path / "thief"), env)
    with pytest.raises(IdentityError) as caught:
        granted(invite, keyring, reply, env)
    assert caught.value.reason is Reason.WRONG_AUDIENCE
