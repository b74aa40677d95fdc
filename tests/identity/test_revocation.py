"""Revocations: who may say them, whom they strike, and that sets agree in whatever order they hear."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable

import pytest

from atmosphere.identity import (
    ChainCache,
    IdentityError,
    Reason,
    RevocationSet,
    Target,
    open_chain,
    open_revocation,
    revoke,
)
from tests.identity.keys import DAY, MESH, NOW, chain, deep, issuer, key, link, member, peer, public

ISSUER_CHAIN = chain(issuer("owner", "issuer"))
SUB_CHAIN = chain(issuer("owner", "issuer"), issuer("issuer", "sub"))
ADMIN = member("admin", ("revoke",))


def by_owner(kind: Target, target: bytes, until: int = 0) -> bytes:
    return revoke(kind, target, key("owner"), MESH, NOW, until=until)


def struck(record: bytes, data: bytes) -> bool:
    revoked = RevocationSet(MESH)
    revoked.add(record, NOW)
    return revoked.is_revoked(open_chain(data, MESH))


def test_owner_strikes_membership_peer_and_issuer_with_all_below() -> None:
    serial = open_chain(member(), MESH).serial
    assert struck(by_owner(Target.MEMBERSHIP, serial, NOW + DAY), member())
    assert struck(by_owner(Target.PEER, public("member")), member())
    assert struck(by_owner(Target.ISSUER, public("issuer")), deep())
    assert not struck(by_owner(Target.PEER, public("other")), member())
    assert not struck(by_owner(Target.PEER, public("issuer")), member()), "a lost node does not take its members along"


def test_nobody_strikes_above_himself() -> None:
    by_sub = revoke(Target.PEER, public("member"), key("sub"), MESH, NOW, authority=SUB_CHAIN)
    assert struck(by_sub, member()), "a membership of the same level"
    first_node = chain(issuer("owner", "issuer"), link("issuer", "issuer"))
    by_sub = revoke(Target.PEER, public("other issuer"), key("sub"), MESH, NOW, authority=SUB_CHAIN)
    above = chain(issuer("owner", "other issuer"), link("other issuer", "other issuer"))
    assert open_chain(first_node, MESH).level == 1
    assert not struck(by_sub, above), "the other issuer stands one level higher"
    sibling = revoke(Target.ISSUER, public("other issuer"), key("issuer"), MESH, NOW, authority=ISSUER_CHAIN)
    assert not struck(sibling, above), "issuers of one level do not strike each other"
    below = revoke(Target.ISSUER, public("sub"), key("issuer"), MESH, NOW, authority=ISSUER_CHAIN)
    assert struck(below, deep())


def test_scope_revoke_is_enough_for_a_member() -> None:
    assert struck(revoke(Target.PEER, public("member"), key("admin"), MESH, NOW, authority=ADMIN), member())


REFUSED: dict[str, tuple[Callable[[], bytes], Reason]] = {
    "no authority": (lambda: revoke(Target.PEER, public("x"), key("issuer"), MESH, NOW), Reason.FORBIDDEN),
    "no scope": (
        lambda: revoke(Target.PEER, public("x"), key("member"), MESH, NOW, authority=member()), Reason.FORBIDDEN),
    "another's authority": (
        lambda: revoke(Target.PEER, public("x"), key("thief"), MESH, NOW, authority=ADMIN), Reason.WRONG_AUDIENCE),
    "authority ended": (
        lambda: revoke(Target.PEER, public("x"), key("admin"), MESH, NOW + 30 * DAY, authority=ADMIN), Reason.EXPIRED),
    "the owner": (lambda: by_owner(Target.ISSUER, MESH), Reason.ABOVE_REVOKER),
    "the issuer above": (
        lambda: revoke(Target.PEER, public("issuer"), key("admin"), MESH, NOW, authority=ADMIN), Reason.ABOVE_REVOKER),
    "wrong target": (lambda: by_owner(Target.PEER, b"x" * 16), Reason.MALFORMED),
    "membership without end": (lambda: by_owner(Target.MEMBERSHIP, b"x" * 16), Reason.MALFORMED),
    "peer with an end": (lambda: by_owner(Target.PEER, public("x"), NOW), Reason.MALFORMED),
    "another mesh": (
        lambda: open_revocation(by_owner(Target.PEER, public("x")), public("other owner"), NOW).record,
        Reason.FOREIGN_MESH),
    "from the future": (
        lambda: open_revocation(by_owner(Target.PEER, public("x")), MESH, NOW - 301).record, Reason.NOT_YET_VALID),
    "oversized": (lambda: open_revocation(b"x" * 5000, MESH, NOW).record, Reason.OVERSIZED),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_with_its_reason(case: str) -> None:
    make, reason = REFUSED[case]
    with pytest.raises(IdentityError) as caught:
        make()
    assert caught.value.reason is reason, caught.value


def test_no_flipped_bit_passes() -> None:
    record = by_owner(Target.PEER, public("member"))
    for position in range(len(record) * 8):
        flipped = bytearray(record)
        flipped[position // 8] ^= 1 << position % 8
        with pytest.raises(IdentityError):
            open_revocation(bytes(flipped), MESH, NOW)


def test_merging_in_any_order_gives_the_same_set() -> None:
    records = [
        by_owner(Target.PEER, public("member")),
        revoke(Target.PEER, public("member"), key("issuer"), MESH, NOW, authority=ISSUER_CHAIN, reason="lost"),
        by_owner(Target.MEMBERSHIP, b"s" * 16, NOW + DAY),
        by_owner(Target.MEMBERSHIP, b"s" * 16, NOW + 2 * DAY),
    ]
    digests = set()
    for order in itertools.permutations(records):
        revoked = RevocationSet(MESH)
        revoked.merge([*order, random.Random(1).choice(records)], NOW)
        digests.add(revoked.digest)
        assert len(revoked) == 2
        assert min(entry.level for entry in revoked) == 0
    assert len(digests) == 1


def test_only_ended_memberships_are_forgotten() -> None:
    revoked = RevocationSet(MESH)
    revoked.merge([by_owner(Target.PEER, public("x")), by_owner(Target.MEMBERSHIP, b"s" * 16, NOW + DAY)], NOW)
    assert revoked.forget_ended(NOW + DAY) == 0
    assert revoked.forget_ended(NOW + 2 * DAY) == 1
    assert [entry.kind for entry in revoked] == [Target.PEER]


def test_a_cached_chain_falls_at_its_next_use() -> None:
    cache, revoked = ChainCache(MESH), RevocationSet(MESH)
    cache.verify(member(), NOW, revoked, peer("member"))
    revoked.add(by_owner(Target.ISSUER, public("issuer")), NOW)
    with pytest.raises(IdentityError) as caught:
        cache.verify(member(), NOW, revoked, peer("member"))
    assert caught.value.reason is Reason.REVOKED


def all_statements() -> list[bytes]:
    return [
        *(by_owner(kind, public(who)) for kind in (Target.PEER, Target.ISSUER) for who in ("member", "issuer", "sub")),
        by_owner(Target.MEMBERSHIP, open_chain(deep(), MESH).serial, NOW + DAY),
        *(revoke(Target.PEER, public(who), key("sub"), MESH, NOW, authority=SUB_CHAIN) for who in ("member", "other")),
        revoke(Target.ISSUER, public("other"), key("sub"), MESH, NOW, authority=SUB_CHAIN),
        revoke(Target.ISSUER, public("sub"), key("issuer"), MESH, NOW, authority=ISSUER_CHAIN),
    ]


@pytest.mark.parametrize("record", all_statements())
@pytest.mark.parametrize("data", [
    member(), deep(), ISSUER_CHAIN, SUB_CHAIN, chain(issuer("owner", "issuer"), link("issuer", "issuer")),
    chain(issuer("owner", "other"), link("other", "other")),
])
def test_one_statement_alone_says_the_same_as_a_set_of_it(record: bytes, data: bytes) -> None:
    assert open_revocation(record, MESH, NOW).strikes(open_chain(data, MESH)) == struck(record, data)


def test_a_key_is_known_as_revoked_before_it_has_a_membership() -> None:
    revoked = RevocationSet(MESH)
    revoked.add(revoke(Target.PEER, public("x"), key("sub"), MESH, NOW, authority=SUB_CHAIN), NOW)
    assert [revoked.is_peer_revoked(peer("x"), level) for level in (1, 2, 3)] == [False, True, True]
    assert not revoked.is_peer_revoked(peer("y"), 3)


def test_the_version_rises_with_every_change_and_only_then() -> None:
    revoked = RevocationSet(MESH)
    seen = [revoked.version]
    for record in (by_owner(Target.PEER, public("x")), by_owner(Target.MEMBERSHIP, b"s" * 16, NOW + DAY)):
        revoked.add(record, NOW)
        seen.append(revoked.version)
        revoked.add(record, NOW)
        assert revoked.version == seen[-1]
    revoked.forget_ended(NOW)
    assert revoked.version == seen[-1]
    revoked.forget_ended(NOW + 2 * DAY)
    assert sorted({*seen, revoked.version}) == [*seen, revoked.version]
