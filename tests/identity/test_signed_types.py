"""Every signed type: what goes in comes out, and no change of its bytes gets through."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from atmosphere.identity import (
    Credential,
    Identity,
    IdentityError,
    Target,
    open_chain,
    open_redemption,
    open_revocation,
    parse_invite,
    revoke,
    verify_chain,
    verify_issuer,
)
from atmosphere.identity.chain import check_use
from atmosphere.identity.invite import create_invite, open_invite
from atmosphere.identity.link import Kind, Link
from protocols.records import domains, sign
from tests.identity.keys import DAY, MESH, NOW, chain, deep, issuer, key, peer, public
from tests.identity.mesh import invite, second
from tests.identity.test_invite import ADDRESSES, node, tokens

NAMES = st.text(st.characters(categories=["L", "N", "P", "Zs"]), max_size=16)
WORDS = st.text("abcXYZ019._-", min_size=1, max_size=8)
SCOPES = st.lists(
    st.one_of(
        st.sampled_from(["call", "call:*", "serve", "invite", "issue", "revoke", "admin", "deploy"]),
        st.builds("call:{}".format, WORDS), st.builds("call:{}/{}".format, WORDS, WORDS),
    ),
    min_size=1, max_size=6,
)


@given(
    kind=st.sampled_from(Kind), name=NAMES, scopes=SCOPES, serial=st.binary(min_size=16, max_size=16),
    begins=st.integers(1, 2**39), lasts=st.integers(1, 2**39 - 1), subject=WORDS,
)
def test_a_link_reads_back(
    kind: Kind, name: str, scopes: list[str], serial: bytes, begins: int, lasts: int, subject: str
) -> None:
    made = Link(serial, kind, MESH, peer(subject), tuple(scopes), begins, begins + lasts, name)
    assert Link.decode(made.encode()) == made
    signed = chain(sign(domains.LINK, made.encode(), key("owner"), name_signer=False))
    if len(signed) < 1024:
        assert open_chain(signed, MESH).links == (made,)


@given(
    name=NAMES, scopes=SCOPES, expires=st.integers(1, 2**39), uses=st.integers(1, 10_000), approval=st.booleans(),
    secret=st.binary(min_size=16, max_size=16), port=st.integers(1, 65535),
)
def test_an_invite_reads_back(
    name: str, scopes: list[str], expires: int, uses: int, approval: bool, secret: bytes, port: int
) -> None:
    assume(len(name.encode()) <= 32)
    assume(sum(map(len, scopes)) < 60)
    made = create_invite(
        key("issuer"), MESH, name, (f"/ip4/10.0.0.1/tcp/{port}",), expires=expires, secret=secret, uses=uses,
        scopes=scopes, approval=approval,
    )
    again = parse_invite(made.text)
    assert again == made
    assert (again.mesh_name, again.scopes, again.expires) == (name, tuple(scopes), expires)
    assert (again.uses, again.approval, again.inviter) == (uses, approval, peer("issuer"))


@given(
    kind=st.sampled_from(Target), subject=WORDS, before=st.integers(0, 300 * DAY), until=st.integers(1, 2**39),
    reason=NAMES,
)
def test_a_revocation_reads_back(kind: Target, subject: str, before: int, until: int, reason: str) -> None:
    by_serial = kind is Target.MEMBERSHIP
    target = public(subject)[:16] if by_serial else public(subject)
    made = revoke(kind, target, key("owner"), MESH, NOW - before, until=until if by_serial else 0, reason=reason)
    said = open_revocation(made, MESH, NOW)
    assert (said.kind, said.target, said.at, said.reason) == (kind, target, NOW - before, reason)
    assert (said.until, said.signer, said.level) == (until if by_serial else 0, peer("owner"), 0)


@given(scopes=SCOPES, name=NAMES, lifetime=st.integers(1, 364 * DAY), later=st.integers(0, DAY))
def test_an_issuer_is_never_wider_than_who_appointed_it(
    scopes: list[str], name: str, lifetime: int, later: int
) -> None:
    appointer = node(("call:llm/*", "serve", "issue", "invite"))
    try:
        made = appointer.appoint_issuer(peer("sub"), scopes, NOW + later, tokens, lifetime, name=name)
    except IdentityError:
        return
    own, above = open_chain(made, MESH), open_chain(appointer.issuer_chain, MESH)
    assert all(above.allows(scope) for scope in scopes)
    assert above.not_before <= own.not_before < own.not_after <= above.not_after
    assert own.name == name


def issuer_certificate(data: bytes) -> Credential:
    """Of the second issuer: cut to its first link, the chain is the first issuer's."""
    certificate = verify_issuer(data, MESH, NOW)
    check_use(certificate, peer("second"), NOW)
    return certificate


def statements() -> dict[str, tuple[bytes, Callable[[bytes], object]]]:
    by_issuer: Identity = second()
    sub = chain(issuer("owner", "issuer"))
    return {
        "chain": (deep(), lambda data: verify_chain(data, MESH, peer("member"), NOW)),
        "issuer chain": (by_issuer.issuer_chain, issuer_certificate),
        "invite": (invite().envelope, open_invite),
        "offline invite": (node().create_offline_invite(ADDRESSES[:1], NOW, tokens).envelope, open_invite),
        "revocation": (
            revoke(Target.PEER, public("x"), key("issuer"), MESH, NOW, authority=sub),
            lambda data: open_revocation(data, MESH, NOW)),
        "redemption": (
            by_issuer.redeem_record(invite(), peer("guest"), NOW), lambda data: open_redemption(data, MESH, NOW)),
    }


STATEMENTS = statements()


@pytest.mark.parametrize("name", STATEMENTS)
def test_the_statement_itself_is_good(name: str) -> None:
    data, read = STATEMENTS[name]
    assert read(data)


@pytest.mark.parametrize("name", STATEMENTS)
@given(st.data())
def test_no_mutation_gets_through(name: str, data: st.DataObject) -> None:
    original, read = STATEMENTS[name]
    at = data.draw(st.integers(0, len(original)))
    size = data.draw(st.integers(0, 8))
    put = data.draw(st.binary(max_size=8))
    mutated = original[:at] + put + original[at + size :]
    assume(mutated != original)
    with pytest.raises(IdentityError):
        read(mutated)


@pytest.mark.parametrize("name", STATEMENTS)
def test_no_truncation_gets_through(name: str) -> None:
    original, read = STATEMENTS[name]
    for size in range(len(original)):
        with pytest.raises(IdentityError):
            read(original[:size])


@pytest.mark.parametrize("name", STATEMENTS)
def test_one_statement_is_never_another(name: str) -> None:
    for other, (data, _) in STATEMENTS.items():
        if other.split()[-1] != name.split()[-1]:
            with pytest.raises(IdentityError):
                STATEMENTS[name][1](data)
