"""Who is a member: signatures once, time and revocation every time."""

from __future__ import annotations

import pytest

from atmosphere.env import FixedEnv
from atmosphere.identity import IdentityError, Reason, Target, revoke
from atmosphere.mesh.library import Library
from atmosphere.mesh.members import Members
from atmosphere.mesh.trust import Trust
from atmosphere.store import Store
from protocols.sync.messages import Kind, Record
from tests.mesh.people import CHAINS, MESH, NOW, OTHER, OWNER, THIRD


@pytest.fixture
def env() -> FixedEnv:
    return FixedEnv(1, start=NOW)


@pytest.fixture
def trust(env: FixedEnv) -> Trust:
    return Trust(MESH, Store.memory(env), env, lambda *_: None, 7 * 86400)


@pytest.fixture
def members(env: FixedEnv, trust: Trust) -> Members:
    return Members(MESH, trust, Library(), env)


def test_a_membership_that_is_known_is_not_verified_again(members: Members) -> None:
    known = members.learn(CHAINS[OTHER])
    checks = members._cache.hits + members._cache.misses
    assert members.verified(known.digest, known) is known
    assert members._cache.hits + members._cache.misses == checks


def test_another_one_is(members: Members) -> None:
    known, other = members.learn(CHAINS[OTHER]), members.learn(CHAINS[THIRD])
    assert members.verified(other.digest, known) == other
    assert members.verified(bytes(32), known) is None


@pytest.mark.parametrize("when", ["expired", "revoked"])
def test_what_is_known_must_hold_now(members: Members, trust: Trust, env: FixedEnv, when: str) -> None:
    known = members.learn(CHAINS[OTHER])
    if when == "expired":
        env.advance(8 * 86400)
    else:
        trust.hear(Record(Kind.REVOCATION, revoke(Target.PEER, OTHER.public_key, OWNER, MESH, NOW)))
    with pytest.raises(IdentityError) as refused:
        members.verified(known.digest, known)
    assert refused.value.reason is (Reason.EXPIRED if when == "expired" else Reason.REVOKED)
