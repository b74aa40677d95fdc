"""Who may issue besides the owner: appointed by narrowing, known everywhere, gone when struck."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atmosphere.identity import (
    Identity,
    IdentityError,
    IssuerDirectory,
    Reason,
    RevocationSet,
    Target,
    accept_enrolment,
    open_chain,
    open_revocation,
    revoke,
    verify_chain,
    verify_issuer,
)
from atmosphere.identity.link import Kind
from tests.identity.keys import DAY, MESH, NOW, chain, deep, issuer, key, link, member, peer, public
from tests.identity.mesh import SECOND_SCOPES, second, third
from tests.identity.test_invite import node, tokens

BY_OWNER = chain(issuer("owner", "sub"))
BY_ISSUER = chain(issuer("owner", "issuer"), issuer("issuer", "sub"))


def test_an_appointed_issuer_renews_invites_and_enrols_without_the_owner() -> None:
    laptop = second()
    assert verify_issuer(laptop.issuer_chain, MESH, NOW).name == "laptop"
    renewed = laptop.renew(member("guest"), peer("guest"), NOW + 6 * DAY, tokens)
    assert verify_chain(renewed, MESH, peer("guest"), NOW + 6 * DAY).issuers == (peer("issuer"), peer("second"))
    made = laptop.create_invite(("/ip4/10.0.0.1/tcp/1",), NOW, tokens)
    granted = laptop.issue_membership(peer("guest"), "guest", made.scopes, NOW, tokens)
    assert accept_enrolment(made, peer("guest"), granted, b"", NOW).level == 3


def test_appointing_is_bounded() -> None:
    first, by = node(), second()
    cases: tuple[tuple[Callable[[], bytes], Reason], ...] = (
        (lambda: by.appoint_issuer(peer("x"), ("serve",), NOW, tokens), Reason.FORBIDDEN),
        (lambda: node(("call:*", "issue")).appoint_issuer(peer("x"), ("serve",), NOW, tokens), Reason.WIDENED_SCOPE),
        (lambda: Identity.load(key("sub").encode(), MESH, "home", chain(
            issuer("owner", "issuer"), issuer("issuer", "sub"), link("sub", "sub")), BY_ISSUER,
        ).appoint_issuer(peer("x"), ("serve",), NOW, tokens), Reason.TOO_MANY_LINKS),
        (lambda: Identity.load(key("member").encode(), MESH, "home", member()).appoint_issuer(
            peer("x"), ("serve",), NOW, tokens), Reason.NOT_ISSUER),
        (lambda: first.appoint_issuer(peer("x"), ("serve",), NOW, tokens, 366 * DAY), Reason.MALFORMED),
        (lambda: first.appoint_issuer(peer("x"), ("serve",), NOW, tokens, 0), Reason.MALFORMED),
        (lambda: first.appoint_issuer(peer("x"), (), NOW, tokens), Reason.MALFORMED),
        (lambda: first.appoint_issuer(peer("x"), ("serve",), NOW + 366 * DAY, tokens), Reason.EXPIRED),
        (lambda: first.appoint_issuer(peer("x"), ("serve",), NOW, tokens, name="x" * 65), Reason.MALFORMED),
    )
    for make, reason in cases:
        with pytest.raises(IdentityError) as caught:
            make()
        assert caught.value.reason is reason, caught.value
    late = first.appoint_issuer(peer("x"), ("serve",), NOW + 300 * DAY, tokens)
    assert open_chain(late, MESH).not_after == NOW + 365 * DAY, "not longer than who appoints"


def test_a_revoked_key_is_not_appointed() -> None:
    revoked = RevocationSet(MESH)
    revoked.add(revoke(Target.ISSUER, public("x"), key("owner"), MESH, NOW), NOW)
    with pytest.raises(IdentityError) as caught:
        node().appoint_issuer(peer("x"), ("serve",), NOW, tokens, revocations=revoked)
    assert caught.value.reason is Reason.REVOKED


def test_an_issuer_revokes_with_its_certificate_a_member_with_its_membership() -> None:
    said = open_revocation(node().revoke(Target.PEER, public("x"), NOW, "lost"), MESH, NOW)
    assert (said.level, said.reason, said.signer) == (1, "lost", peer("issuer"))
    until = NOW + DAY
    assert open_revocation(node().revoke(Target.MEMBERSHIP, b"s" * 16, NOW, until=until), MESH, NOW).until == until
    admin = Identity.load(key("admin").encode(), MESH, "home", member("admin", ("revoke",)))
    assert open_revocation(admin.revoke(Target.PEER, public("x"), NOW), MESH, NOW).level == 2
    warden = Identity.load(
        key("sub").encode(), MESH, "home", member("sub"), chain(issuer("owner", "sub", ("revoke",)))
    )
    assert open_revocation(warden.revoke(Target.PEER, public("x"), NOW), MESH, NOW).level == 1
    cases: tuple[tuple[Callable[[], bytes], Reason], ...] = (
        (lambda: second().revoke(Target.PEER, public("x"), NOW), Reason.FORBIDDEN),
        (lambda: admin.revoke(Target.ISSUER, public("issuer"), NOW), Reason.ABOVE_REVOKER),
        (lambda: node().revoke(Target.PEER, MESH, NOW), Reason.ABOVE_REVOKER),
        (lambda: node().revoke(Target.MEMBERSHIP, b"s" * 16, NOW), Reason.MALFORMED),
    )
    for make, reason in cases:
        with pytest.raises(IdentityError) as caught:
            make()
        assert caught.value.reason is reason, caught.value


def test_the_directory_knows_the_best_chain() -> None:
    known = IssuerDirectory(MESH)
    assert known.chain_of(peer("sub")) == b""
    assert known.add(BY_ISSUER, NOW) is not None
    assert known.chain_of(peer("sub")) == BY_ISSUER
    assert known.add(BY_OWNER, NOW) is not None
    assert known.chain_of(peer("sub")) == BY_OWNER, "closer to the owner"
    assert known.add(BY_OWNER, NOW) is None
    newer = chain(link("owner", "sub", Kind.ISSUER, begins=NOW + DAY, ends=NOW + 366 * DAY, scopes=("*",)))
    with pytest.raises(IdentityError) as caught:
        known.add(newer, NOW)
    assert caught.value.reason is Reason.NOT_YET_VALID
    assert known.add(newer, NOW + DAY) is not None
    assert known.chain_of(peer("sub")) == newer
    assert known.add(BY_OWNER, NOW + DAY) is None
    assert [credential.peer for credential in known.issuers()] == [peer("sub")]
    assert "2 chains" in repr(known)


def test_a_struck_appointer_takes_only_its_own_appointment_along() -> None:
    revoked = RevocationSet(MESH)
    known = IssuerDirectory(MESH, revoked)
    by_third = third().appoint_issuer(peer("sub"), SECOND_SCOPES, NOW + 1, tokens)
    known.add(BY_ISSUER, NOW)
    known.add(by_third, NOW)
    assert known.chain_of(peer("sub")) == by_third, "the newer one"
    revoked.add(revoke(Target.ISSUER, public("third"), key("owner"), MESH, NOW), NOW)
    assert known.chain_of(peer("sub")) == BY_ISSUER
    revoked.add(revoke(Target.ISSUER, public("sub"), key("owner"), MESH, NOW), NOW)
    assert known.chain_of(peer("sub")) == b""
    assert known.issuers() == []
    assert len(list(known)) == 2, "still given to others: they judge for themselves"


@pytest.mark.parametrize(("data", "reason"), [
    (b"", Reason.MALFORMED), (member(), Reason.NOT_ISSUER), (deep(), Reason.NOT_ISSUER), (b"x" * 961, Reason.OVERSIZED),
    (chain(issuer("stranger", "x")), Reason.FORGED),
    (chain(link("other owner", "x", Kind.ISSUER, mesh=public("other owner"))), Reason.FOREIGN_MESH),
])
def test_the_directory_takes_only_issuers_of_its_mesh(data: bytes, reason: Reason) -> None:
    with pytest.raises(IdentityError) as caught:
        IssuerDirectory(MESH).add(data, NOW)
    assert caught.value.reason is reason


CHAINS = [
    BY_OWNER, BY_ISSUER, third().issuer_chain, second().issuer_chain,
    chain(issuer("owner", "sub", ends=NOW + DAY)), chain(issuer("owner", "sub", ("serve",), ends=NOW + 2 * DAY)),
    third().appoint_issuer(peer("sub"), SECOND_SCOPES, NOW, tokens),
]


@given(st.permutations(CHAINS), st.integers(1, 8))
def test_any_order_gives_the_same_directory(order: list[bytes], limit: int) -> None:
    one, other = IssuerDirectory(MESH, limit=limit), IssuerDirectory(MESH, limit=limit)
    for directory, chains in ((one, CHAINS), (other, order)):
        for data in chains:
            directory.add(data, NOW)
    assert max(len(one), len(other)) <= limit
    if limit == 8:  # below that an entry may go before the one that replaces it comes
        assert list(one) == list(other)
        assert one.digest == other.digest
        assert one.chain_of(peer("sub")) == other.chain_of(peer("sub"))


def test_bounded_and_those_next_to_the_owner_stay() -> None:
    known = IssuerDirectory(MESH, limit=2)
    for data in (second().issuer_chain, BY_ISSUER, third().issuer_chain, BY_OWNER):
        known.add(data, NOW)
    assert {credential.level for credential in known.issuers()} == {1}


def test_ended_certificates_are_forgotten() -> None:
    known = IssuerDirectory(MESH)
    known.add(chain(issuer("owner", "a", ends=NOW + 10)), NOW)
    known.add(BY_OWNER, NOW)
    assert known.forget_ended(NOW + 310) == 0
    assert known.forget_ended(NOW + 311) == 1
    assert list(known) == [BY_OWNER]
    assert known.add(chain(issuer("owner", "a", ends=NOW + 10)), NOW + 311) is None
