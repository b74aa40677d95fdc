"""Every way in which a chain can lie has its own reason; every honest one passes."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atmosphere.identity import ChainCache, IdentityError, Membership, Reason, open_chain, verify_chain, verify_issuer
from atmosphere.identity.chain import MAX_CHAIN_BYTES
from atmosphere.identity.link import Kind, Link
from protocols.records import domains
from tests.identity.keys import DAY, MESH, NOW, chain, deep, issuer, key, link, member, peer, public

I = issuer("owner", "issuer")  # noqa: E741 - the chain reads as a line
NARROW = issuer("owner", "issuer", ("call:llm/*", "issue"))

HOSTILE = {
    "empty": (b"", Reason.MALFORMED),
    "garbage": (b"\xff" * 40, Reason.MALFORMED),
    "truncated": (member()[:-1], Reason.MALFORMED),
    "trailing bytes": (member() + b"\x10\x01", Reason.MALFORMED),
    "oversized": (b"\x0a" * (MAX_CHAIN_BYTES + 1), Reason.OVERSIZED),
    "oversized link": (chain(link("owner", "member", name="x" * 1200)), Reason.OVERSIZED),
    "four links": (
        chain(I, issuer("issuer", "sub"), issuer("sub", "subsub"), link("subsub", "member")), Reason.TOO_MANY_LINKS),
    "signed by a stranger": (chain(link("stranger", "member")), Reason.FORGED),
    "second link by a stranger": (chain(I, link("stranger", "member")), Reason.FORGED),
    "issuer left out": (chain(link("issuer", "member")), Reason.FORGED),
    "links swapped": (chain(link("issuer", "member"), I), Reason.FORGED),
    "another domain": (chain(link("owner", "member", domain=domains.BEACON)), Reason.FORGED),
    "another mesh": (chain(link("other owner", "member", mesh=public("other owner"))), Reason.FOREIGN_MESH),
    "a link of another mesh": (chain(I, link("issuer", "member", mesh=public("other owner"))), Reason.FOREIGN_MESH),
    "another key's": (member("other"), Reason.WRONG_AUDIENCE),
    "wider scope": (chain(NARROW, link("issuer", "member", scopes=("call:*",))), Reason.WIDENED_SCOPE),
    "another scope": (chain(NARROW, link("issuer", "member", scopes=("serve",))), Reason.WIDENED_SCOPE),
    "one scope of two wider": (
        chain(NARROW, link("issuer", "member", scopes=("call:llm/chat", "call:vision/x"))), Reason.WIDENED_SCOPE),
    "sibling by prefix": (chain(NARROW, link("issuer", "member", scopes=("call:llmx",))), Reason.WIDENED_SCOPE),
    "longer": (chain(I, link("issuer", "member", ends=NOW + 366 * DAY)), Reason.WIDENED_LIFETIME),
    "earlier": (chain(I, link("issuer", "member", begins=NOW - 1)), Reason.WIDENED_LIFETIME),
    "issued by a member": (chain(link("owner", "issuer"), link("issuer", "member")), Reason.NOT_ISSUER),
    "issuer by an issuer without issue": (
        chain(issuer("owner", "issuer", ("call:*",)), issuer("issuer", "sub", ("call:*",)), link("sub", "member")),
        Reason.NOT_ISSUER),
    "invite key by an issuer without invite": (
        chain(NARROW, link("issuer", "sub", Kind.INVITE_KEY, scopes=("call:llm/chat",)), link("sub", "member")),
        Reason.NOT_ISSUER),
    "issuer by an invite key": (
        chain(I, link("issuer", "sub", Kind.INVITE_KEY), issuer("sub", "member", ends=NOW + 1)), Reason.NOT_ISSUER),
    "ends in an issuer": (chain(I), Reason.NOT_MEMBERSHIP),
    "ends in an invite key": (chain(I, link("issuer", "member", Kind.INVITE_KEY)), Reason.NOT_MEMBERSHIP),
    "expired": (chain(link("owner", "member", begins=NOW - 9 * DAY, ends=NOW - 301)), Reason.EXPIRED),
    "a day early": (chain(link("owner", "member", begins=NOW + DAY)), Reason.NOT_YET_VALID),
    "ends before it begins": (chain(link("owner", "member", ends=NOW)), Reason.MALFORMED),
    "never ends": (chain(link("owner", "member", ends=2**63)), Reason.MALFORMED),
    "no scopes": (chain(link("owner", "member", scopes=())), Reason.MALFORMED),
    "too many scopes": (chain(link("owner", "member", scopes=[f"call:t/{n}" for n in range(17)])), Reason.MALFORMED),
    "not a scope": (chain(link("owner", "member", scopes=("call:llm//chat",))), Reason.MALFORMED),
    "star in the middle": (chain(link("owner", "member", scopes=("call:*/chat",))), Reason.MALFORMED),
    "short serial": (chain(link("owner", "member", serial=b"x")), Reason.MALFORMED),
    "name too long": (chain(link("owner", "member", name="x" * 65)), Reason.MALFORMED),
    "escape sequence in the name": (chain(link("owner", "member", name="\x1b[2J")), Reason.MALFORMED),
    "no version": (chain(link("owner", "member", version=0)), Reason.MALFORMED),
    "newer version": (chain(link("owner", "member", version=2)), Reason.UNKNOWN_VERSION),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_refused_with_its_reason(case: str) -> None:
    data, reason = HOSTILE[case]
    with pytest.raises(IdentityError) as caught:
        verify_chain(data, MESH, peer("member"), NOW)
    assert caught.value.reason is reason, caught.value


@pytest.mark.parametrize("data", [
    chain(link("owner", "member")),
    member(),
    deep(),
    chain(I, link("issuer", "sub", Kind.INVITE_KEY), link("sub", "member")),
    chain(link("owner", "member", begins=NOW + 299)),
    chain(link("owner", "member", begins=NOW - 9 * DAY, ends=NOW - 299)),
])
def test_honest_chains_pass(data: bytes) -> None:
    assert verify_chain(data, MESH, peer("member"), NOW).peer == peer("member")


def test_what_a_membership_says() -> None:
    membership = verify_chain(deep(), MESH, peer("member"), NOW)
    assert (membership.name, membership.level, membership.mesh) == ("living room box", 3, MESH)
    assert membership.issuers == (peer("issuer"), peer("sub"))
    assert membership.renew_at == NOW + 0.75 * 7 * DAY
    assert membership.allows("call:llm/chat/generate")
    assert membership.allows("serve")
    assert not membership.allows("invite")


def test_three_links_fit_700_bytes() -> None:
    assert len(deep()) <= 700


def test_verify_issuer_wants_an_issuer() -> None:
    assert verify_issuer(chain(I), MESH, NOW).peer == peer("issuer")
    with pytest.raises(IdentityError) as caught:
        verify_issuer(member(), MESH, NOW)
    assert caught.value.reason is Reason.NOT_ISSUER


def test_no_flipped_bit_passes() -> None:
    """Every single bit of a chain is covered: by a signature, or by the one encoding."""
    data = member()
    for position in range(len(data) * 8):
        flipped = bytearray(data)
        flipped[position // 8] ^= 1 << position % 8
        with pytest.raises(IdentityError):
            verify_chain(bytes(flipped), MESH, peer("member"), NOW)


@given(st.data())
def test_no_cut_and_no_insertion_passes(data: st.DataObject) -> None:
    whole = deep()
    at = data.draw(st.integers(0, len(whole) - 1))
    inserted = data.draw(st.binary(max_size=8))
    removed = data.draw(st.integers(0 if inserted else 1, 8))
    changed = whole[:at] + inserted + whole[at + removed :]
    if changed != whole:
        with pytest.raises(IdentityError):
            verify_chain(changed, MESH, peer("member"), NOW)


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_not_crashed_on(data: bytes) -> None:
    with pytest.raises(IdentityError):
        open_chain(data, MESH)


words = st.from_regex(r"[a-z]{1,8}", fullmatch=True)


@settings(deadline=None)
@given(
    kind=st.sampled_from(Kind), scopes=st.lists(words, min_size=1, max_size=16), begins=st.integers(0, 2**39),
    length=st.integers(1, 2**30), name=st.text("abc äöü-_0", max_size=32), serial=st.binary(min_size=16, max_size=16),
)
def test_link_round_trip(
    kind: Kind, scopes: list[str], begins: int, length: int, name: str, serial: bytes
) -> None:
    value = Link(serial, kind, MESH, peer("x"), tuple(scopes), begins, begins + length, name)
    assert Link.decode(value.encode()) == value


def test_cache_checks_time_and_revocation_again() -> None:
    cache = ChainCache(MESH, size=2)
    data = member()
    first = cache.verify(data, NOW)
    assert isinstance(first, Membership)
    assert cache.verify(data, NOW, audience=peer("member")) is first
    assert (cache.hits, cache.misses) == (1, 1)
    for now, audience, reason in (
        (NOW + 8 * DAY, None, Reason.EXPIRED),
        (NOW - DAY, None, Reason.NOT_YET_VALID),
        (NOW, peer("thief"), Reason.WRONG_AUDIENCE),
    ):
        with pytest.raises(IdentityError) as caught:
            cache.verify(data, now, audience=audience)
        assert caught.value.reason is reason
    assert cache.misses == 1


def test_cache_is_bounded_and_keeps_no_refusals() -> None:
    cache = ChainCache(MESH, size=2)
    for name in ("a", "b", "c"):
        cache.verify(member(name), NOW)
    with pytest.raises(IdentityError):
        cache.verify(chain(I), NOW)
    assert "2 chains" in repr(cache)


def test_a_credential_is_immutable() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        open_chain(member(), MESH).digest = b""  # type: ignore[misc]
    assert key("owner").encode() not in repr(open_chain(member(), MESH)).encode()
